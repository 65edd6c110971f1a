# Copyright (c) mmdetr authors. All rights reserved.
"""mmcv's deformable attention, which also takes level sizes as integers."""

from collections.abc import Sequence
from typing import Any

from mmcv.ops import MultiScaleDeformableAttention
from torch import Tensor

from project.ops import multi_scale_deformable_attention

LevelShapes = Sequence[tuple[int, int]]


class DeformableAttention(MultiScaleDeformableAttention):
    """Multi-scale deformable attention without host synchronization.

    A drop-in replacement of mmcv's ``MultiScaleDeformableAttention``
    (Deformable DETR, section 4.1). mmcv reads the level sizes back from a
    tensor in every layer, which synchronizes with the GPU and prevents
    export; here they can be passed as integers. The sampling is done by
    :mod:`project.ops`.
    """

    def init_weights(self) -> None:
        """Initialize as mmcv does, but keep the precision of the model."""
        bias = self.sampling_offsets.bias
        dtype = bias.dtype
        super().init_weights()
        bias.data = bias.data.to(dtype)  # mmcv makes it float32

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        *,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        level_shapes: LevelShapes | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Attend to a few points around each query's reference.

        Args:
            query (Tensor): Queries, has shape (bs, num_queries, dim). Without
                ``batch_first`` the first two axes of this, of the next four
                arguments and of the result are swapped.
            key (Tensor, optional): Unused; part of mmcv's interface.
            value (Tensor, optional): Flattened features, has shape
                (bs, num_feat_points, dim). Defaults to ``query``.
            identity (Tensor, optional): What the result is added to.
                Defaults to ``query``.
            query_pos (Tensor, optional): Position of the queries, has the
                shape of ``query``.
            key_padding_mask (Tensor, optional): True where ``value`` is
                padding, has shape (bs, num_feat_points).
            reference_points (Tensor): Points (x, y) or boxes
                (cx, cy, w, h) in [0, 1] of each padded level, has shape
                (bs, num_queries, num_levels, 2 or 4).
            spatial_shapes (Tensor): (h, w) of each level, has shape
                (num_levels, 2).
            level_start_index (Tensor): Index of each level's first point,
                has shape (num_levels, ).
            level_shapes (Sequence[tuple[int, int]], optional): The values of
                ``spatial_shapes``, by default read from it where needed.
            **kwargs: Arguments of other attentions, unused.

        Returns:
            Tensor: Attended queries, has shape (bs, num_queries, dim).
        """
        value = query if value is None else value
        identity = query if identity is None else identity
        if query_pos is not None:
            query = query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.num_heads, -1))
        locations, weights = self.sampling(
            query, reference_points, spatial_shapes
        )
        output = multi_scale_deformable_attention(
            value,
            spatial_shapes,
            level_start_index,
            locations,
            weights,
            level_shapes=level_shapes,
        )
        output = self.output_proj(output)
        if not self.batch_first:
            output = output.transpose(0, 1)
        return self.dropout(output) + identity

    def sampling(
        self, query: Tensor, reference_points: Tensor, spatial_shapes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where the queries look, and how much each point counts.

        Args:
            query (Tensor): Queries with their positions, has shape
                (bs, num_queries, dim).
            reference_points (Tensor): As in :meth:`forward`.
            spatial_shapes (Tensor): As in :meth:`forward`.

        Returns:
            tuple[Tensor, Tensor]: Points (x, y) in [0, 1] of each padded
            level, has shape
            (bs, num_queries, num_heads, num_levels, num_points, 2), and
            their weights, without the last axis, which add up to 1 in each
            head.
        """
        weights = self.attention_weights(query)
        weights = weights.unflatten(-1, (self.num_heads, -1)).softmax(-1)
        weights = weights.unflatten(-1, (self.num_levels, self.num_points))
        offsets = self.sampling_offsets(query)
        offsets = offsets.unflatten(
            -1, (self.num_heads, self.num_levels, self.num_points, 2)
        )
        points = reference_points[:, :, None, :, None]
        if reference_points.shape[-1] == 2:
            sizes = spatial_shapes.flip(-1)  # (h, w) -> (w, h)
            return points + offsets / sizes[:, None], weights
        offsets = offsets / self.num_points * points[..., 2:] * 0.5
        return points[..., :2] + offsets, weights
