# Copyright (c) mmdetr authors. All rights reserved.
import copy
from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from torch import Tensor

from project.utils.errors import (
    UserError,
    check_number,
    check_takes,
    check_weights,
)

from ..layers.auxiliary_branch import AuxiliaryBranch
from ..layers.transformer.query_groups import QueryGroups
from ..losses.set_criterion import SetCriterion, classification_loss
from ..task_modules.set_prediction import (
    BatchHungarianAssigner,
    HungarianMatching,
    Predictions,
    PredictionSet,
    Scoring,
    SetTargets,
)
from ..utils.box_ops import refine_reference
from ..utils.own_weights import OwnWeightsMixin
from ..utils.precision import apply_in_full_precision
from .detecting import DetectingMixin


class SetPredictionHead(OwnWeightsMixin, DetectingMixin, DeformableDETRHead):
    """Deformable DETR's head on the batched set-prediction core.

    Branches, loss configs and loss names are mmdet's. What a method trains
    on is told by :meth:`prediction_sets`.

    Args:
        inverse_sigmoid_eps (float): How close to 0 and 1 references may
            come before their log-odds are taken. Set by the detector.
            Defaults to 1e-5.
        normalizer (str): What the losses are divided by, see
            :class:`SetCriterion`. Defaults to ``'targets'``.
        enc_loss_cls (dict, optional): Config of the first stage's
            classification loss, where it differs from ``loss_cls``.
        *args, **kwargs: As in mmdet's ``DeformableDETRHead``.
    """

    first_stage_is_class_agnostic = True
    """Whether the first stage only tells objects from background."""
    test_settings: tuple[str, ...] = ('max_per_img', 'clip_bboxes')
    """The keys of ``test_cfg`` that have an effect."""

    def __init__(
        self,
        *args,
        inverse_sigmoid_eps: float = 1e-5,
        normalizer: str = 'targets',
        enc_loss_cls: dict | None = None,
        **kwargs,
    ) -> None:
        check_number(
            'model.inverse_sigmoid_eps',
            inverse_sigmoid_eps,
            above=0,
            below=0.5,
        )
        self.inverse_sigmoid_eps = inverse_sigmoid_eps
        super().__init__(*args, **kwargs)
        for name in ('loss_cls', 'loss_bbox', 'loss_iou'):
            check_weights(f'model.bbox_head.{name}', getattr(self, name))
        self.enc_loss_cls = None
        if enc_loss_cls is not None:
            self.enc_loss_cls = MODELS.build(enc_loss_cls)
            check_weights('model.bbox_head.enc_loss_cls', self.enc_loss_cls)
            classification_loss(self.enc_loss_cls)
        if self.train_cfg:
            _check_assigner(self.assigner)
            self.criterion = SetCriterion(
                self.loss_cls,
                self.loss_bbox,
                self.loss_iou,
                sync_cls_avg_factor=self.sync_cls_avg_factor,
                normalizer=normalizer,
            )

    def auxiliary_head(self, num_layers: int) -> 'SetPredictionHead':
        """Make a head for an auxiliary result of the decoder.

        Args:
            num_layers (int): Layers of the decoder.

        Returns:
            SetPredictionHead: Alike, with branches for the decoder's layers
            alone and other random weights. As in every head of mmdet's, all
            branches start as copies of one.
        """
        head = copy.deepcopy(self)
        for module in head.modules():
            if hasattr(module, 'reset_parameters'):
                module.reset_parameters()
        for kind in ('cls_branches', 'reg_branches'):
            branches = getattr(head, kind)[:num_layers]
            for branch in branches:
                branch.load_state_dict(branches[0].state_dict())
            setattr(head, kind, branches)
        return head

    def forward(
        self, hidden_states: Tensor, references: list[Tensor], **kwargs
    ) -> tuple[Tensor, Tensor]:
        """Predict classes and boxes from the queries of every layer.

        Args:
            hidden_states (Tensor): Queries after each layer, has shape
                (num_decoder_layers, bs, num_queries, dim).
            references (list[Tensor]): References before each layer in
                [0, 1], (cx, cy) or (cx, cy, w, h); further ones are unused.
            **kwargs: What only the loss needs.

        Returns:
            tuple[Tensor, Tensor]:

            - cls_scores (Tensor): Logits, has shape
              (num_decoder_layers, bs, num_queries, num_classes).
            - bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
              (num_decoder_layers, bs, num_queries, 4).
        """
        layers = [
            self.forward_layer(layer_id, hidden_state, reference)
            for layer_id, (hidden_state, reference) in enumerate(
                zip(hidden_states, references, strict=False)
            )
        ]
        cls_scores, bbox_preds = zip(*layers, strict=True)
        return torch.stack(cls_scores), torch.stack(bbox_preds)

    def forward_layer(
        self, layer_id: int, hidden_state: Tensor, reference: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict from the queries of one layer.

        Args:
            layer_id (int): Which layer's branches to use.
            hidden_state (Tensor): Has shape (bs, num_queries, dim).
            reference (Tensor): Reference before the layer, has shape
                (bs, num_queries, 2 or 4).

        Returns:
            tuple[Tensor, Tensor]: Logits, has shape
            (bs, num_queries, num_classes), and boxes (cx, cy, w, h) in
            [0, 1], has shape (bs, num_queries, 4).
        """
        deltas = self.reg_branches[layer_id](hidden_state)
        boxes = refine_reference(deltas, reference, self.inverse_sigmoid_eps)
        logits = apply_in_full_precision(
            self.cls_branches[layer_id], hidden_state
        )
        return logits, boxes

    def loss(
        self,
        hidden_states: Tensor,
        references: list[Tensor],
        batch_data_samples: SampleList,
        auxiliary: Sequence[AuxiliaryBranch] = (),
        enc_outputs_class: Tensor | None = None,
        enc_outputs_coord: Tensor | None = None,
        **kwargs,
    ) -> dict[str, Tensor]:
        """Predict, and compute the losses by :meth:`loss_by_feat`.

        Args:
            hidden_states (Tensor): As in :meth:`forward`.
            references (list[Tensor]): As in :meth:`forward`.
            batch_data_samples (list[:obj:`DetDataSample`]): Ground truth.
            auxiliary (Sequence[AuxiliaryBranch]): Auxiliary results of the
                decoder, trained as the main one by heads of their own, which
                refine the same references. The first stage has no part in
                them. Defaults to none.
            enc_outputs_class (Tensor, optional): Logits of the first stage,
                has shape (bs, num_feat_points, num_classes).
            enc_outputs_coord (Tensor, optional): Boxes (cx, cy, w, h) in
                [0, 1] of the first stage, has shape (bs, num_feat_points, 4).
            **kwargs: What a method's detector gives besides.

        Returns:
            dict[str, Tensor]: Weighted losses.

        Raises:
            UserError: If a subclass's ``loss_by_feat`` does not take what
                this detector gives.
        """
        if auxiliary:
            kwargs['auxiliary'] = [
                (
                    branch,
                    *branch.head(branch.hidden_states, references, **kwargs),
                )
                for branch in auxiliary
            ]
        inputs = (
            *self(hidden_states, references, **kwargs),
            enc_outputs_class,
            enc_outputs_coord,
            [sample.gt_instances for sample in batch_data_samples],
            [sample.metainfo for sample in batch_data_samples],
        )
        check_takes(self.loss_by_feat, inputs, kwargs)
        return self.loss_by_feat(*inputs, **kwargs)

    def loss_by_feat(
        self,
        all_layers_cls_scores: Tensor,
        all_layers_bbox_preds: Tensor,
        enc_cls_scores: Tensor | None,
        enc_bbox_preds: Tensor | None,
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: InstanceList | None = None,
        *,
        auxiliary: Sequence[tuple[AuxiliaryBranch, Tensor, Tensor]] = (),
        **kwargs,
    ) -> dict[str, Tensor]:
        """Match and compute the losses: where a subclass adds its own.

        The positional arguments are those of mmdet's ``DeformableDETRHead``.

        Args:
            all_layers_cls_scores (Tensor): Logits of every layer, has shape
                (num_decoder_layers, bs, num_queries, num_classes).
            all_layers_bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1] of
                every layer, has shape
                (num_decoder_layers, bs, num_queries, 4).
            enc_cls_scores (Tensor, optional): Logits of the first stage, has
                shape (bs, num_feat_points, num_classes).
            enc_bbox_preds (Tensor, optional): Its boxes (cx, cy, w, h) in
                [0, 1], has shape (bs, num_feat_points, 4).
            batch_gt_instances (list[:obj:`InstanceData`]): ``bboxes`` in
                pixels (x1, y1, x2, y2) and ``labels`` of each image.
            batch_img_metas (list[dict]): ``img_shape`` of each image.
            batch_gt_instances_ignore (list[:obj:`InstanceData`], optional):
                Unused.
            auxiliary (Sequence[tuple]): Auxiliary results, each with the
                logits and boxes that its head predicts.
            **kwargs: What a method's detector gives besides, such as
                ``query_groups`` (H-DETR), ``denoising`` (DN-DETR, DINO) and
                ``proposals`` (DETA); passed on to :meth:`prediction_sets`.

        Returns:
            dict[str, Tensor]: Weighted losses.
        """
        of_decoder = {
            name: value
            for name, value in kwargs.items()
            if 'enc_outputs' not in name
        }
        if enc_cls_scores is not None:
            kwargs['enc_outputs_class'] = enc_cls_scores
            kwargs['enc_outputs_coord'] = enc_bbox_preds
        sets = self.prediction_sets(
            all_layers_cls_scores, all_layers_bbox_preds, **kwargs
        )
        for branch, *outputs in auxiliary:
            sets += [
                each.of_branch(branch.prefix, branch.loss_weight)
                for each in self.prediction_sets(*outputs, **of_decoder)
            ]
        targets = SetTargets.from_instances(
            batch_gt_instances,
            batch_img_metas,
            like=all_layers_bbox_preds,
            num_classes=self.num_classes,
        )
        return self.criterion(sets, targets)

    def prediction_sets(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        query_groups: QueryGroups | None = None,
        enc_outputs_class: Tensor | None = None,
        enc_outputs_coord: Tensor | None = None,
    ) -> list[PredictionSet]:
        """Tell which predictions are trained, and how.

        By default each decoder layer is matched one-to-one, and so is the
        first stage, to objects of whatever class.

        Args:
            cls_scores (Tensor): As :meth:`forward` returns.
            bbox_preds (Tensor): As :meth:`forward` returns.
            query_groups (QueryGroups, optional): Groups of the queries.
            enc_outputs_class (Tensor, optional): Logits of the first stage,
                has shape (bs, num_feat_points, num_classes).
            enc_outputs_coord (Tensor, optional): Boxes (cx, cy, w, h) in
                [0, 1] of the first stage, has shape (bs, num_feat_points, 4).

        Returns:
            list[PredictionSet]: The sets to match and to take losses of.
        """
        decoder = Predictions(cls_scores, bbox_preds)
        sets = [self.decoder_set(decoder, query_groups)]
        if enc_outputs_class is not None:
            first_stage = self.first_stage_predictions(
                enc_outputs_class, enc_outputs_coord
            )
            sets.append(self.first_stage_set(first_stage))
        return sets

    def first_stage_predictions(
        self, cls_scores: Tensor, bbox_preds: Tensor
    ) -> Predictions:
        """Name the predictions of the first stage.

        Args:
            cls_scores (Tensor): Logits, has shape
                (bs, num_feat_points, num_classes).
            bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
                (bs, num_feat_points, 4).

        Returns:
            Predictions: Those of one layer.
        """
        return Predictions(
            cls_scores[None],
            bbox_preds[None],
            prefix='enc_',
            class_agnostic=self.first_stage_is_class_agnostic,
        )

    def decoder_set(
        self, predictions: Predictions, query_groups: QueryGroups | None
    ) -> PredictionSet:
        """Match each decoder layer one-to-one.

        Args:
            predictions (Predictions): Those of the matched queries.
            query_groups (QueryGroups, optional): Groups of the queries.

        Returns:
            PredictionSet: How they learn.
        """
        return PredictionSet(predictions, HungarianMatching(self.assigner))

    def first_stage_set(self, predictions: Predictions) -> PredictionSet:
        """Match the first stage one-to-one.

        Args:
            predictions (Predictions): Its proposals.

        Returns:
            PredictionSet: How they learn.
        """
        return PredictionSet(
            predictions,
            HungarianMatching(self.assigner),
            Scoring(loss_cls=self.enc_loss_cls),
        )


def _check_assigner(assigner: object) -> None:
    """Refuse an assigner that matches one layer at a time."""
    if not isinstance(assigner, BatchHungarianAssigner):
        raise UserError(
            f'train_cfg.assigner.type={type(assigner).__name__!r} matches '
            "one layer at a time; use 'BatchHungarianAssigner', which "
            'takes the same match_costs'
        )
