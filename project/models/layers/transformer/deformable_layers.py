# Copyright (c) mmdetr authors. All rights reserved.
"""Deformable encoder and the decoder that refines boxes layer by layer."""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmdet.models.layers.transformer import (
    DeformableDetrTransformerDecoder,
    DeformableDetrTransformerDecoderLayer,
    DeformableDetrTransformerEncoder,
    DeformableDetrTransformerEncoderLayer,
    coordinate_to_encoding,
)
from mmdet.registry import MODELS
from mmengine.model import ModuleList
from torch import Tensor, nn

from project.utils.errors import UserError
from project.utils.settings import Eps, checked

from ...utils.box_ops import refine_reference
from ...utils.precision import like_weights
from ..recomputation import RecomputedEncoder, recompute_layers
from ..stage_outputs import DecoderOutput
from .deformable_attention import DeformableAttention, LevelShapes
from .feature_levels import level_centres
from .layer_norms import layer_norms
from .query_groups import GroupedSelfAttention, QueryGroups


class DeformableEncoderLayer(DeformableDetrTransformerEncoderLayer):
    """mmdet's encoder layer with :class:`DeformableAttention`."""

    def _init_layers(self) -> None:
        """Initialize self_attn, ffn, and norms."""
        self.self_attn = DeformableAttention(**self.self_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = layer_norms(self.norm_cfg, self.embed_dims, 2)


class DeformableEncoder(RecomputedEncoder, DeformableDetrTransformerEncoder):
    """mmdet's Deformable DETR encoder, with level sizes as integers.

    The first ``num_cp`` layers use activation checkpointing.
    """

    def _init_layers(self) -> None:
        """Initialize encoder layers."""
        self.layers = ModuleList(
            DeformableEncoderLayer(**self.layer_cfg)
            for _ in range(self.num_layers)
        )
        self.embed_dims = self.layers[0].embed_dims
        recompute_layers(self.layers, max(self.num_cp, 0))

    @staticmethod
    def get_encoder_reference_points(
        spatial_shapes: LevelShapes,
        valid_ratios: Tensor,
        device: torch.device | str,
    ) -> Tensor:
        """Compute the references of the features: their own places.

        Args:
            spatial_shapes (Sequence[tuple[int, int]]): (h, w) of each level.
            valid_ratios (Tensor): As in :meth:`forward`.
            device (torch.device | str): Device of the references.

        Returns:
            Tensor: (x, y) in [0, 1] of each padded level, has shape
            (bs, num_feat_points, num_levels, 2).
        """
        centres = level_centres(spatial_shapes, device)
        levels = zip(
            centres, valid_ratios.unbind(1), spatial_shapes, strict=True
        )
        on_image = [
            points
            / torch.stack([ratio[:, 0] * w, ratio[:, 1] * h], -1)[:, None]
            for points, ratio, (h, w) in levels
        ]
        return torch.cat(on_image, 1)[:, :, None] * valid_ratios[:, None]

    def forward(
        self,
        query: Tensor,
        *,
        level_shapes: LevelShapes,
        valid_ratios: Tensor,
        **kwargs: Any,
    ) -> Tensor:
        """Encode flattened features.

        Args:
            query (Tensor): Features, has shape (bs, num_feat_points, dim).
            level_shapes (Sequence[tuple[int, int]]): (h, w) of each level.
            valid_ratios (Tensor): Unpadded share (w, h) of each level, has
                shape (bs, num_levels, 2).
            **kwargs: Passed on to every layer.

        Returns:
            Tensor: Memory, has shape (bs, num_feat_points, dim).
        """
        reference_points = self.get_encoder_reference_points(
            level_shapes, valid_ratios, device=query.device
        )
        for layer in self.layers:
            query = layer(
                query,
                level_shapes=level_shapes,
                reference_points=reference_points,
                **kwargs,
            )
        return query


class DeformableDecoderLayer(DeformableDetrTransformerDecoderLayer):
    """mmdet's decoder layer with query groups and integer level sizes."""

    num_auxiliary = 0
    """Number of auxiliary outputs in training. A layer that has some returns
    the queries and a tuple of these, which is empty in evaluation."""

    def _init_layers(self) -> None:
        """Initialize self_attn, cross-attn, ffn, and norms."""
        self.self_attn = GroupedSelfAttention(**self.self_attn_cfg)
        self.cross_attn = DeformableAttention(**self.cross_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = layer_norms(self.norm_cfg, self.embed_dims, 3)


class BoxRefinementDecoder(DeformableDetrTransformerDecoder):
    """Deformable decoder with iterative refinement of the references.

    ``layer_cfg`` may give the ``type`` of the layers, by default
    :class:`DeformableDecoderLayer`.

    Args:
        look_forward_twice (bool): Whether the box of a layer also trains
            the box branch of the layer before (DINO, section 3.5). Defaults
            to False.
        inverse_sigmoid_eps (float): Eps of the references' inverse sigmoid.
            Defaults to 1e-5.
        num_cp (int): Number of layers with activation checkpointing; none if
            below 1. Defaults to 0.
        *args, **kwargs: As in mmdet's ``DeformableDetrTransformerDecoder``;
            the outputs of all layers are always returned.
    """

    @checked('model.decoder')
    def __init__(
        self,
        *args: Any,
        look_forward_twice: bool = False,
        inverse_sigmoid_eps: Eps = 1e-5,
        num_cp: int = 0,
        **kwargs: Any,
    ) -> None:
        self.num_cp = num_cp
        self.look_forward_twice = look_forward_twice
        self.inverse_sigmoid_eps = inverse_sigmoid_eps
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        """Initialize decoder layers."""
        settings = dict(self.layer_cfg)
        layer_class = _layer_class(settings.pop('type', None))
        self.num_auxiliary = getattr(layer_class, 'num_auxiliary', 0)
        self.layers = ModuleList(
            layer_class(**settings) for _ in range(self.num_layers)
        )
        self.embed_dims = self.layers[0].embed_dims
        recompute_layers(self.layers, max(self.num_cp, 0))

    def forward(
        self,
        query: Tensor,
        *,
        query_pos: Tensor | None = None,
        reference_points: Tensor,
        valid_ratios: Tensor,
        query_groups: QueryGroups | None = None,
        reg_branches: nn.ModuleList | None = None,
        cls_branches: nn.ModuleList | None = None,
        **kwargs: Any,
    ) -> DecoderOutput:
        """Decode queries, refining their references after each layer.

        Args:
            query (Tensor): Queries, has shape (bs, num_queries, dim).
            query_pos (Tensor, optional): Their positions, has the same shape.
                By default they come from :meth:`embed_position`.
            reference_points (Tensor): Initial references in [0, 1] of the
                unpadded image, (cx, cy) or (cx, cy, w, h), has shape
                (bs, num_queries, 2 or 4).
            valid_ratios (Tensor): Unpadded share (w, h) of each level, has
                shape (bs, num_levels, 2).
            query_groups (QueryGroups, optional): Groups of the queries. By
                default all attend to each other.
            reg_branches (nn.ModuleList, optional): Box branches that refine
                the references. By default these are not refined.
            cls_branches (nn.ModuleList, optional): Class branches, for
                methods that use scores between the layers.
            **kwargs: Passed on to every layer.

        Returns:
            DecoderOutput: The outputs of all layers, with the references
            before each layer and after the last.
        """
        references, steps = [reference_points], []
        for layer_id, layer in enumerate(self.layers):
            places = _on_levels(reference_points, valid_ratios)
            query_pos = self.embed_position(layer_id, query, query_pos, places)
            results = layer(
                query,
                query_pos=query_pos,
                query_groups=query_groups,
                reference_points=places,
                image_references=reference_points,
                **kwargs,
            )
            query, auxiliary = results if self.num_auxiliary else (results, ())
            deltas, reference = self._refine(
                layer_id, query, reference_points, reg_branches
            )
            steps.append((query, query_groups, deltas, auxiliary))
            if layer_id + 1 < len(self.layers):
                query, query_pos, reference, query_groups = self.hand_over(
                    layer_id,
                    query,
                    query_pos,
                    reference,
                    query_groups=query_groups,
                    cls_branches=cls_branches,
                )
            reference_points = reference
            if reg_branches is not None:
                reference_points = reference.detach()
            twice = self.look_forward_twice
            references.append(reference if twice else reference_points)
        return _decoder_output(references, steps)

    def _refine(
        self,
        layer_id: int,
        query: Tensor,
        reference_points: Tensor,
        reg_branches: nn.ModuleList | None,
    ) -> tuple[Tensor | None, Tensor]:
        """Box deltas of the queries, and the refined references."""
        if reg_branches is None:
            return None, reference_points
        deltas = reg_branches[layer_id](query)
        eps = self.inverse_sigmoid_eps
        return deltas, refine_reference(deltas, reference_points, eps)

    def embed_position(
        self,
        layer_id: int,
        query: Tensor,
        query_pos: Tensor | None,
        reference_points: Tensor,
    ) -> Tensor | None:
        """Position of the queries in a layer, by default the same in all.

        Args:
            layer_id (int): Index of the layer.
            query (Tensor): Queries before it, has shape
                (bs, num_queries, dim).
            query_pos (Tensor, optional): Position in the layer before, has
                the same shape.
            reference_points (Tensor): Detached references before the layer,
                in [0, 1] of each padded level, has shape
                (bs, num_queries, num_levels, 2 or 4).

        Returns:
            Tensor | None: Position, has the shape of ``query``.
        """
        return query_pos

    def hand_over(
        self,
        layer_id: int,
        query: Tensor,
        query_pos: Tensor | None,
        reference: Tensor,
        *,
        query_groups: QueryGroups | None = None,
        cls_branches: nn.ModuleList | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, QueryGroups | None]:
        """Turn the outputs of a layer into the inputs of the next.

        A method may reorder the queries, change their contents or regroup
        them. By default nothing changes.

        Args:
            layer_id (int): Index of the layer that has run.
            query (Tensor): Queries after it, has shape
                (bs, num_queries, dim).
            query_pos (Tensor, optional): Their positions, has the same shape.
            reference (Tensor): Their refined references, with gradient, has
                shape (bs, num_queries, 2 or 4).
            query_groups (QueryGroups, optional): Groups in this layer.
            cls_branches (nn.ModuleList, optional): Class branches of the
                layers.

        Returns:
            tuple: ``query``, ``query_pos``, ``reference`` and
            ``query_groups`` of the next layer.
        """
        return query, query_pos, reference, query_groups


class ReferenceEncodingDecoder(BoxRefinementDecoder):
    """Decoder that embeds the references as positions in each layer.

    Source: `DAB-DETR <https://arxiv.org/abs/2201.12329>`_. A subclass has the
    MLP ``ref_point_head``.
    """

    ref_point_head: nn.Module

    def embed_position(
        self,
        layer_id: int,
        query: Tensor,
        query_pos: Tensor | None,
        reference_points: Tensor,
    ) -> Tensor:
        """Embed the boxes on the first level.

        Arguments and results are those of :class:`BoxRefinementDecoder`.
        """
        encoding = coordinate_to_encoding(
            reference_points[:, :, 0], num_feats=self.embed_dims // 2
        )
        return self.ref_point_head(like_weights(encoding, self.ref_point_head))


def _decoder_output(
    references: list[Tensor], steps: Sequence[tuple]
) -> DecoderOutput:
    """Join queries, groups, box deltas and auxiliary outputs of layers."""
    queries, groups, deltas, auxiliary = zip(*steps, strict=True)
    return DecoderOutput(
        torch.stack(queries),
        references,
        layer_groups=groups,
        box_deltas=() if deltas[0] is None else deltas,
        auxiliary=tuple(map(torch.stack, zip(*auxiliary, strict=True))),
    )


def _layer_class(name: str | None) -> type[nn.Module]:
    """Look up the class of the layers, by default the deformable one."""
    if name is None:
        return DeformableDecoderLayer
    layer_class = MODELS.get(name)
    if layer_class is None:
        raise UserError(
            f'model.decoder.layer_cfg.type={name!r} is not registered'
        )
    return layer_class


def _on_levels(reference_points: Tensor, valid_ratios: Tensor) -> Tensor:
    """Convert references from [0, 1] of the image to each padded level."""
    repeats = reference_points.shape[-1] // 2
    ratios = valid_ratios.repeat(1, 1, repeats)
    return reference_points[:, :, None] * ratios[:, None]
