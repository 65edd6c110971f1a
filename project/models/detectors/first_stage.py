# Copyright (c) mmdetr authors. All rights reserved.
import logging
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from mmdet.models.detectors import DeformableDETR
from mmdet.registry import TASK_UTILS
from mmengine.logging import print_log
from torch import Tensor, nn

from project.utils.errors import UserError

from ..layers.stage_outputs import FirstStageOutput
from ..layers.transformer.deformable_attention import LevelShapes
from ..layers.transformer.feature_levels import level_centres
from ..utils.gather import gather_points
from ..utils.precision import (
    apply_in_full_precision,
    full_precision,
    like_weights,
    widened,
)


@runtime_checkable
class ProposalSelector(Protocol):
    """Selects proposals, as ``LevelNMSSelector`` does."""

    def select(
        self,
        scores: Tensor,
        boxes_of: Callable[[Tensor], Tensor],
        level_shapes: LevelShapes,
        num_wanted: int,
    ) -> Tensor:
        """Return indices, best first, of shape (bs, num_wanted)."""


# Not made where it is used: torch.compile would have to trace that.
_linear = full_precision(F.linear)


class FirstStageMixin(DeformableDETR):
    """First stage of a two-stage Deformable DETR: proposals and queries."""

    proposal_selector: ProposalSelector | None = None
    _has_warned_of_small_input = False

    def _init_proposal_selector(self, config: dict | None) -> None:
        """Build the selector of proposals; by default there is none."""
        if config is None:
            return
        self.proposal_selector = TASK_UTILS.build(config)
        if not isinstance(self.proposal_selector, ProposalSelector):
            raise UserError(
                f'model.proposal_selector.type={config["type"]!r} selects no '
                "proposals; use 'LevelNMSSelector', or None for the best"
            )

    def _init_first_stage(self) -> None:
        """Initialize the projections of memory and proposals."""
        dims = self.embed_dims
        self.memory_trans_fc = nn.Linear(dims, dims)
        self.memory_trans_norm = nn.LayerNorm(dims)
        self.pos_trans_fc = nn.Linear(dims * 2, dims * 2)
        self.pos_trans_norm = nn.LayerNorm(dims * 2)

    def gen_encoder_output_proposals(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        spatial_shapes: LevelShapes,
    ) -> tuple[Tensor, Tensor]:
        """Project the memory and generate an anchor at each of its points.

        Args:
            memory (Tensor): As in :meth:`propose`.
            memory_mask (Tensor, optional): As in :meth:`propose`.
            spatial_shapes (Sequence[tuple[int, int]]): (h, w) of each level.

        Returns:
            tuple[Tensor, Tensor]: The projected memory, has the shape of
            ``memory``, and the logits of the anchors (cx, cy, w, h),
            infinite at invalid points, has shape (bs, num_feat_points, 4).
        """
        if memory_mask is None:
            memory_mask = memory.new_zeros(memory.shape[:2], dtype=torch.bool)
        centres = level_centres(spatial_shapes, memory.device)
        masks = memory_mask.split([h * w for h, w in spatial_shapes], dim=1)
        levels = enumerate(zip(centres, masks, spatial_shapes, strict=True))
        anchors = torch.cat(
            [
                _anchors(points, mask.unflatten(1, shape), 0.05 * 2.0**level)
                for level, (points, mask, shape) in levels
            ],
            1,
        )
        is_valid = ((anchors > 0.01) & (anchors < 0.99)).all(-1, keepdim=True)
        is_valid = is_valid & ~memory_mask[..., None]
        anchors = torch.log(anchors / (1 - anchors))
        memory = memory.masked_fill(~is_valid, 0.0)
        memory = self.memory_trans_norm(self.memory_trans_fc(memory))
        return memory, anchors.masked_fill(~is_valid, torch.inf)

    def propose(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        level_shapes: LevelShapes,
    ) -> FirstStageOutput:
        """First stage: predict proposals and select those of the queries.

        Objectness is channel 0 of the last class head. In evaluation only
        this channel, and only the boxes of candidates, are computed.

        Args:
            memory (Tensor): Has shape (bs, num_feat_points, dim).
            memory_mask (Tensor, optional): True for padding, has shape
                (bs, num_feat_points).
            level_shapes (Sequence[tuple[int, int]]): (h, w) of each level.

        Returns:
            FirstStageOutput: The selected proposals, and in training the
            predictions at all points.
        """
        memory, anchors = self.gen_encoder_output_proposals(
            memory, memory_mask, level_shapes
        )
        cls_head = self.bbox_head.cls_branches[self.decoder.num_layers]
        reg_head = self.bbox_head.reg_branches[self.decoder.num_layers]
        predictions = {}
        if self.training:
            logits = apply_in_full_precision(cls_head, memory)
            boxes = reg_head(memory) + anchors
            scores = logits[..., 0]
            predictions = dict(cls_scores=logits, bbox_preds=boxes.sigmoid())
        else:
            weight, bias = cls_head.weight[:1], cls_head.bias[:1]
            scores = _linear(memory, weight, bias)[..., 0]

        def boxes_of(points: Tensor) -> Tensor:
            if self.training:
                return gather_points(boxes.detach(), points)
            boxes_there = reg_head(gather_points(memory, points))
            return boxes_there + gather_points(anchors, points)

        chosen = self.choose_proposals(scores, boxes_of, level_shapes)
        features = gather_points(memory.detach(), chosen)
        return self.first_stage_output(
            boxes_of(chosen), features, anchors, **predictions
        )

    def first_stage_output(
        self,
        references_unact: Tensor,
        features: Tensor,
        anchors_unact: Tensor,
        **predictions: Tensor,
    ) -> FirstStageOutput:
        """Build the output of the first stage; a method may add fields.

        Args:
            references_unact (Tensor): As in :class:`FirstStageOutput`.
            features (Tensor): As in :class:`FirstStageOutput`.
            anchors_unact (Tensor): Logits of the anchors, infinite at
                invalid points, has shape (bs, num_feat_points, 4).
            **predictions (Tensor): In training, the other fields of
                :class:`FirstStageOutput`.
        """
        return FirstStageOutput(references_unact, features, **predictions)

    def choose_proposals(
        self,
        scores: Tensor,
        boxes_of: Callable[[Tensor], Tensor],
        level_shapes: LevelShapes,
    ) -> Tensor:
        """Select as many points as there are queries, best first.

        An image with fewer points than queries uses all its points.

        Args:
            scores (Tensor): Objectness, has shape (bs, num_feat_points).
            boxes_of (Callable): Maps point indices of shape (bs, n) to the
                logits of their boxes, without gradient, shape (bs, n, 4).
            level_shapes (Sequence[tuple[int, int]]): (h, w) of each level.

        Returns:
            Tensor: Indices, has shape (bs, num_queries).
        """
        wanted = self.num_total_queries if self.training else self.num_queries
        available = scores.shape[1]
        if available < wanted and not self._has_warned_of_small_input:
            self._has_warned_of_small_input = True
            print_log(
                f'The input gives only {available} proposals for {wanted} '
                'queries; all are used. Larger images give more.',
                logger='current',
                level=logging.WARNING,
            )
        wanted = min(wanted, available)
        if self.proposal_selector is None:
            return widened(scores).topk(wanted, dim=1).indices
        return self.proposal_selector.select(
            scores, boxes_of, level_shapes, wanted
        )

    def embed_proposals(
        self, references_unact: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Content and position of the queries of the selected proposals.

        Args:
            references_unact (Tensor): Logits of boxes (cx, cy, w, h), has
                shape (bs, num_queries, 4).
            features (Tensor): Projected memory at the proposals, unused by
                default, has shape (bs, num_queries, dim).

        Returns:
            tuple[Tensor, Tensor | None]: ``query`` and ``query_pos``, each
            has shape (bs, num_queries, dim); ``query_pos`` is None if the
            decoder embeds the references itself.
        """
        embedding = self.get_proposal_pos_embed(
            references_unact, num_pos_feats=self.embed_dims // 2
        )
        embedding = like_weights(embedding, self.pos_trans_fc)
        embedding = self.pos_trans_norm(self.pos_trans_fc(embedding))
        query_pos, query = embedding.chunk(2, dim=-1)
        return query, query_pos


def _anchors(points: Tensor, mask: Tensor, size: float) -> Tensor:
    """Square anchors at the points of a level, relative to the image.

    Args:
        points (Tensor): Centres in points, has shape (h * w, 2).
        mask (Tensor): True for padding, has shape (bs, h, w).
        size (float): Width and height in [0, 1].

    Returns:
        Tensor: (cx, cy, w, h) in [0, 1], has shape (bs, h * w, 4).
    """
    valid = torch.stack([(~mask[:, 0]).sum(1), (~mask[:, :, 0]).sum(1)], -1)
    centres = points / valid[:, None]
    return torch.cat([centres, torch.full_like(centres, size)], -1)
