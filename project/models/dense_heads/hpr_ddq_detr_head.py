# Copyright (c) mmdetr authors. All rights reserved.
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from mmdet.models.losses import GIoULoss
from mmdet.registry import MODELS
from mmengine.model import bias_init_with_prob, constant_init
from torch import Tensor, nn

from ..layers.stage_outputs import DecoderOutput, DenseFirstStageOutput
from ..layers.transformer.ddq_decoder import DistinctQueryGroups
from ..layers.transformer.query_groups import QueryGroups
from ..losses.dense_quality_loss import DenseQualityLoss
from ..task_modules.mixed_hungarian_assigner import MixedHungarianAssigner
from ..task_modules.set_prediction import (
    HungarianMatching,
    Predictions,
    PredictionSet,
    Scoring,
)
from ..utils.box_ops import refine_reference
from ..utils.precision import apply_in_full_precision
from .hpr_detr_head import HPRDETRHead


@dataclass(frozen=True)
class DensePredictions(Predictions):
    """Predictions of dense queries, whose losses are named as in mmdet."""

    def loss_name(self, layer: int, term: str) -> str | None:
        """mmdet's name: no L1 loss, and the IoU loss is "loss_bbox"."""
        if term == 'loss_bbox':
            return None
        term = {'loss_iou': 'loss_bbox'}.get(term, term)
        stage = 'aux_enc' if self.prefix.startswith('enc_') else f'{layer}_aux'
        return f'{self.branch}{stage}_aux_{term}'


@MODELS.register_module()
class HPRDDQDETRHead(HPRDETRHead):
    """Head of `DDQ <https://arxiv.org/abs/2303.12776>`_, for HPR's refiners.

    Losses and their names are those of mmdet's ``DDQDETRHead``. Distinct
    queries are trained as in DINO, in each layer those that are still
    distinct. Dense queries, only in training, have branches of their own;
    each target is matched to ``aux_num_pos`` of them, and they are trained
    with :class:`DenseQualityLoss` image by image.

    Args:
        *args: As in :class:`HPRDETRHead`.
        aux_num_pos (int): Dense queries matched to each target. Defaults
            to 4.
        **kwargs: As in :class:`HPRDETRHead`.
    """

    def __init__(
        self, *args: Any, aux_num_pos: int = 4, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        costs = [
            dict(type='ProbabilityFocalCost', weight=2.0),
            dict(type='BBoxL1Cost', weight=5.0),
            dict(type='IoUCost', iou_mode='giou', weight=2.0),
        ]
        self.dense_pairing = HungarianMatching(
            MixedHungarianAssigner(costs), num_copies=aux_num_pos
        )
        self.dense_scoring = Scoring(
            loss_cls=DenseQualityLoss(),
            loss_iou=GIoULoss(loss_weight=2.0),
            normalizer='weights',
            per_image=True,
            skip_empty=True,
        )

    def _init_layers(self) -> None:
        """Initialize the branches and copies of them for dense queries.

        ``cls_branches`` and ``reg_branches`` get one more for the dense
        queries of the first stage.
        """
        super()._init_layers()
        num_layers = self.num_pred_layer - 1
        for kind in ('cls_branches', 'reg_branches'):
            branches = getattr(self, kind)
            branches.append(copy.deepcopy(branches[-1]))
            copies = (copy.deepcopy(branches[-1]) for _ in range(num_layers))
            setattr(self, f'aux_{kind}', nn.ModuleList(copies))

    def init_weights(self) -> None:
        """Initialize as mmdet: prior probability 0.01, zero box deltas."""
        bias = bias_init_with_prob(0.01)
        for branch in (*self.cls_branches, *self.aux_cls_branches):
            nn.init.constant_(branch.bias, bias)
        for branch in (*self.reg_branches, *self.aux_reg_branches):
            constant_init(branch[-1], 0, bias=0)

    def auxiliary_head(self, num_layers: int) -> 'HPRDDQDETRHead':
        """Make a head for an auxiliary output of the decoder.

        Args:
            num_layers (int): Number of decoder layers.

        Returns:
            HPRDDQDETRHead: A copy, with equal weights, without the branches
            of the first stage.
        """
        head = copy.deepcopy(self)
        head.cls_branches = head.cls_branches[:num_layers]
        head.reg_branches = head.reg_branches[:num_layers]
        return head

    def refining_branches(
        self, query_groups: DistinctQueryGroups
    ) -> list[Callable[[Tensor], Tensor]]:
        """Box branches of all queries, one for each layer.

        Args:
            query_groups (DistinctQueryGroups): Groups of the queries.

        Returns:
            list[Callable]: Each maps queries of shape
            (bs, num_queries, dim) to deltas of shape (bs, num_queries, 4).
        """
        if 'dense' not in query_groups:
            return list(self.reg_branches)
        start = query_groups['dense'].start
        return [
            partial(_predict_boxes, start, branch, dense_branch)
            for branch, dense_branch in zip(
                self.reg_branches, self.aux_reg_branches, strict=False
            )
        ]

    def forward(
        self, decoder_output: DecoderOutput, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Predict from the queries of every layer; dense ones come last.

        Arguments and results are those of :class:`SetPredictionHead`.
        """
        groups = decoder_output.query_groups
        if groups is None or 'dense' not in groups:
            return super().forward(decoder_output)
        start = groups['dense'].start
        hidden_states = decoder_output.hidden_states
        references = decoder_output.references
        cls_scores, boxes = super().forward(
            DecoderOutput(
                hidden_states[:, :, :start], [r[:, :start] for r in references]
            )
        )
        dense = [
            (
                apply_in_full_precision(cls_branch, queries),
                refine_reference(
                    reg_branch(queries),
                    reference[:, start:],
                    self.inverse_sigmoid_eps,
                ),
            )
            for cls_branch, reg_branch, queries, reference in zip(
                self.aux_cls_branches,
                self.aux_reg_branches,
                hidden_states[:, :, start:],
                references,
                strict=False,
            )
        ]
        dense_scores, dense_boxes = map(torch.stack, zip(*dense, strict=True))
        return (
            torch.cat([cls_scores, dense_scores], 2),
            torch.cat([boxes, dense_boxes], 2),
        )

    def loss_by_feat(
        self, *args: Any, auxiliary: Sequence[tuple] = (), **kwargs: Any
    ) -> dict[str, Any]:
        """Match and compute the losses.

        Args:
            *args, **kwargs: As in :class:`SetPredictionHead`.
            auxiliary (Sequence[tuple]): As in :class:`SetPredictionHead`.

        Returns:
            dict[str, Tensor | list[Tensor]]: Weighted losses. Dense queries
            have one for each image: in a list, or for auxiliary heads as
            separate entries, as in the authors' code.
        """
        prefixes = tuple(branch.prefix for branch, *_ in auxiliary)
        losses: dict[str, Tensor | list[Tensor]] = {}
        for name, value in (
            super().loss_by_feat(*args, auxiliary=auxiliary, **kwargs).items()
        ):
            if isinstance(value, list) and name.startswith(prefixes):
                losses.update(
                    {f'{name}_{image}': v for image, v in enumerate(value)}
                )
            else:
                losses[name] = value
        return losses

    def prediction_sets(  # type: ignore[override]  # its detector's outputs
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        decoder_output: DecoderOutput,
        **kwargs: Any,
    ) -> list[PredictionSet]:
        """Sets of denoising, distinct and dense queries, in this order.

        Arguments and results are those of :class:`DenoisingHead`.
        """
        groups = _distinct(decoder_output.query_groups)
        place, dense = groups['matching'], groups['dense']
        sets = super().prediction_sets(
            cls_scores[:, :, : place.stop],
            bbox_preds[:, :, : place.stop],
            decoder_output,
            **kwargs,
        )
        dense_set = self.dense_set(
            cls_scores[:, :, dense], bbox_preds[:, :, dense], 'dense_'
        )
        return [*sets, dense_set]

    def decoder_set(  # type: ignore[override]  # its detector's outputs
        self, predictions: Predictions, decoder_output: DecoderOutput
    ) -> PredictionSet:
        """Match, in each layer, the distinct queries one-to-one."""
        alive = [
            of_layer
            for groups in decoder_output.layer_groups[1:]
            if (of_layer := _distinct(groups).alive) is not None
        ]
        if alive:
            valid = torch.stack([torch.ones_like(alive[0]), *alive])
            predictions = replace(predictions, valid=valid)
        return super().decoder_set(predictions, decoder_output)

    def first_stage_sets(  # type: ignore[override]  # its detector's outputs
        self, predictions: Predictions, first_stage: DenseFirstStageOutput
    ) -> list[PredictionSet]:
        """Train the first stage at its distinct and its dense queries."""
        dense = first_stage.dense
        assert dense is not None  # as always in training
        assert dense.cls_scores is not None
        assert dense.bbox_preds is not None
        dense_set = self.dense_set(
            dense.cls_scores[None], dense.bbox_preds[None], 'enc_dense_'
        )
        return [*super().first_stage_sets(predictions, first_stage), dense_set]

    def dense_set(
        self, cls_scores: Tensor, bbox_preds: Tensor, prefix: str
    ) -> PredictionSet:
        """Match several dense queries to each target.

        Args:
            cls_scores (Tensor): Logits, has shape
                (num_layers, bs, num_dense, num_classes).
            bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
                (num_layers, bs, num_dense, 4).
            prefix (str): ``'dense_'``, or ``'enc_dense_'`` in the first
                stage.

        Returns:
            PredictionSet: The set.
        """
        return PredictionSet(
            DensePredictions(cls_scores, bbox_preds, prefix),
            self.dense_pairing,
            self.dense_scoring,
        )

    def detectable_queries(
        self, decoder_output: DecoderOutput
    ) -> Tensor | None:
        """Mask of the distinct queries of the last layer.

        None, for all, in a decoder of one layer.
        """
        return _distinct(decoder_output.layer_groups[-1]).alive


def _distinct(groups: QueryGroups | None) -> DistinctQueryGroups:
    """Check that groups are those of DDQ's decoder."""
    if not isinstance(groups, DistinctQueryGroups):
        raise TypeError(f'{groups} are no groups of distinct queries')
    return groups


def _predict_boxes(
    start: int, branch: nn.Module, dense_branch: nn.Module, query: Tensor
) -> Tensor:
    """Predict box deltas; queries from ``start`` on are dense."""
    return torch.cat(
        [branch(query[:, :start]), dense_branch(query[:, start:])], 1
    )
