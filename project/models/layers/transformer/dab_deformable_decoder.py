# Copyright (c) mmdetr authors. All rights reserved.
"""Deformable decoder whose queries are anchor boxes."""

from mmdet.models.layers.transformer import MLP, coordinate_to_encoding
from torch import Tensor

from ...utils.precision import like_weights
from .deformable_layers import BoxRefinementDecoder


class DABDeformableDecoder(BoxRefinementDecoder):
    """Deformable decoder that encodes its references anew in each layer.

    Source: DAB-Deformable-DETR, the authors' code of `DAB-DETR
    <https://arxiv.org/abs/2201.12329>`_. The position of a query is the
    embedded encoding of its box, from the second layer on scaled by the
    content.
    """

    def _init_layers(self) -> None:
        """Initialize decoder layers and what turns boxes into positions."""
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
        """Embed the boxes, as they lie in the first level.

        Arguments and results are those of :class:`BoxRefinementDecoder`.
        """
        encoding = coordinate_to_encoding(
            reference_points[:, :, 0], num_feats=self.embed_dims // 2
        )
        encoding = like_weights(encoding, self.ref_point_head)
        position = self.ref_point_head(encoding)
        return position * self.query_scale(query) if layer_id else position
