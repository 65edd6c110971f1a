# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from project.utils.errors import UserError
from project.utils.settings import NonNegative, checked, read_settings

from ..layers.stage_outputs import DenseFirstStageOutput, FirstStageOutput
from ..layers.transformer.ddq_decoder import DDQDecoder, DistinctQueryGroups
from ..layers.transformer.deformable_attention import LevelShapes
from ..layers.transformer.proposal_refiner import ROI_EXTRACTOR
from ..layers.transformer.query_groups import QueryGroup, QueryGroups
from ..utils.distinct_boxes import best_distinct_boxes, best_first
from ..utils.gather import gather_points
from ..utils.nms import NMS
from ..utils.precision import apply_in_full_precision
from .base_dino import BaseDINO

_SECOND_NAMES = 'decoder.aux_reg_branches.'


@MODELS.register_module()
class HPRDDQDETR(BaseDINO):
    """DDQ with HPR's three refiners.

    Source: `DDQ <https://arxiv.org/abs/2303.12776>`_ and HPR (CVPR 2024).
    Results and parameter names equal those of mmdet's ``DDQDETR``. The
    queries are the most confident first-stage points whose boxes do not
    overlap; their contents are projected from the memory there. Training
    adds dense queries, which may overlap.

    Args:
        *args: As in :class:`BaseDINO`.
        decoder (dict): Settings of the decoder. ``bbox_roi_extractor``
            defaults to :data:`ROI_EXTRACTOR`.
        aux_weights (Sequence[float]): Loss weights of the auxiliary heads.
            Defaults to (0.5, 0.5).
        dense_topk_ratio (float): Ratio of dense to distinct queries. Defaults
            to 1.5.
        dqs_cfg (dict, optional): Distinct queries selection, by default
            ``dict(type='nms', iou_threshold=0.8)``.
        draw_mergers (bool): Whether the mergers of the refiners are
            initialized by Xavier, as in the authors' runs, instead of as
            plain sums. Defaults to True.
        backbone_cp (bool): Alias of ``ckpt_backbone`` in the authors'
            configs.
        neck_cp (bool): Alias of ``ckpt_neck``.
        **kwargs: As in :class:`BaseDINO`.

    Raises:
        UserError: If ``use_dn`` is False.
    """

    decoder_class = DDQDecoder
    auxiliary_prefix = 'hpr_{}_'

    @checked('model')
    def __init__(
        self,
        *args: Any,
        decoder: dict,
        aux_weights: Sequence[float] = (0.5, 0.5),
        dense_topk_ratio: NonNegative = 1.5,
        dqs_cfg: dict | None = None,
        draw_mergers: bool = True,
        backbone_cp: bool = False,
        neck_cp: bool = False,
        **kwargs: Any,
    ) -> None:
        if not kwargs.get('use_dn', True):
            raise UserError(
                'model.use_dn=False is not for HPRDDQDETR: DDQ is trained '
                'with denoising queries'
            )
        default = NMS(iou_threshold=0.8)
        suppression = read_settings(default, dqs_cfg, 'model.dqs_cfg')
        self.iou_threshold = suppression.iou_threshold
        self.dense_topk_ratio = dense_topk_ratio
        kwargs['ckpt_backbone'] = kwargs.get('ckpt_backbone') or backbone_cp
        kwargs['ckpt_neck'] = kwargs.get('ckpt_neck') or neck_cp
        super().__init__(
            *args,
            decoder={
                'bbox_roi_extractor': ROI_EXTRACTOR,
                **decoder,
                'iou_threshold': self.iou_threshold,
                'draw_mergers': draw_mergers,
            },
            aux_weights=aux_weights,
            **kwargs,
        )
        self.register_load_state_dict_pre_hook(_drop_second_names)

    def _init_contents(self) -> None:
        """Initialize the projection from memory to contents."""
        self.query_map = nn.Linear(self.embed_dims, self.embed_dims)

    def _init_content_weights(self) -> None:
        """Keep PyTorch's default initialization of the projection."""

    def pre_decoder(
        self,
        memory: Tensor,
        memory_mask: Tensor | None = None,
        level_shapes: LevelShapes = (),
        batch_data_samples: OptSampleList = None,
    ) -> tuple[dict, dict]:
        """Select distinct and, in training, dense and denoising queries.

        Arguments and results are those of :class:`BaseDINO`.
        """
        first_stage = self.propose(memory, memory_mask, level_shapes)
        head_inputs: dict[str, Any] = dict(first_stage=first_stage)
        query, references = first_stage.features, first_stage.references_unact
        groups = [QueryGroup('matching', query.shape[1])]
        dense = first_stage.dense
        if dense is not None:  # in training
            query, references, noised, head_inputs['denoising'] = (
                self._with_denoising(query, references, batch_data_samples)
            )
            query = torch.cat([query, dense.features], 1)
            references = torch.cat([references, dense.references_unact], 1)
            num_dense = dense.features.shape[1]
            groups = [*noised.groups, QueryGroup('dense', num_dense)]
        decoder_inputs = dict(
            query=query,
            query_pos=None,  # the decoder encodes the references
            memory=memory,
            reference_points=references.sigmoid(),
            query_groups=DistinctQueryGroups(groups),
        )
        return decoder_inputs, head_inputs

    def propose(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        level_shapes: LevelShapes,
    ) -> DenseFirstStageOutput:
        """First stage: distinct points and, in training, dense ones.

        Arguments and results are those of :class:`BaseDeformableDETR`; the
        features are the contents of the queries.
        """
        features, anchors = self.gen_encoder_output_proposals(
            memory, memory_mask, level_shapes
        )
        distinct = self._distinct_queries(memory, features, anchors)
        dense = None
        if self.training:
            dense = self._dense_queries(memory, features, anchors)
        return DenseFirstStageOutput(**vars(distinct), dense=dense)

    def _distinct_queries(
        self, memory: Tensor, features: Tensor, anchors: Tensor
    ) -> FirstStageOutput:
        """Select the most confident points whose boxes do not overlap.

        If there are too few of them, zeros fill up the rest, as in mmdet.

        Args:
            memory (Tensor): Has shape (bs, num_feat_points, dim).
            features (Tensor): Projected memory, has the same shape.
            anchors (Tensor): Logits of the anchors, has shape
                (bs, num_feat_points, 4).
        """
        branch = self.decoder.num_layers
        logits = apply_in_full_precision(
            self.bbox_head.cls_branches[branch], features
        )
        boxes = self.bbox_head.reg_branches[branch](features) + anchors
        indices, is_filler = best_distinct_boxes(
            bbox_cxcywh_to_xyxy(boxes.sigmoid()),
            logits.amax(-1).sigmoid(),
            self.num_queries,
            self.iou_threshold,
        )
        logits, boxes, contents = (
            gather_points(tensor, indices)
            for tensor in (logits, boxes, memory.detach())
        )
        logits, boxes, query = (
            tensor.masked_fill(is_filler[..., None], 0.0)
            for tensor in (logits, boxes, self.query_map(contents))
        )
        return self._first_stage_at(query, logits, boxes)

    def _dense_queries(
        self, memory: Tensor, features: Tensor, anchors: Tensor
    ) -> FirstStageOutput:
        """Select the most confident points, by separate branches.

        The arguments are those of :meth:`_distinct_queries`.
        """
        logits = apply_in_full_precision(
            self.bbox_head.cls_branches[-1], features
        )
        scores = logits.amax(-1).sigmoid()
        wanted = int(self.num_queries * self.dense_topk_ratio)
        indices = best_first(scores)[:, :wanted]
        deltas = self.bbox_head.reg_branches[-1](
            gather_points(features, indices)
        )
        boxes = deltas + gather_points(anchors, indices)
        query = self.query_map(gather_points(memory.detach(), indices))
        return self._first_stage_at(
            query, gather_points(logits, indices), boxes
        )

    def refining_branches(self, query_groups: QueryGroups | None) -> list:
        """Box heads that refine the references, one for each layer."""
        return self.bbox_head.refining_branches(query_groups)


def _drop_second_names(
    model: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Drop the duplicate names of box heads in the authors' checkpoints.

    Raises:
        UserError: If the tensors under two names differ.
    """
    start = f'{prefix}{_SECOND_NAMES}'
    for second in [name for name in state_dict if name.startswith(start)]:
        first = second.replace('decoder.', 'bbox_head.', 1)
        tensor = state_dict.pop(second)
        if first in state_dict and not torch.equal(tensor, state_dict[first]):
            raise UserError(
                f'the checkpoint has two different tensors under {first!r} '
                f'and {second!r}, which should be the same'
            )
