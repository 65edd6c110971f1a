# Copyright (c) mmdetr authors. All rights reserved.
"""HPR's decoder layer: three parallel refiners of proposals."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmcv.cnn.bricks.transformer import FFN
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from project.utils.errors import UserError

from ..roi_features import MemoryRoIAlign
from .deformable_attention import LevelShapes
from .deformable_layers import DeformableDecoderLayer
from .layer_norms import layer_norms
from .query_groups import GroupedSelfAttention, QueryGroups
from .regional_layers import (
    Merger,
    RegionalCrossAttention,
    RegionalDynamicConv,
)

# The setting of all published models.
ROI_EXTRACTOR = dict(
    type='SingleRoIExtractor',
    finest_scale=56,
    roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2),
    out_channels=256,
    featmap_strides=[8, 16, 32, 64],
)


@MODELS.register_module()
class ProposalRefinerLayer(DeformableDecoderLayer):
    """Deformable decoder layer with two auxiliary refiners.

    Source: HPR, "Hybrid Proposal Refiner" (CVPR 2024). A refiner consists of
    self-attention, a specific module and an FFN. The primary one is the
    deformable layer; the auxiliary ones use the RoI feature of the query, by
    regional cross attention ("ca") and by dynamic convolution ("dyconv"). All
    have the same input. The auxiliary ones are merged into the primary one
    after self-attention and after the FFN, and only its queries go to the
    next layer. In training the queries of the auxiliary refiners are outputs
    too, with their own losses.

    Args:
        *args: As in mmdet's ``DeformableDetrTransformerDecoderLayer``.
        bbox_roi_extractor (dict): Config of :class:`MemoryRoIAlign`.
        merge_method (str): How refiners are merged, see :class:`Merger`.
            Defaults to ``'learnable_channel_aware'``.
        initial_weights (Sequence[float]): Initial weights of the primary
            refiner, dynamic convolution and regional cross attention.
            Defaults to (1, 1, 1).
        dy_conv_cfg (dict, optional): Settings of :class:`RegionalDynamicConv`.
        regional_ca_cfg (dict, optional): Settings of
            :class:`RegionalCrossAttention`; ``roi_size`` defaults to that of
            the extractor.
        draw_mergers (bool): Whether the mergers are initialized by Xavier,
            like the matrices around them. Defaults to False.
        merge_dropout (float): Ignored, as in the authors' code; their configs
            set it. Defaults to 0.0.
        **kwargs: As in mmdet's class.

    Raises:
        UserError: If there are not three initial weights, the extractor has
            more levels than the deformable attention, or its output size
            does not fit the refiners.
    """

    num_auxiliary = 2
    """Outputs of regional cross attention and of dynamic convolution."""
    gives_more_in_training = True
    """For ``ValidationLossHook``: these outputs are there in training only."""
    gives_auxiliary = False
    """Whether they are there in evaluation as well."""
    refiners = (
        'deformable attention',
        'dynamic convolution',
        'regional cross attention',
    )
    """Names of the refiners, in the order of the mergers' weights."""

    def __init__(
        self,
        *args: Any,
        bbox_roi_extractor: dict,
        merge_method: str = 'learnable_channel_aware',
        initial_weights: Sequence[float] = (1, 1, 1),
        dy_conv_cfg: dict | None = None,
        regional_ca_cfg: dict | None = None,
        draw_mergers: bool = False,
        merge_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if len(initial_weights) != 1 + self.num_auxiliary:
            raise UserError(
                'model.decoder.layer_cfg.initial_weights='
                f'{list(initial_weights)} should have three weights: of the '
                'primary refiner, dynamic convolution and regional cross '
                'attention'
            )
        self.merger_cfg: dict[str, Any] = dict(
            merge_method=merge_method,
            initial_weights=initial_weights,
            is_drawn=draw_mergers,
        )
        self.dy_conv_cfg = dy_conv_cfg or {}
        self.roi_align = MemoryRoIAlign(bbox_roi_extractor)
        self.regional_ca_cfg = {
            'roi_size': self.roi_align.output_size[0],
            **(regional_ca_cfg or {}),
        }
        super().__init__(*args, **kwargs)
        self._check_regions()

    def _check_regions(self) -> None:
        """Raise if the extractor does not fit the refiners."""
        strides, levels = self.roi_align.strides, self.cross_attn.num_levels
        if len(strides) > levels:
            raise UserError(
                f'model.decoder.bbox_roi_extractor.featmap_strides={strides} '
                f'has {len(strides)} strides; the decoder has {levels} levels'
            )
        found = self.roi_align.output_size
        for key, size in (
            ('dy_conv_cfg.input_feat_shape', self.dy_conv.input_feat_shape),
            ('regional_ca_cfg.roi_size', self.regional_ca.roi_size),
        ):
            if found != (size, size):
                raise UserError(
                    f'model.decoder.layer_cfg.{key}={size} expects regions '
                    f'of {size} x {size} points, but model.decoder.'
                    'bbox_roi_extractor.roi_layer.output_size makes them '
                    f'{found[0]} x {found[1]}'
                )

    def _init_layers(self) -> None:
        """Initialize the three refiners and their mergers."""
        super()._init_layers()
        dims = self.embed_dims
        self.ca_self_attn = GroupedSelfAttention(**self.self_attn_cfg)
        self.regional_ca = RegionalCrossAttention(**self.regional_ca_cfg)
        self.ca_ffn = FFN(**self.ffn_cfg)
        self.ca_norms = layer_norms(self.norm_cfg, dims, 3)
        self.dyconv_self_attn = GroupedSelfAttention(**self.self_attn_cfg)
        self.dy_conv = RegionalDynamicConv(**self.dy_conv_cfg)
        self.dyconv_ffn = FFN(**self.ffn_cfg)
        self.dyconv_norms = layer_norms(self.norm_cfg, dims, 3)
        self.merger_SA = Merger(**self.merger_cfg, embed_dims=dims)
        self.merger_FFN = Merger(**self.merger_cfg, embed_dims=dims)

    def forward(
        self,
        query: Tensor,
        *,
        value: Tensor,
        level_shapes: LevelShapes,
        image_references: Tensor,
        image_sizes: Tensor,
        query_pos: Tensor | None = None,
        query_groups: QueryGroups | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Refine queries.

        Args:
            query (Tensor): Queries, has shape (bs, num_queries, dim).
            value (Tensor): Encoded features, has shape
                (bs, num_feat_points, dim).
            level_shapes (Sequence[tuple[int, int]]): (h, w) of each level.
            image_references (Tensor): Boxes (cx, cy, w, h) in [0, 1] of each
                unpadded image, has shape (bs, num_queries, 4).
            image_sizes (Tensor): (w, h, w, h) of each unpadded image in
                pixels, has shape (bs, 4).
            query_pos (Tensor, optional): Position of the queries, has the
                shape of ``query``.
            query_groups (QueryGroups, optional): Groups of the queries.
            **kwargs: As in :class:`DeformableAttention`.

        Returns:
            tuple[Tensor, tuple[Tensor, ...]]: Queries of the primary
            refiner, and in training those of regional cross attention and
            of dynamic convolution, each has shape (bs, num_queries, dim).
        """
        regions = self.region_features(
            value, level_shapes, image_references, image_sizes
        )
        by_deform, by_dyconv, by_ca = (
            attend(query, query_pos=query_pos, query_groups=query_groups)
            for attend in (
                self.self_attn,
                self.dyconv_self_attn,
                self.ca_self_attn,
            )
        )
        query = self.norms[0](self.merger_SA(by_deform, by_dyconv, by_ca))
        query = self.cross_attn(
            query=query,
            value=value,
            query_pos=query_pos,
            level_shapes=level_shapes,
            **kwargs,
        )
        query = self.ffn(self.norms[1](query))
        by_dyconv = self._refine_by_dyconv(by_dyconv, regions)
        by_ca = self._refine_by_ca(by_ca, regions)
        query = self.norms[2](self.merger_FFN(query, by_dyconv, by_ca))
        if not (self.training or self.gives_auxiliary):
            return query, ()
        auxiliary = self.ca_norms[2](by_ca), self.dyconv_norms[2](by_dyconv)
        return query, auxiliary

    @contextmanager
    def without(self, refiner: str) -> Iterator[None]:
        """Leave a refiner out of what is merged, in evaluation.

        Args:
            refiner (str): One of ``refiners``.
        """
        index = self.refiners.index(refiner)
        columns = [
            merger.weights.data[..., index]
            for merger in (self.merger_SA, self.merger_FFN)
        ]
        kept = [column.clone() for column in columns]
        for column in columns:
            column.zero_()
        try:
            yield
        finally:
            for column, values in zip(columns, kept, strict=True):
                column.copy_(values)

    def region_features(
        self,
        value: Tensor,
        level_shapes: LevelShapes,
        references: Tensor,
        image_sizes: Tensor,
    ) -> Tensor:
        """RoI features of the queries.

        The arguments are those of :meth:`forward`.

        Returns:
            Tensor: Has shape (bs * num_queries, num_points, dim).
        """
        boxes = bbox_cxcywh_to_xyxy(references) * image_sizes[:, None]
        return self.roi_align(value, boxes, level_shapes)

    def _refine_by_dyconv(self, query: Tensor, regions: Tensor) -> Tensor:
        """Refine by dynamic convolution, up to the FFN."""
        query = self.dyconv_norms[0](query)
        change = self.dy_conv(query.flatten(0, 1), regions)
        query = self.dyconv_norms[1](query + change.view_as(query))
        return self.dyconv_ffn(query)

    def _refine_by_ca(self, query: Tensor, regions: Tensor) -> Tensor:
        """Refine by regional cross attention, up to the FFN."""
        query = self.ca_norms[0](query)
        refined = self.regional_ca(query.flatten(0, 1), regions)
        return self.ca_ffn(self.ca_norms[1](refined.view_as(query)))
