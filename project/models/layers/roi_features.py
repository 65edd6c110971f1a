# Copyright (c) mmdetr authors. All rights reserved.
"""RoI features, pooled from the encoder's flattened memory."""

import torch
import torch.nn.functional as F
from mmcv.ops import RoIAlign
from mmdet.registry import MODELS
from torch import Tensor

from project.ops.onnx_mode import is_onnx_mode
from project.ops.region_pooling import multi_level_roi_align
from project.utils.errors import UserError

from .transformer.deformable_attention import LevelShapes


class MemoryRoIAlign:
    """RoIAlign on a flattened multi-scale memory.

    Up to rounding equal to mmdet's ``SingleRoIExtractor`` with mmcv's
    ``RoIAlign`` (Mask R-CNN, section 3), which needs a map for each level and
    four host synchronizations to sort the RoIs by level. Here every bin is a
    weighted sum of memory points of any level: one ``embedding_bag``, without
    copies of the memory and without synchronization.

    Args:
        bbox_roi_extractor (dict): Config of mmdet's ``SingleRoIExtractor``
            with a ``RoIAlign`` of ``pool_mode='avg'`` and a
            ``sampling_ratio`` of at least 1.

    Raises:
        UserError: If it is another extractor.
    """

    def __init__(self, bbox_roi_extractor: dict) -> None:
        if bbox_roi_extractor['type'] != 'SingleRoIExtractor':
            raise UserError(
                'model.decoder.bbox_roi_extractor.type='
                f'{bbox_roi_extractor["type"]!r} should be '
                "'SingleRoIExtractor'"
            )
        extractor = MODELS.build(bbox_roi_extractor)
        layer = extractor.roi_layers[0]
        if (
            not isinstance(layer, RoIAlign)
            or layer.sampling_ratio < 1
            or layer.pool_mode != 'avg'
        ):
            raise UserError(
                'model.decoder.bbox_roi_extractor.roi_layer should be a '
                'RoIAlign with sampling_ratio=1 or more and '
                "pool_mode='avg'"
            )
        self.extractor = extractor
        self.strides = tuple(extractor.featmap_strides)
        self.output_size = tuple(layer.output_size)
        self.sampling_ratio = layer.sampling_ratio
        self.offset = 0.5 if layer.aligned else 0.0
        self.min_size = None if layer.aligned else 1.0

    def __call__(
        self, memory: Tensor, boxes: Tensor, level_shapes: LevelShapes
    ) -> Tensor:
        """Pool the features of boxes.

        Args:
            memory (Tensor): Flattened features, has shape
                (bs, num_feat_points, dim).
            boxes (Tensor): Boxes (x1, y1, x2, y2) in pixels of the network's
                input, without gradient, has shape (bs, num_boxes, 4).
            level_shapes (Sequence[tuple[int, int]]): (h, w) of each level.

        Returns:
            Tensor: Features, bins in row-major order, has shape
            (bs * num_boxes, num_bins, dim).
        """
        if is_onnx_mode():
            return self._as_one_op(memory, boxes, level_shapes)
        with torch.no_grad():
            index, weight = self._points(boxes, level_shapes)
            first = torch.arange(memory.shape[0], device=memory.device)
            index += (first * memory.shape[1]).view(-1, 1, 1, 1)
        num_bins = index.shape[2]
        features = F.embedding_bag(
            index.flatten(0, 2),
            memory.flatten(0, 1),
            mode='sum',
            per_sample_weights=weight.flatten(0, 2).to(memory.dtype),
        )
        return features.unflatten(0, (-1, num_bins))

    def _as_one_op(
        self, memory: Tensor, boxes: Tensor, level_shapes: LevelShapes
    ) -> Tensor:
        """Pool as :meth:`__call__` does, by what becomes ONNX's RoiAlign."""
        return multi_level_roi_align(
            memory,
            boxes,
            self.levels(boxes),
            torch.tensor(level_shapes),
            strides=self.strides,
            output_size=self.output_size,
            sampling_ratio=self.sampling_ratio,
            aligned=self.min_size is None,
        )

    def levels(self, boxes: Tensor) -> Tensor:
        """Assign each box to a level by its size.

        Args:
            boxes (Tensor): As in :meth:`__call__`.

        Returns:
            Tensor: Has shape (bs, num_boxes).
        """
        rois = F.pad(boxes.flatten(0, 1), (1, 0))
        levels = self.extractor.map_roi_levels(rois, len(self.strides))
        return levels.view(boxes.shape[:2])

    def _points(
        self, boxes: Tensor, level_shapes: LevelShapes
    ) -> tuple[Tensor, Tensor]:
        """Memory points of each bin, and their weights.

        Returns:
            tuple[Tensor, Tensor]: Each has shape
            (bs, num_boxes, num_bins, num_points).
        """
        # If a training diverges, the matching reports it.
        boxes = boxes.nan_to_num()
        levels = self.levels(boxes)
        sizes = torch.tensor(level_shapes[: len(self.strides)])
        areas = sizes.prod(1)
        strides = torch.tensor(self.strides)
        table = torch.stack([*sizes.T, areas.cumsum(0) - areas, strides])
        table = table.to(boxes.device, non_blocking=True)
        heights, widths, starts, strides = table[:, levels]
        corners = boxes / strides[..., None] - self.offset
        x1, y1, x2, y2 = corners.unbind(-1)
        rows, cols = self.output_size
        y, y_weight = self._along(y1, y2 - y1, rows, heights)
        x, x_weight = self._along(x1, x2 - x1, cols, widths)
        index = starts[..., None, None, None, None] + (
            y[:, :, :, None, :, None] * widths[..., None, None, None, None]
            + x[:, :, None, :, None, :]
        )
        weight = (
            y_weight[:, :, :, None, :, None] * x_weight[:, :, None, :, None, :]
        )
        return index.flatten(4).flatten(2, 3), weight.flatten(4).flatten(2, 3)

    def _along(
        self, start: Tensor, length: Tensor, num_bins: int, size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Linear interpolation along one axis; bilinear weights factorize.

        Args:
            start (Tensor): Starts of the boxes, has shape (bs, num_boxes).
            length (Tensor): Their lengths, has the same shape.
            num_bins (int): Bins along this axis.
            size (Tensor): Size of each box's level, has the same shape.

        Returns:
            tuple[Tensor, Tensor]: Indices on the axis and their weights, each
            has shape (bs, num_boxes, num_bins, 2 * sampling_ratio).
        """
        if self.min_size is not None:
            length = length.clamp(min=self.min_size)
        ratio = self.sampling_ratio
        steps = torch.arange(num_bins * ratio, device=start.device)
        places = (steps.to(start.dtype) + 0.5) / (num_bins * ratio)
        places = start[..., None] + places * length[..., None]
        size = size[..., None]
        is_inside = (places >= -1) & (places <= size)
        places = places.clamp(min=0).minimum((size - 1).to(places.dtype))
        low = places.floor()
        share = places - low
        low = low.long()
        high = (low + 1).minimum(size - 1)
        weights = torch.stack([1 - share, share], -1)
        inside = is_inside.to(share.dtype) / ratio
        weights = weights * inside[..., None]
        index = torch.stack([low, high], -1)
        return tuple(
            t.flatten(-2).unflatten(-1, (num_bins, -1))
            for t in (index, weights)
        )
