# Copyright (c) mmdetr authors. All rights reserved.
"""Multi-level feature maps as one flattened sequence."""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from mmdet.structures import OptSampleList
from torch import Tensor

from .deformable_attention import LevelShapes


def level_geometry(level_shapes: LevelShapes, device: torch.device) -> dict:
    """The level sizes in every form that the layers take.

    The tensors are copied asynchronously: ``torch.tensor`` with a device would
    synchronize.

    Args:
        level_shapes (tuple[tuple[int, int]]): (h, w) of each level.
        device (torch.device): Device of the tensors.

    Returns:
        dict: ``level_shapes``; ``spatial_shapes``, the same as a tensor of
        shape (num_levels, 2); ``level_start_index``, the index of each
        level's first point, has shape (num_levels, ).
    """
    sizes = (h * w for h, w in level_shapes[:-1])
    starts = torch.tensor(list(accumulate(sizes, initial=0)))
    shapes = torch.tensor(level_shapes)
    return dict(
        level_shapes=level_shapes,
        spatial_shapes=shapes.to(device, non_blocking=True),
        level_start_index=starts.to(device, non_blocking=True),
    )


def flatten_levels(maps: Sequence[Tensor]) -> Tensor:
    """Flatten and concatenate the maps of all levels.

    Args:
        maps (Sequence[Tensor]): One for each level, has shape
            (bs, dim, h, w).

    Returns:
        Tensor: Has shape (bs, num_feat_points, dim).
    """
    return torch.cat([m.flatten(2) for m in maps], 2).transpose(1, 2)


def level_centres(
    level_shapes: LevelShapes, device: torch.device | str
) -> list[Tensor]:
    """Centres of the points of each level, in points.

    mmdet's ``linspace`` gives the same numbers, but fixes the sizes when
    the network is exported.

    Args:
        level_shapes (Sequence[tuple[int, int]]): (h, w) of each level.
        device (torch.device | str): Device of the tensors.

    Returns:
        list[Tensor]: (x, y) in [0.5, w - 0.5] and [0.5, h - 0.5] of each
        level, in float32, has shape (h * w, 2).
    """
    grids = []
    for shape in level_shapes:
        y, x = torch.meshgrid(
            *(torch.arange(n, device=device) + 0.5 for n in shape),
            indexing='ij',
        )
        grids.append(torch.stack([x, y], -1).flatten(0, 1).float())
    return grids


def level_masks(
    mlvl_feats: Sequence[Tensor], batch_data_samples: OptSampleList
) -> list[Tensor | None]:
    """Padding masks of all levels.

    Args:
        mlvl_feats (Sequence[Tensor]): Features of each level, has shape
            (bs, dim, h_lvl, w_lvl).
        batch_data_samples (list[:obj:`DetDataSample`], optional): Hold the
            size of each image within the batch. By default no image is
            padded.

    Returns:
        list[Tensor | None]: For each level True where padded, has shape
        (bs, h_lvl, w_lvl); None if no image is padded.
    """
    samples = batch_data_samples or []
    if all(s.img_shape[:2] == s.batch_input_shape for s in samples):
        return [None] * len(mlvl_feats)
    masks = mlvl_feats[0].new_ones(
        (len(samples), *samples[0].batch_input_shape)
    )
    for mask, sample in zip(masks, samples, strict=True):
        height, width = sample.img_shape[:2]
        mask[:height, :width] = 0
    return [
        F.interpolate(masks[None], size=feat.shape[-2:])[0].bool()
        for feat in mlvl_feats
    ]
