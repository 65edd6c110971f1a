# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.models.detectors import DeformableDETR
from mmdet.structures import OptSampleList
from torch import Tensor, nn

from project.utils.errors import UserError

from ..layers.dn_query_generator import ContrastiveDNQueryGenerator
from ..layers.stage_outputs import FirstStageOutput
from ..layers.transformer.deformable_attention import LevelShapes
from ..layers.transformer.dino_decoder import DINODecoder
from ..utils.gather import gather_points
from ..utils.precision import apply_in_full_precision
from .base_deformable_detr import BaseDeformableDETR
from .denoising import DenoisingMixin


class BaseDINO(DenoisingMixin, BaseDeformableDETR):
    """DINO, the base of the methods that build on it.

    Source: `DINO <https://arxiv.org/abs/2203.03605>`_. Results and parameter
    names equal those of mmdet's ``DINO``: queries have learned contents and
    the boxes of the most confident first-stage points (mixed query
    selection); boxes look forward twice; training adds contrastive denoising
    queries.

    Args:
        dn_cfg (dict, optional): Settings of the denoising queries, in the
            form of mmdet's ``DINO``; see :class:`ContrastiveDNSettings`.
        use_dn (bool): Whether to train with denoising. Defaults to True.
        *args, **kwargs: As in :class:`BaseDeformableDETR`.

    Raises:
        UserError: If ``with_box_refine`` or ``as_two_stage`` is False.
    """

    decoder_class = DINODecoder
    layers_share_vectors = False  # mmdet initializes each layer anew
    dn_generator_class = ContrastiveDNQueryGenerator

    def __init__(
        self,
        *args: Any,
        decoder: dict,
        bbox_head: dict,
        dn_cfg: dict | None = None,
        use_dn: bool = True,
        with_box_refine: bool = True,
        as_two_stage: bool = True,
        **kwargs: Any,
    ) -> None:
        if not (with_box_refine and as_two_stage):
            raise UserError(
                f'{type(self).__name__} chooses its queries among the points '
                'of the image and refines their boxes: it needs '
                'with_box_refine=True and as_two_stage=True'
            )
        self.dn_cfg = dn_cfg
        self.use_dn = use_dn
        super().__init__(
            *args,
            # mmdet's decoder has a larger eps than its head.
            decoder={
                'look_forward_twice': True,
                'inverse_sigmoid_eps': 1e-3,
                **decoder,
            },
            bbox_head=bbox_head,
            with_box_refine=True,
            as_two_stage=True,
            **kwargs,
        )

    def _init_first_stage(self) -> None:
        """Initialize the projection of the memory, and the queries."""
        dims = self.embed_dims
        self.memory_trans_fc = nn.Linear(dims, dims)
        self.memory_trans_norm = nn.LayerNorm(dims)
        self._init_contents()
        if self.use_dn:
            self._init_denoising(self.dn_cfg)

    def _init_contents(self) -> None:
        """Initialize the contents of the queries."""
        self.query_embedding = nn.Embedding(self.num_queries, self.embed_dims)

    def init_weights(self) -> None:
        """Initialize weights of the transformer and other components."""
        super(DeformableDETR, self).init_weights()
        self._init_transformer()
        nn.init.xavier_uniform_(self.memory_trans_fc.weight)
        self._init_content_weights()
        nn.init.normal_(self.level_embed)

    def _init_content_weights(self) -> None:
        """Initialize the weights of the contents."""
        nn.init.xavier_uniform_(self.query_embedding.weight)

    def pre_decoder(
        self,
        memory: Tensor,
        memory_mask: Tensor | None = None,
        level_shapes: LevelShapes = (),
        batch_data_samples: OptSampleList = None,
    ) -> tuple[dict, dict]:
        """Select proposals, build the queries and add the denoising ones.

        Arguments and results are those of :class:`BaseDeformableDETR`. In
        training the ground truth is needed, and the head gets ``denoising``.
        """
        first_stage = self.propose(memory, memory_mask, level_shapes)
        head_inputs: dict[str, Any] = dict(first_stage=first_stage)
        references = first_stage.references_unact
        query, _ = self.embed_proposals(references, first_stage.features)
        groups = self.query_groups(query.shape[1])
        if self.training and self.use_dn:
            query, references, groups, head_inputs['denoising'] = (
                self._with_denoising(query, references, batch_data_samples)
            )
        decoder_inputs = dict(
            query=query,
            query_pos=None,  # the decoder encodes the references
            memory=memory,
            reference_points=references.sigmoid(),
            query_groups=groups,
        )
        return decoder_inputs, head_inputs

    def propose(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        level_shapes: LevelShapes,
    ) -> FirstStageOutput:
        """First stage: the points with the highest class scores.

        Only the predictions at the selected points are trained. Arguments
        and results are those of :class:`BaseDeformableDETR`.
        """
        memory, anchors = self.gen_encoder_output_proposals(
            memory, memory_mask, level_shapes
        )
        branch = self.decoder.num_layers
        logits = apply_in_full_precision(
            self.bbox_head.cls_branches[branch], memory
        )
        reg_head = self.bbox_head.reg_branches[branch]

        def boxes_of(points: Tensor) -> Tensor:
            deltas = reg_head(gather_points(memory, points))
            return deltas + gather_points(anchors, points)

        chosen = self.choose_proposals(
            logits.amax(-1),
            lambda points: boxes_of(points).detach(),
            level_shapes,
        )
        # Only boxes at the selected points are computed.
        boxes = boxes_of(chosen)
        features = gather_points(memory.detach(), chosen)
        return self._first_stage_at(
            features, gather_points(logits, chosen), boxes
        )

    def _first_stage_at(
        self, features: Tensor, logits: Tensor, boxes_unact: Tensor
    ) -> FirstStageOutput:
        """Collect the selected points, in training with their predictions."""
        references = boxes_unact.detach()
        if not self.training:
            return FirstStageOutput(references, features)
        return FirstStageOutput(
            references, features, logits, boxes_unact.sigmoid()
        )

    def embed_proposals(
        self, references_unact: Tensor, features: Tensor
    ) -> tuple[Tensor, None]:
        """Learned contents, by rank; the decoder embeds the positions.

        Arguments and results are those of :class:`BaseDeformableDETR`.
        """
        batch_size, num_queries = references_unact.shape[:2]
        contents = self.query_embedding.weight[:num_queries]
        return contents.expand(batch_size, -1, -1), None
