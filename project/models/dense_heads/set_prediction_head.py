# Copyright (c) mmdetr authors. All rights reserved.
import copy
from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from ..layers.auxiliary import AuxiliaryBranch
from ..layers.transformer.deformable_layers import refine_reference
from ..layers.transformer.query_groups import QueryGroups
from ..losses.set_criterion import SetCriterion, set_classification_loss
from ..task_modules.set_prediction import PredictionSet, SetTargets
from ..utils.own_weights import OwnWeightsMixin
from ..utils.points import gather_points


class SetPredictionHead(OwnWeightsMixin, DeformableDETRHead):
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
        self.inverse_sigmoid_eps = inverse_sigmoid_eps
        super().__init__(*args, **kwargs)
        self.enc_loss_cls = None
        if enc_loss_cls is not None:
            enc_loss = MODELS.build(enc_loss_cls)
            self.enc_loss_cls = set_classification_loss(enc_loss)
        if self.train_cfg:
            self.criterion = SetCriterion(
                self.assigner,
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
        return self.cls_branches[layer_id](hidden_state), boxes

    def loss(
        self,
        hidden_states: Tensor,
        references: list[Tensor],
        batch_data_samples: SampleList,
        auxiliary: Sequence[AuxiliaryBranch] = (),
        **kwargs,
    ) -> dict[str, Tensor]:
        """Predict, match and compute the losses.

        Args:
            hidden_states (Tensor): As in :meth:`forward`.
            references (list[Tensor]): As in :meth:`forward`.
            batch_data_samples (list[:obj:`DetDataSample`]): Ground truth.
            auxiliary (Sequence[AuxiliaryBranch]): Auxiliary results of the
                decoder, trained as the main one by heads of their own, which
                refine the same references. The first stage has no part in
                them. Defaults to none.
            **kwargs: Passed on to :meth:`prediction_sets`.

        Returns:
            dict[str, Tensor]: Weighted losses.
        """
        outputs = self(hidden_states, references, **kwargs)
        sets = self.prediction_sets(*outputs, **kwargs)
        of_decoder = {
            name: value
            for name, value in kwargs.items()
            if 'enc_outputs' not in name
        }
        for branch in auxiliary:
            of_branch = branch.head(
                branch.hidden_states, references, **of_decoder
            )
            for predictions in branch.head.prediction_sets(
                *of_branch, **of_decoder
            ):
                predictions.branch = branch.prefix
                predictions.loss_weight *= branch.loss_weight
                sets.append(predictions)
        targets = SetTargets.from_instances(
            [sample.gt_instances for sample in batch_data_samples],
            [sample.metainfo for sample in batch_data_samples],
            like=outputs[1],
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
        sets = [PredictionSet('', cls_scores, bbox_preds)]
        if enc_outputs_class is not None:
            first_stage = PredictionSet(
                'enc_',
                enc_outputs_class[None],
                enc_outputs_coord[None],
                class_agnostic=self.first_stage_is_class_agnostic,
                loss_cls=self.enc_loss_cls,
            )
            sets.append(first_stage)
        return sets

    def predict(
        self,
        hidden_states: Tensor,
        references: list[Tensor],
        batch_data_samples: SampleList,
        rescale: bool = True,
        **kwargs,
    ) -> InstanceList:
        """Detect objects with the last decoder layer.

        Args:
            hidden_states (Tensor): As in :meth:`forward`.
            references (list[Tensor]): As in :meth:`forward`.
            batch_data_samples (list[:obj:`DetDataSample`]): Tell the size of
                each image.
            rescale (bool): Whether boxes are of the original images rather
                than of the network's input. Defaults to True.
            **kwargs: Passed on to :meth:`detectable_queries`.

        Returns:
            list[:obj:`InstanceData`]: For each image, best first, ``bboxes``
            in pixels (x1, y1, x2, y2), ``scores`` and ``labels``.
        """
        layer_id = len(hidden_states) - 1
        cls_scores, bbox_preds = self.forward_layer(
            layer_id, hidden_states[layer_id], references[layer_id]
        )
        detectable = self.detectable_queries(**kwargs)
        if detectable is not None:
            cls_scores = cls_scores.masked_fill(
                ~detectable[..., None], -torch.inf
            )
        metas = [sample.metainfo for sample in batch_data_samples]
        results = self.predict_by_feat(
            cls_scores, bbox_preds, metas, rescale=rescale
        )
        if detectable is None:
            return results
        limits = (detectable.sum(1) * self.num_classes).tolist()
        return [
            instances[:limit]
            for instances, limit in zip(results, limits, strict=True)
        ]

    def detectable_queries(self, **kwargs) -> Tensor | None:
        """Tell which queries of the last layer may be detections.

        Args:
            **kwargs: What the detector gives besides hidden states and
                references.

        Returns:
            Tensor | None: True where one may, has shape (bs, num_queries);
            None, the default, if all may.
        """
        return None

    def predict_by_feat(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        batch_img_metas: list[dict],
        rescale: bool = True,
    ) -> InstanceList:
        """Select the detections of each image.

        Boxes are clipped to the image unless ``test_cfg.clip_bboxes`` is
        False, as in the authors' evaluation.

        Args:
            cls_scores (Tensor): Logits of the last layer, has shape
                (bs, num_queries, num_classes).
            bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
                (bs, num_queries, 4).
            batch_img_metas (list[dict]): Meta information of each image.
            rescale (bool): As in :meth:`predict`. Defaults to True.

        Returns:
            list[:obj:`InstanceData`]: As in :meth:`predict`.
        """
        clips = (self.test_cfg or {}).get('clip_bboxes', True)
        detections = self.select_detections(cls_scores, bbox_preds)
        sizes = _output_sizes(batch_img_metas, rescale, bbox_preds)
        return [
            InstanceData(
                bboxes=(boxes.clamp(0, 1) if clips else boxes) * size,
                scores=scores,
                labels=labels,
            )
            for scores, labels, boxes, size in zip(
                *detections, sizes, strict=True
            )
        ]

    def select_detections(
        self, cls_scores: Tensor, bbox_preds: Tensor
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
        """Choose the pairs of a query and a class that count as detections.

        By default the best ``test_cfg.max_per_img`` of an image.

        Args:
            cls_scores (Tensor): Logits, has shape
                (bs, num_queries, num_classes).
            bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
                (bs, num_queries, 4).

        Returns:
            tuple[Sequence[Tensor]]: For each image, best first, scores of
            shape (n, ), labels of shape (n, ), and boxes (x1, y1, x2, y2)
            relative to the image, which may reach out of it, shape (n, 4).
        """
        wanted = (self.test_cfg or {}).get('max_per_img', cls_scores.shape[1])
        return self.best_scored(cls_scores, bbox_preds, wanted)

    def best_scored(
        self, cls_scores: Tensor, bbox_preds: Tensor, wanted: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sort pairs of a query and a class by their score.

        Args:
            cls_scores (Tensor): As in :meth:`select_detections`.
            bbox_preds (Tensor): As there.
            wanted (int): How many to keep, if there are so many.

        Returns:
            tuple[Tensor, Tensor, Tensor]: As there, all images stacked.
        """
        num_scores = cls_scores[0].numel()
        scores, indices = (
            cls_scores.sigmoid().flatten(1).topk(min(wanted, num_scores))
        )
        boxes = gather_points(bbox_preds, indices // self.num_classes)
        return scores, indices % self.num_classes, bbox_cxcywh_to_xyxy(boxes)


def _output_sizes(
    img_metas: list[dict], rescale: bool, like: Tensor
) -> Tensor:
    """Size (w, h, w, h) of each image in pixels, has shape (bs, 4)."""
    sizes = []
    for meta in img_metas:
        height, width = meta['img_shape'][:2]
        scale_w, scale_h = meta['scale_factor'] if rescale else (1.0, 1.0)
        sizes.append([width / scale_w, height / scale_h] * 2)
    return like.new_tensor(sizes)
