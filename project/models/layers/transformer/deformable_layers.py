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
)
from mmdet.registry import MODELS
from mmengine.model import ModuleList
from torch import Tensor, nn

from project.utils.errors import UserError
from project.utils.settings import Eps, checked

from ...utils.box_ops import refine_reference
from ..recomputation import RecomputedEncoder, recompute_layers
from ..stage_outputs import DecoderOutput
from .deformable_attention import DeformableAttention, LevelShapes
from .layer_norms import layer_norms
from .query_groups import GroupedSelfAttention, QueryGroups


class DeformableEncoderLayer(DeformableDetrTransformerEncoderLayer):
    """mmdet's layer on :class:`DeformableAttention`."""

    def _init_layers(self) -> None:
        """Initialize self_attn, ffn, and norms."""
        self.self_attn = DeformableAttention(**self.self_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = layer_norms(self.norm_cfg, self.embed_dims, 2)


class DeformableEncoder(RecomputedEncoder, DeformableDetrTransformerEncoder):
    """mmdet's Deformable DETR encoder, told level sizes as integers.

    ``num_cp`` layers are recomputed in the backward pass, without fairscale.
    """

    def _init_layers(self) -> None:
        """Initialize encoder layers."""
        self.layers = ModuleList(
            DeformableEncoderLayer(**self.layer_cfg)
            for _ in range(self.num_layers)
        )
        self.embed_dims = self.layers[0].embed_dims
        recompute_layers(self.layers, max(self.num_cp, 0))

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
            valid_ratios (Tensor): Share (w, h) of each level that is image,
                has shape (bs, num_levels, 2).
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
    """mmdet's layer on grouped self-attention and integer level sizes."""

    num_auxiliary = 0
    """Auxiliary results in training. A layer that has some returns the
    queries and a tuple of these, which is empty in evaluation."""

    def _init_layers(self) -> None:
        """Initialize self_attn, cross-attn, ffn, and norms."""
        self.self_attn = GroupedSelfAttention(**self.self_attn_cfg)
        self.cross_attn = DeformableAttention(**self.cross_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = layer_norms(self.norm_cfg, self.embed_dims, 3)


class BoxRefinementDecoder(DeformableDetrTransformerDecoder):
    """Deformable decoder with iterative refinement of the references.

    ``layer_cfg`` may name the ``type`` of its layers, by default a
    :class:`DeformableDecoderLayer`, which says how a layer has auxiliary
    results.

    Args:
        look_forward_twice (bool): Whether the box of a layer also trains
            the box head of the layer before (DINO, section 3.5). Defaults
            to False.
        inverse_sigmoid_eps (float): Eps of the references' inverse sigmoid.
            Defaults to 1e-5.
        num_cp (int): How many layers are recomputed in the backward pass to
            save memory; less than 1 are none. Defaults to 0.
        *args, **kwargs: As in mmdet's ``DeformableDetrTransformerDecoder``;
            the results of all layers are returned in any case.
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
                By default :meth:`embed_position` makes them.
            reference_points (Tensor): First references in [0, 1] of the
                unpadded image, (cx, cy) or (cx, cy, w, h), has shape
                (bs, num_queries, 2 or 4).
            valid_ratios (Tensor): Share (w, h) of each level that is image,
                has shape (bs, num_levels, 2).
            query_groups (QueryGroups, optional): Groups of the queries. By
                default all see each other.
            reg_branches (nn.ModuleList, optional): Box heads that refine
                the references. By default they stay as they are.
            cls_branches (nn.ModuleList, optional): Class heads, for a
                method that looks at scores between the layers.
            **kwargs: Passed on to every layer.

        Returns:
            DecoderOutput: The results of all layers, with the references
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
        """What the box head makes of the queries, and the new references."""
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
        """Embed the position of the queries for a layer.

        A method may encode it anew from the references. By default it stays.

        Args:
            layer_id (int): The layer.
            query (Tensor): Queries before it, has shape
                (bs, num_queries, dim).
            query_pos (Tensor, optional): Position so far, likewise.
            reference_points (Tensor): References before the layer, without
                gradient from other layers, in fractions of each padded
                level, has shape (bs, num_queries, num_levels, 2 or 4).

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
        """Turn the results of a layer into the inputs of the next.

        A method may reorder the queries, change their contents or decide
        anew who sees whom. By default all stays as it is.

        Args:
            layer_id (int): The layer that the results come from.
            query (Tensor): Queries after it, has shape
                (bs, num_queries, dim).
            query_pos (Tensor, optional): Their positions, has the same shape.
            reference (Tensor): Their refined references, with gradient, has
                shape (bs, num_queries, 2 or 4).
            query_groups (QueryGroups, optional): Groups in this layer.
            cls_branches (nn.ModuleList, optional): Class heads of the
                layers.

        Returns:
            tuple: ``query``, ``query_pos``, ``reference`` and
            ``query_groups`` of the next layer.
        """
        return query, query_pos, reference, query_groups


def _decoder_output(
    references: list[Tensor], steps: Sequence[tuple]
) -> DecoderOutput:
    """Join queries, groups, box deltas and auxiliary results of layers."""
    queries, groups, deltas, auxiliary = zip(*steps, strict=True)
    return DecoderOutput(
        torch.stack(queries),
        references,
        layer_groups=groups,
        box_deltas=() if deltas[0] is None else deltas,
        auxiliary=tuple(map(torch.stack, zip(*auxiliary, strict=True))),
    )


def _layer_class(name: str | None) -> type[nn.Module]:
    """Look up the class of the layers; by default the deformable one."""
    if name is None:
        return DeformableDecoderLayer
    layer_class = MODELS.get(name)
    if layer_class is None:
        raise UserError(
            f'model.decoder.layer_cfg.type={name!r} is not registered'
        )
    return layer_class


def _on_levels(reference_points: Tensor, valid_ratios: Tensor) -> Tensor:
    """Express references of the image in fractions of each padded level."""
    repeats = reference_points.shape[-1] // 2
    ratios = valid_ratios.repeat(1, 1, repeats)
    return reference_points[:, :, None] * ratios[:, None]
