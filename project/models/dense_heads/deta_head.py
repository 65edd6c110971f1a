# Copyright (c) mmdetr authors. All rights reserved.
from dataclasses import dataclass
from typing import Any

from mmdet.registry import MODELS, TASK_UTILS
from torch import Tensor

from project.utils.errors import UserError
from project.utils.settings import PositiveCount

from ..layers.stage_outputs import AnchoredFirstStageOutput, DecoderOutput
from ..task_modules.set_prediction import (
    AssignedByPriors,
    HungarianMatching,
    Pairing,
    Predictions,
    PredictionSet,
    PriorAssigner,
    Scoring,
)
from ..utils.gather import gather_points, true_first
from ..utils.nms import NMS, nms_in_groups
from .detecting import DetectionSettings, Selection
from .set_prediction_head import SetPredictionHead


@dataclass(frozen=True)
class DETADetectionSettings(DetectionSettings):
    """Settings that :class:`DETAHead` reads from ``test_cfg``.

    Attributes:
        nms (dict, optional): Such as ``dict(type='nms', iou_threshold=0.7)``;
            None disables NMS.
        nms_pre (int): Number of best (query, class) pairs of an image before
            NMS.
    """

    nms: NMS | None = None
    nms_pre: PositiveCount = 10000


@MODELS.register_module()
class DETAHead(SetPredictionHead):
    """Head of DETA, `NMS Strikes Back <https://arxiv.org/abs/2212.06137>`_.

    Both stages can be trained like a two-stage detector, by assignment to
    known boxes (section 3): a first-stage proposal by the IoU of its anchor,
    and a query, in every layer, by the IoU of its proposal. A stage without
    an assigner of its own is matched one-to-one by ``train_cfg.assigner``.

    As many queries then detect the same object, class-wise NMS follows.

    Args:
        *args: As in :class:`SetPredictionHead`.
        train_cfg (dict, optional): Besides ``assigner`` the configs
            ``first_stage_assigner`` and ``second_stage_assigner`` of
            assigners such as ``TopKIoUAssigner``; None for matching.
        **kwargs: As in :class:`SetPredictionHead`.

    Raises:
        UserError: If an assigner does not assign by boxes alone.
    """

    default_settings = DETADetectionSettings()

    def __init__(
        self,
        *args: Any,
        train_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, train_cfg=train_cfg, **kwargs)
        self.first_stage_assigner, self.second_stage_assigner = (
            _build_assigner(train_cfg or {}, f'{stage}_stage_assigner')
            for stage in ('first', 'second')
        )

    def decoder_set(  # type: ignore[override]  # its detector's outputs
        self, predictions: Predictions, decoder_output: DecoderOutput
    ) -> PredictionSet:
        """Assign queries by their proposals."""
        proposals = decoder_output.references[0]
        return PredictionSet(
            predictions, self._pairing(self.second_stage_assigner, proposals)
        )

    def first_stage_sets(  # type: ignore[override]  # its detector's outputs
        self, predictions: Predictions, first_stage: AnchoredFirstStageOutput
    ) -> list[PredictionSet]:
        """Assign proposals by their anchors."""
        pairing = self._pairing(self.first_stage_assigner, first_stage.anchors)
        scoring = Scoring(loss_cls=self.enc_loss_cls)
        return [PredictionSet(predictions, pairing, scoring)]

    def _pairing(
        self, assigner: PriorAssigner | None, priors: Tensor | None
    ) -> Pairing:
        """Assign by priors, or match if the stage has no assigner."""
        if assigner is None:
            return HungarianMatching(self.assigner)
        assert priors is not None  # as always in training
        return AssignedByPriors(assigner, priors)

    def select_detections(
        self, cls_scores: Tensor, bbox_preds: Tensor
    ) -> Selection:
        """Select the best detections after NMS.

        Arguments and results are those of :class:`SetPredictionHead`.
        """
        settings = self.detection_settings()
        assert isinstance(settings, DETADetectionSettings)
        if settings.nms is None:
            return super().select_detections(cls_scores, bbox_preds)
        found = self.best_scored(cls_scores, bbox_preds, settings.nms_pre)
        wanted = settings.max_per_img or 100
        stays = nms_in_groups(
            found.boxes / 2 + 0.25,  # [-0.5, 1.5] to [0, 1], IoUs unchanged
            found.labels,
            self.num_classes,
            settings.nms.iou_threshold,
            wanted,
        )
        chosen = true_first(stays, wanted)
        return Selection(
            found.scores.gather(1, chosen),
            found.labels.gather(1, chosen),
            gather_points(found.boxes, chosen),
            ~stays.gather(1, chosen),
        )


def _build_assigner(train_cfg: dict, key: str) -> PriorAssigner | None:
    """Build an assigner by priors; None if there is no config."""
    config = train_cfg.get(key)
    if config is None:
        return None
    assigner = TASK_UTILS.build(config)
    if not isinstance(assigner, PriorAssigner):
        raise UserError(
            f'train_cfg.{key}.type={config["type"]!r} gives no pairs of a '
            "query and a ground truth; use 'TopKIoUAssigner'"
        )
    return assigner
