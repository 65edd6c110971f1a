# Copyright (c) mmdetr authors. All rights reserved.
import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from torch import Tensor, nn

from project.utils.errors import UserError, check_takes
from project.utils.settings import Eps, check_weight, checked

from ..layers.stage_outputs import (
    AuxiliaryBranch,
    DecoderOutput,
    FirstStageOutput,
)
from ..losses.set_criterion import (
    Normalizer,
    SetCriterion,
    classification_loss,
)
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
    """Deformable DETR's head, with matching and losses in one batch.

    Branches, loss configs and loss names are mmdet's. A method defines what
    it trains on in :meth:`prediction_sets`.

    Args:
        inverse_sigmoid_eps (float): Eps of the references' inverse sigmoid,
            set by the detector. Defaults to 1e-5.
        normalizer (str): Divisor of the losses, see :class:`SetCriterion`.
            Defaults to ``'targets'``.
        enc_loss_cls (dict, optional): Config of the first stage's
            classification loss. Defaults to ``loss_cls``.
        *args, **kwargs: As in mmdet's ``DeformableDETRHead``.
    """

    first_stage_is_class_agnostic = True
    """Whether the first stage predicts objectness instead of classes."""
    trains_on_predictions_alone = False
    """Whether :meth:`loss_by_feat` gets only predictions and ground truth,
    as in mmdet, without the outputs of decoder and first stage."""

    @checked('model.bbox_head')
    def __init__(
        self,
        *args: Any,
        inverse_sigmoid_eps: Eps = 1e-5,
        normalizer: Normalizer = 'targets',
        enc_loss_cls: dict | None = None,
        **kwargs: Any,
    ) -> None:
        self.inverse_sigmoid_eps = inverse_sigmoid_eps
        super().__init__(*args, **kwargs)
        self.detection_settings()  # raises for invalid ones
        for name in ('loss_cls', 'loss_bbox', 'loss_iou'):
            check_weight(f'model.bbox_head.{name}', getattr(self, name))
        self.enc_loss_cls = None
        if enc_loss_cls is not None:
            self.enc_loss_cls = MODELS.build(enc_loss_cls)
            check_weight('model.bbox_head.enc_loss_cls', self.enc_loss_cls)
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
        """Make a head for an auxiliary output of the decoder.

        Args:
            num_layers (int): Number of decoder layers.

        Returns:
            SetPredictionHead: Of the same architecture, with branches for
            the decoder layers only and newly drawn weights. As in mmdet's
            heads, all branches start as copies of one.
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
        self, decoder_output: DecoderOutput, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Predict classes and boxes from the queries of every layer.

        Args:
            decoder_output (DecoderOutput): Queries and references.
            **kwargs: Inputs of the loss, unused.

        Returns:
            tuple[Tensor, Tensor]:

            - cls_scores (Tensor): Logits, has shape
              (num_decoder_layers, bs, num_queries, num_classes).
            - bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
              (num_decoder_layers, bs, num_queries, 4).
        """
        layers = [
            self.forward_layer(layer_id, *inputs)
            for layer_id, inputs in enumerate(decoder_output.layers())
        ]
        cls_scores, bbox_preds = zip(*layers, strict=True)
        return torch.stack(cls_scores), torch.stack(bbox_preds)

    def forward_layer(
        self,
        layer_id: int,
        hidden_state: Tensor,
        reference: Tensor,
        deltas: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict from the queries of one layer.

        Args:
            layer_id (int): Index of the layer.
            hidden_state (Tensor): Has shape (bs, num_queries, dim).
            reference (Tensor): Reference before the layer, has shape
                (bs, num_queries, 2 or 4).
            deltas (Tensor, optional): Output of the box branch if the
                decoder has computed it, has shape (bs, num_queries, 4).

        Returns:
            tuple[Tensor, Tensor]: Logits, has shape
            (bs, num_queries, num_classes), and boxes (cx, cy, w, h) in
            [0, 1], has shape (bs, num_queries, 4).
        """
        cls_branch, reg_branch = self.branches(layer_id)
        if deltas is None:
            deltas = reg_branch(hidden_state)
        boxes = refine_reference(deltas, reference, self.inverse_sigmoid_eps)
        return apply_in_full_precision(cls_branch, hidden_state), boxes

    def branches(self, layer_id: int) -> tuple[nn.Module, nn.Module]:
        """Class and box branch of a layer.

        Args:
            layer_id (int): Index of the layer.
        """
        return self.cls_branches[layer_id], self.reg_branches[layer_id]

    def loss(
        self,
        decoder_output: DecoderOutput,
        batch_data_samples: SampleList,
        first_stage: FirstStageOutput | None = None,
        auxiliary: Sequence[AuxiliaryBranch] = (),
        **kwargs: Any,
    ) -> dict[str, Tensor | list[Tensor]]:
        """Predict, and compute the losses by :meth:`loss_by_feat`.

        Args:
            decoder_output (DecoderOutput): Output of the decoder.
            batch_data_samples (list[:obj:`DetDataSample`]): Ground truth.
            first_stage (FirstStageOutput, optional): Output of the first
                stage, if there is one.
            auxiliary (Sequence[AuxiliaryBranch]): Auxiliary outputs of the
                decoder. Each is trained like the main one, with its own head
                on the same references. Defaults to none.
            **kwargs: Further outputs of a method's detector.

        Returns:
            dict[str, Tensor | list[Tensor]]: Weighted losses.

        Raises:
            UserError: If a subclass's ``loss_by_feat`` does not accept the
                outputs of this detector.
        """
        enc_outputs: tuple[Tensor | None, Tensor | None] = (None, None)
        if first_stage is not None:
            enc_outputs = first_stage.cls_scores, first_stage.bbox_preds
        inputs = (
            *self(decoder_output),
            *enc_outputs,
            [sample.gt_instances for sample in batch_data_samples],
            [sample.metainfo for sample in batch_data_samples],
        )
        if not self.trains_on_predictions_alone:
            kwargs.update(
                decoder_output=decoder_output, first_stage=first_stage
            )
        if auxiliary:
            kwargs['auxiliary'] = [
                (branch, *branch.head(branch.decoder_output))
                for branch in auxiliary
            ]
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
        decoder_output: DecoderOutput | None = None,
        first_stage: FirstStageOutput | None = None,
        auxiliary: Sequence[tuple[AuxiliaryBranch, Tensor, Tensor]] = (),
        **kwargs: Any,
    ) -> dict[str, Tensor | list[Tensor]]:
        """Match and compute the losses; subclasses may add their own here.

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
            decoder_output (DecoderOutput, optional): As in :meth:`loss`.
            first_stage (FirstStageOutput, optional): As in :meth:`loss`.
            auxiliary (Sequence[tuple]): Auxiliary outputs, each with the
                logits and boxes that its head predicts.
            **kwargs: Further arguments of :meth:`prediction_sets`, such as
                ``denoising`` (DN-DETR, DINO).

        Returns:
            dict[str, Tensor | list[Tensor]]: Weighted losses.
        """
        sets = self.prediction_sets(
            all_layers_cls_scores,
            all_layers_bbox_preds,
            decoder_output,
            **kwargs,
        )
        if enc_cls_scores is not None and enc_bbox_preds is not None:
            predictions = Predictions(
                enc_cls_scores[None],
                enc_bbox_preds[None],
                prefix='enc_',
                class_agnostic=self.first_stage_is_class_agnostic,
            )
            sets += self.first_stage_sets(predictions, first_stage)
        for branch, scores, boxes in auxiliary:
            sets += [
                each.of_branch(branch.prefix, branch.loss_weight)
                for each in self.prediction_sets(
                    scores, boxes, branch.decoder_output, **kwargs
                )
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
        decoder_output: DecoderOutput | None = None,
    ) -> list[PredictionSet]:
        """Define which predictions of the decoder are trained, and how.

        By default each layer is matched one-to-one.

        Args:
            cls_scores (Tensor): As returned by :meth:`forward`.
            bbox_preds (Tensor): As returned by :meth:`forward`.
            decoder_output (DecoderOutput, optional): Output of the decoder,
                for methods that need references or query groups.

        Returns:
            list[PredictionSet]: The sets to match and to compute losses of.
        """
        predictions = Predictions(cls_scores, bbox_preds)
        return [self.decoder_set(predictions, decoder_output)]

    def decoder_set(
        self, predictions: Predictions, decoder_output: DecoderOutput | None
    ) -> PredictionSet:
        """Match each decoder layer one-to-one.

        Args:
            predictions (Predictions): Predictions of the matched queries.
            decoder_output (DecoderOutput, optional): As in
                :meth:`prediction_sets`.

        Returns:
            PredictionSet: The set.
        """
        return PredictionSet(predictions, HungarianMatching(self.assigner))

    def first_stage_sets(
        self, predictions: Predictions, first_stage: FirstStageOutput | None
    ) -> list[PredictionSet]:
        """Define how the first stage is trained, by default one-to-one.

        Args:
            predictions (Predictions): Its predictions.
            first_stage (FirstStageOutput, optional): Its output.

        Returns:
            list[PredictionSet]: The sets to match and to compute losses of.
        """
        scoring = Scoring(loss_cls=self.enc_loss_cls)
        pairing = HungarianMatching(self.assigner)
        return [PredictionSet(predictions, pairing, scoring)]


def _check_assigner(assigner: object) -> None:
    """Refuse an assigner that matches one layer at a time."""
    if not isinstance(assigner, BatchHungarianAssigner):
        raise UserError(
            f'train_cfg.assigner.type={type(assigner).__name__!r} matches '
            "one layer at a time; use 'BatchHungarianAssigner', which "
            'takes the same match_costs'
        )
