# Copyright (c) mmdetr authors. All rights reserved.
"""The labels of a batch, checked where they are gathered."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmdet.utils import InstanceList
from torch import Tensor

from project.utils.errors import UserError

from .compiling import not_compiled
from .host_copy import HostCopy


@not_compiled
def gather_labels(
    gt_instances: InstanceList,
    img_metas: Sequence[dict],
    num_classes: int | None,
) -> tuple[Tensor, Callable[[], None]]:
    """Join the labels of a batch and check that there are such classes.

    A label out of range would index the logits of another query, or another
    row of a table, without an error. On the host it is refused at once. On
    another device the labels start for the host without being waited for;
    whoever waits there anyway calls the check. Until then labels out of
    range count as the nearest class.

    Args:
        gt_instances (list[:obj:`InstanceData`]): ``labels`` of each image.
        img_metas (Sequence[dict]): ``img_path`` or ``img_id`` of each image,
            if it is known.
        num_classes (int, optional): How many classes there are; None for no
            check.

    Returns:
        tuple[Tensor, Callable]: Labels in [0, num_classes), has shape
        (num_gts, ), and what raises if some were not.

    Raises:
        UserError: If labels on the host are out of range.
    """
    labels = torch.cat([instances.labels for instances in gt_instances])
    if num_classes is None:
        return labels, lambda: None
    counts = [len(instances.labels) for instances in gt_instances]

    def check(found: np.ndarray) -> None:
        wrong = np.flatnonzero((found < 0) | (found >= num_classes))
        if len(wrong):
            image = np.searchsorted(np.cumsum(counts), wrong[0], 'right')
            raise UserError(
                f'{_name(img_metas[image], image)} has an object with the '
                f'label {found[wrong[0]]}, but model.bbox_head.num_classes='
                f'{num_classes}: labels should be 0 to {num_classes - 1}'
            )

    if labels.device.type == 'cpu':
        check(labels.numpy())
        return labels, lambda: None
    copy = HostCopy(labels)
    return labels.clamp(0, num_classes - 1), lambda: check(copy.wait())


def _name(img_meta: dict, image: int) -> str:
    """What the user knows an image by."""
    for key in ('img_path', 'img_id'):
        if img_meta.get(key) is not None:
            return f'the image {key}={img_meta[key]!r}'
    return f'image {image} of the batch'
