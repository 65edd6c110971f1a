# Copyright (c) mmdetr authors. All rights reserved.
"""Labels of a batch, with a check of their range."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmdet.utils import InstanceList
from torch import Tensor

from project.utils.errors import UserError
from project.utils.host_copy import HostCopy

from .compiling import not_compiled


@not_compiled
def gather_labels(
    gt_instances: InstanceList,
    img_metas: Sequence[dict],
    num_classes: int | None,
) -> tuple[Tensor, Callable[[], None]]:
    """Concatenate the labels of a batch and check their range.

    A label out of range would silently index the logits of another query or
    another row of an embedding. On the CPU the check is immediate. On other
    devices an asynchronous copy starts, and the returned check is called
    where the host synchronizes anyway; until then labels are clamped.

    Args:
        gt_instances (list[:obj:`InstanceData`]): ``labels`` of each image.
        img_metas (Sequence[dict]): ``img_path`` or ``img_id`` of each image,
            if known.
        num_classes (int, optional): Number of classes; None for no check.

    Returns:
        tuple[Tensor, Callable]: Labels in [0, num_classes), has shape
        (num_gts, ), and a function that raises if they were out of range.

    Raises:
        UserError: If labels on the CPU are out of range.
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
    """Path, id or index of an image, for the error."""
    for key in ('img_path', 'img_id'):
        if img_meta.get(key) is not None:
            return f'the image {key}={img_meta[key]!r}'
    return f'image {image} of the batch'
