# Copyright (c) mmdetr authors. All rights reserved.
"""Deformable decoder whose queries are anchor boxes."""

from mmdet.models.layers.transformer import MLP
from torch import Tensor

from .deformable_layers import ReferenceEncodingDecoder


class DABDeformableDecoder(ReferenceEncodingDecoder):
    """Decoder of DAB-Deformable-DETR.

    Source: the authors' code of `DAB-DETR
    <https://arxiv.org/abs/2201.12329>`_. From the second layer on, positions
    are scaled by the contents.
    """

    def _init_layers(self) -> None:
        """Initialize decoder layers and the embedding of the boxes."""
        super()._init_layers()
        dims = self.embed_dims
        self.query_scale = MLP(dims, dims, dims, 2)
        self.ref_point_head = MLP(2 * dims, dims, dims, 2)

    def embed_position(
        self,
        layer_id: int,
        query: Tensor,
        query_pos: Tensor | None,
        reference_points: Tensor,
    ) -> Tensor:
        """Embed the boxes and scale them by the contents.

        Arguments and results are those of :class:`BoxRefinementDecoder`.
        """
        position = super().embed_position(
            layer_id, query, query_pos, reference_points
        )
        return position * self.query_scale(query) if layer_id else position
