# Copyright (c) mmdetr authors. All rights reserved.
"""What the detectors on Deformable DETR's transformer have in common."""

import logging
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.detectors import DeformableDETR
from mmdet.models.layers import SinePositionalEncoding
from mmdet.registry import TASK_UTILS
from mmdet.structures import OptSampleList
from mmengine.logging import print_log
from mmengine.model import ModuleList
from torch import Tensor, nn

from project.utils.errors import UserError, check_number

from ..layers.auxiliary_branch import AuxiliaryBranch
from ..layers.recomputation import recompute_layers
from ..layers.transformer.deformable_attention import LevelShapes
from ..layers.transformer.deformable_layers import (
    BoxRefinementDecoder,
    DeformableEncoder,
)
from ..layers.transformer.query_groups import QueryGroups
from ..layers.transformer.regional_layers import Merger
from ..utils.box_ops import image_sizes
from ..utils.gather import gather_points
from ..utils.own_weights import OwnWeightsMixin
from ..utils.precision import (
    apply_in_full_precision,
    full_precision,
    like_weights,
    widened,
)
from ..utils.weight_init import share_vectors
from .finite_step import FiniteStepMixin
from .reaugmentation import ReaugmentationMixin
from .tensor_mode import TensorModeMixin


class BaseDeformableDETR(
    FiniteStepMixin,
    OwnWeightsMixin,
    TensorModeMixin,
    ReaugmentationMixin,
    DeformableDETR,
):
    """Deformable DETR whose stages a method can change one by one.

    The stages are those of mmdet (``pre_transformer``, ``forward_encoder``,
    ``pre_decoder``, ``forward_decoder``), and so are the parameters' names.
    Here the level sizes travel as integers, the decoder can look forward
    twice, queries come in groups, and the first stage and the building of
    queries are methods of their own.

    Args:
        inverse_sigmoid_eps (float): How close to 0 and 1 references may
            come before their log-odds are taken, in head and, unless it
            says otherwise, decoder: 1e-5 in the authors' repositories, 1e-3
            in detrex's. Defaults to 1e-5.
        proposal_selector (dict, optional): Config of what chooses proposals
            in the first stage, such as ``LevelNMSSelector``. By default the
            best are chosen.
        aux_weights (Sequence[float]): For each auxiliary result of the
            decoder's layers the weight of its losses; it has a head of its
            own, like the main one. Defaults to none.
        ckpt_backbone (bool): Whether the backbone is recomputed in the
            backward pass to save memory, see :func:`recompute_layers`. A
            backbone that has ``with_cp`` recomputes block by block, which
            saves more. Defaults to False.
        ckpt_neck (bool): Whether the neck is. Defaults to False.
        *args, **kwargs: As in mmdet's ``DeformableDETR``; ``num_cp`` of
            ``encoder`` and ``decoder`` says how many of their layers are
            recomputed.

    Raises:
        UserError: If ``look_forward_twice`` is asked for without box
            refinement, more detections than queries times classes, a
            positional encoding of another width, a selector that is none,
            another number of weights than there are auxiliary results,
            regions of queries that are points, or a neck to recompute where
            there is none.
    """

    decoder_class = BoxRefinementDecoder
    layers_share_vectors = True
    """Whether all layers of encoder and decoder start with the same biases,
    as in the codes that descend from Deformable DETR's; see
    :func:`share_vectors`."""
    auxiliary_prefix = 'aux_{}_'
    """Put before the names of an auxiliary result's losses."""

    def __init__(
        self,
        *args,
        decoder: dict,
        bbox_head: dict,
        inverse_sigmoid_eps: float = 1e-5,
        proposal_selector: dict | None = None,
        aux_weights: Sequence[float] = (),
        ckpt_backbone: bool = False,
        ckpt_neck: bool = False,
        **kwargs,
    ) -> None:
        decoder = {'inverse_sigmoid_eps': inverse_sigmoid_eps, **decoder}
        bbox_head = {**bbox_head, 'inverse_sigmoid_eps': inverse_sigmoid_eps}
        check_number('model.num_queries', kwargs.get('num_queries', 1), low=1)
        super().__init__(*args, decoder=decoder, bbox_head=bbox_head, **kwargs)
        if decoder.get('look_forward_twice') and not self.with_box_refine:
            raise UserError(
                'decoder.look_forward_twice=True needs with_box_refine=True: '
                'without refinement there is no later box to look at'
            )
        self.proposal_selector = None
        if proposal_selector is not None:
            self.proposal_selector = TASK_UTILS.build(proposal_selector)
            if not hasattr(self.proposal_selector, 'select'):
                raise UserError(
                    'model.proposal_selector.type='
                    f'{proposal_selector["type"]!r} selects no proposals; '
                    "use 'LevelNMSSelector', or None for the best"
                )
        if ckpt_neck and not self.with_neck:
            raise UserError('model.ckpt_neck=True needs a model.neck')
        recompute_layers([self.backbone], int(ckpt_backbone))
        if ckpt_neck:
            recompute_layers([self.neck], 1)
        self._told_small_input = False
        self._check_detection_count()
        self._init_auxiliary_heads(aux_weights)

    def _init_auxiliary_heads(self, aux_weights: Sequence[float]) -> None:
        """Give each auxiliary result of the decoder a head and a weight."""
        expected = getattr(self.decoder, 'num_auxiliary', 0)
        if len(aux_weights) != expected:
            raise UserError(
                f'model.aux_weights={list(aux_weights)} should have one '
                'weight for each auxiliary result of a decoder layer, '
                f'{expected} with this model.decoder'
            )
        for index, weight in enumerate(aux_weights):
            check_number(f'model.aux_weights[{index}]', weight, low=0)
        if aux_weights and hasattr(self, 'reference_points_fc'):
            raise UserError(
                "model.decoder's layers look at the regions of queries, which "
                'are points at first: they need as_two_stage=True, or '
                'anchors, as DN-Deformable-DETR has'
            )
        self.aux_weights = list(aux_weights)
        if aux_weights:
            self.bbox_head_aux = ModuleList(
                self.bbox_head.auxiliary_head(self.decoder.num_layers)
                for _ in aux_weights
            )

    def _check_detection_count(self) -> None:
        """Refuse a number of detections that can never be reached.

        DETRRunner does so earlier; this is for a model built without it.
        """
        asked = (self.test_cfg or {}).get('max_per_img', 0)
        limit = self.num_queries * self.bbox_head.num_classes
        if asked > limit:
            raise UserError(
                f'model.test_cfg.max_per_img={asked} asks for more detections '
                f'than num_queries * num_classes = {self.num_queries} * '
                f'{self.bbox_head.num_classes} = {limit}'
            )

    def init_weights(self) -> None:
        """Initialize as mmdet does, but mergers as built, biases shared."""
        super().init_weights()
        self._finish_transformer()

    def _init_transformer(self) -> None:
        """Draw matrices from Xavier's distribution, but deformable ones.

        For a detector that initializes its queries otherwise than mmdet's.
        """
        for coder in (self.encoder, self.decoder):
            for parameter in coder.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()
        self._finish_transformer()

    def _finish_transformer(self) -> None:
        """Set what the transformer does not draw."""
        self._reset_mergers()
        if self.layers_share_vectors:
            share_vectors(self.encoder.layers)
            share_vectors(self.decoder.layers)

    def _reset_mergers(self) -> None:
        """Let the mergers of proposal refiners start from plain sums."""
        for module in self.decoder.modules():
            if isinstance(module, Merger):
                module.reset_weights()

    def _init_layers(self) -> None:
        """Initialize layers except for backbone, neck and bbox_head."""
        self.positional_encoding = SinePositionalEncoding(
            **self.positional_encoding
        )
        self.encoder = DeformableEncoder(**self.encoder)
        self.decoder = self.decoder_class(**self.decoder)
        self.embed_dims = self.encoder.embed_dims
        if self.positional_encoding.num_feats * 2 != self.embed_dims:
            raise UserError(
                'model.positional_encoding.num_feats='
                f'{self.positional_encoding.num_feats} should be half of the '
                f"encoder's embed_dims={self.embed_dims}"
            )
        self.level_embed = nn.Parameter(
            torch.zeros(self.num_feature_levels, self.embed_dims)
        )
        if self.as_two_stage:
            self._init_first_stage()
        else:
            self._init_learned_queries()

    def _init_learned_queries(self) -> None:
        """Initialize the queries that are used without a first stage."""
        self.query_embedding = nn.Embedding(
            self.num_total_queries, self.embed_dims * 2
        )
        self.reference_points_fc = nn.Linear(self.embed_dims, 2)

    def _init_first_stage(self) -> None:
        """Initialize what turns memory into proposals and queries."""
        dims = self.embed_dims
        self.memory_trans_fc = nn.Linear(dims, dims)
        self.memory_trans_norm = nn.LayerNorm(dims)
        self.pos_trans_fc = nn.Linear(dims * 2, dims * 2)
        self.pos_trans_norm = nn.LayerNorm(dims * 2)

    @property
    def num_total_queries(self) -> int:
        """int: Queries in training, all groups together."""
        return self.num_queries

    def pre_transformer(
        self,
        mlvl_feats: tuple[Tensor, ...],
        batch_data_samples: OptSampleList = None,
    ) -> tuple[dict, dict]:
        """Flatten the features and encode their positions.

        Args:
            mlvl_feats (tuple[Tensor]): Features of the neck, each has shape
                (bs, dim, h_lvl, w_lvl).
            batch_data_samples (list[:obj:`DetDataSample`], optional): Tell
                the size of each image within the batch. By default no image
                is padded; proposal refiners need to know.

        Returns:
            tuple[dict, dict]: Keyword arguments of ``forward_encoder`` and
            of ``forward_decoder``.
        """
        masks = self._level_masks(mlvl_feats, batch_data_samples)
        positions = [
            (
                self.positional_encoding(mask, input=feat)
                + embed[:, None, None]
            ).to(embed.dtype)
            for feat, mask, embed in zip(
                mlvl_feats, masks, self.level_embed, strict=True
            )
        ]
        if masks[0] is None:
            feat_mask = None
            shape = (len(mlvl_feats[0]), len(mlvl_feats), 2)
            ratios = mlvl_feats[0].new_ones(shape)
        else:
            feat_mask = torch.cat([mask.flatten(1) for mask in masks], 1)
            ratios = torch.stack([self.get_valid_ratio(m) for m in masks], 1)
        geometry = level_geometry(
            tuple(tuple(feat.shape[-2:]) for feat in mlvl_feats),
            mlvl_feats[0].device,
        )
        encoder_inputs_dict = dict(
            feat=_flatten_levels(mlvl_feats),
            feat_mask=feat_mask,
            feat_pos=_flatten_levels(positions),
            valid_ratios=ratios,
            **geometry,
        )
        decoder_inputs_dict = dict(
            memory_mask=feat_mask, valid_ratios=ratios, **geometry
        )
        if batch_data_samples and self.aux_weights:
            decoder_inputs_dict['image_sizes'] = image_sizes(
                [sample.img_shape for sample in batch_data_samples],
                like=mlvl_feats[0],
            )
        return encoder_inputs_dict, decoder_inputs_dict

    def _level_masks(
        self, mlvl_feats: tuple[Tensor, ...], batch_data_samples: OptSampleList
    ) -> list[Tensor | None]:
        """Where each level is padding.

        Returns:
            list[Tensor | None]: For each level True where padded, has shape
            (bs, h_lvl, w_lvl); all None when no image is padded.
        """
        samples = batch_data_samples or []
        if all(s.img_shape[:2] == s.batch_input_shape for s in samples):
            return [None] * len(mlvl_feats)
        masks = mlvl_feats[0].new_ones(
            (len(samples), *samples[0].batch_input_shape)
        )
        for mask, sample in zip(masks, samples, strict=True):
            height, width = sample.img_shape[:2]
            mask[:height, :width] = 0
        return [
            F.interpolate(masks[None], size=feat.shape[-2:])[0].bool()
            for feat in mlvl_feats
        ]

    def forward_encoder(
        self,
        feat: Tensor,
        feat_mask: Tensor | None,
        feat_pos: Tensor,
        level_shapes: LevelShapes,
        **kwargs,
    ) -> dict:
        """Encode the features.

        Args:
            feat (Tensor): Features, has shape (bs, num_feat_points, dim).
            feat_mask (Tensor, optional): True where padded, has shape
                (bs, num_feat_points).
            feat_pos (Tensor): Positions, has the shape of ``feat``.
            level_shapes (Sequence[tuple[int, int]]): (h, w) of each level.
            **kwargs: Further geometry for the encoder.

        Returns:
            dict: Keyword arguments of ``pre_decoder``.
        """
        memory = self.encoder(
            feat,
            query_pos=feat_pos,
            key_padding_mask=feat_mask,
            level_shapes=level_shapes,
            **kwargs,
        )
        return dict(
            memory=memory, memory_mask=feat_mask, level_shapes=level_shapes
        )

    def pre_decoder(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        level_shapes: LevelShapes,
    ) -> tuple[dict, dict]:
        """Choose proposals and build the queries from them.

        Args:
            memory (Tensor): Encoded features, has shape
                (bs, num_feat_points, dim).
            memory_mask (Tensor, optional): True where padded, has shape
                (bs, num_feat_points).
            level_shapes (Sequence[tuple[int, int]]): (h, w) of each level.

        Returns:
            tuple[dict, dict]: Keyword arguments of ``forward_decoder``, and
            those that the head's loss takes besides its results: the query
            groups and, in two stages, :meth:`first_stage_outputs`. Nothing
            for the head in evaluation.
        """
        if self.as_two_stage:
            references_unact, features, head_inputs = self.propose(
                memory, memory_mask, level_shapes
            )
            query, query_pos = self.embed_proposals(references_unact, features)
            references = references_unact.sigmoid()
        else:
            query, query_pos = self._learned_queries(len(memory))
            references = widened(self.reference_points_fc(query_pos)).sigmoid()
            head_inputs = dict()
        groups = self.query_groups(query.shape[1])
        decoder_inputs = dict(
            query=query,
            query_pos=query_pos,
            memory=memory,
            reference_points=references,
            query_groups=groups,
        )
        if not self.training:
            return decoder_inputs, dict()
        return decoder_inputs, dict(query_groups=groups, **head_inputs)

    def gen_encoder_output_proposals(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        spatial_shapes: LevelShapes,
    ) -> tuple[Tensor, Tensor]:
        """Transform the memory and make an anchor of each of its points.

        Args:
            memory (Tensor): As in :meth:`pre_decoder`.
            memory_mask (Tensor, optional): As in :meth:`pre_decoder`.
            spatial_shapes (Sequence[tuple[int, int]]): (h, w) of each level.

        Returns:
            tuple[Tensor, Tensor]: The memory, has its shape, and log-odds of
            the anchors (cx, cy, w, h), infinite where there is none, has
            shape (bs, num_feat_points, 4).
        """
        if memory_mask is None:  # without it mmdet moves sizes to the device
            memory_mask = memory.new_zeros(memory.shape[:2], dtype=torch.bool)
        return super().gen_encoder_output_proposals(
            memory, memory_mask, spatial_shapes
        )

    def propose(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        level_shapes: LevelShapes,
    ) -> tuple[Tensor, Tensor, dict]:
        """First stage: proposals from the memory, and the choice of queries.

        Objectness is channel 0 of the last class head. In evaluation only
        this channel, and boxes of only the proposals that are looked at, are
        computed.

        Args:
            memory (Tensor): As in :meth:`pre_decoder`.
            memory_mask (Tensor, optional): As in :meth:`pre_decoder`.
            level_shapes (Sequence[tuple[int, int]]): As there.

        Returns:
            tuple[Tensor, Tensor, dict]: Log-odds of the chosen boxes, without
            gradient, best first, has shape (bs, num_queries, 4); the
            transformed memory there, without gradient, has shape
            (bs, num_queries, dim); and the first stage's outputs for the
            loss, empty in evaluation.
        """
        memory, anchors = self.gen_encoder_output_proposals(
            memory, memory_mask, level_shapes
        )
        cls_head = self.bbox_head.cls_branches[self.decoder.num_layers]
        reg_head = self.bbox_head.reg_branches[self.decoder.num_layers]
        if self.training:
            logits = apply_in_full_precision(cls_head, memory)
            boxes = reg_head(memory) + anchors
            scores = logits[..., 0]
            outputs = self.first_stage_outputs(logits, boxes, anchors)
        else:
            objectness = full_precision(F.linear)
            scores = objectness(memory, cls_head.weight[:1], cls_head.bias[:1])
            scores, outputs = scores[..., 0], dict()

        def boxes_of(points: Tensor) -> Tensor:
            if self.training:
                return gather_points(boxes.detach(), points)
            boxes_there = reg_head(gather_points(memory, points))
            return boxes_there + gather_points(anchors, points)

        chosen = self.choose_proposals(scores, boxes_of, level_shapes)
        features = gather_points(memory.detach(), chosen)
        return boxes_of(chosen), features, outputs

    def first_stage_outputs(
        self, logits: Tensor, boxes_unact: Tensor, anchors: Tensor
    ) -> dict:
        """What the head's loss takes of the first stage.

        Args:
            logits (Tensor): Has shape (bs, num_feat_points, num_classes).
            boxes_unact (Tensor): Log-odds of boxes (cx, cy, w, h), has shape
                (bs, num_feat_points, 4).
            anchors (Tensor): Log-odds of the anchors, infinite where there
                is none, has the same shape.

        Returns:
            dict: ``enc_outputs_class``, the logits, and
            ``enc_outputs_coord``, boxes (cx, cy, w, h) in [0, 1].
        """
        return dict(
            enc_outputs_class=logits, enc_outputs_coord=boxes_unact.sigmoid()
        )

    def choose_proposals(
        self,
        scores: Tensor,
        boxes_of: Callable[[Tensor], Tensor],
        level_shapes: LevelShapes,
    ) -> Tensor:
        """Pick as many points as there are queries, best first.

        An image with fewer points than queries gives all it has.

        Args:
            scores (Tensor): Objectness, has shape (bs, num_feat_points).
            boxes_of (Callable): Gives for points of shape (bs, n) the
                log-odds of their boxes, without gradient, shape (bs, n, 4).
            level_shapes (Sequence[tuple[int, int]]): (h, w) of each level.

        Returns:
            Tensor: Indices, has shape (bs, num_queries).
        """
        wanted = self.num_total_queries if self.training else self.num_queries
        available = scores.shape[1]
        if available < wanted and not self._told_small_input:
            self._told_small_input = True
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
    ) -> tuple[Tensor, Tensor]:
        """Content and position of the queries of chosen proposals.

        Args:
            references_unact (Tensor): Log-odds of boxes (cx, cy, w, h), has
                shape (bs, num_queries, 4).
            features (Tensor): Transformed memory at the proposals, for a
                method that puts it into the contents; has shape
                (bs, num_queries, dim).

        Returns:
            tuple[Tensor, Tensor]: ``query`` and ``query_pos``, each has shape
            (bs, num_queries, dim).
        """
        embedding = self.get_proposal_pos_embed(
            references_unact, num_pos_feats=self.embed_dims // 2
        )
        embedding = like_weights(embedding, self.pos_trans_fc)
        embedding = self.pos_trans_norm(self.pos_trans_fc(embedding))
        query_pos, query = embedding.chunk(2, dim=-1)
        return query, query_pos

    def _learned_queries(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Content and position of the queries without a first stage."""
        table = self.query_embedding.weight
        if not self.training:
            table = table[: self.num_queries]
        query_pos, query = (
            half.expand(batch_size, -1, -1) for half in table.chunk(2, dim=1)
        )
        return query, query_pos

    def query_groups(self, num_queries: int) -> QueryGroups | None:
        """Groups of the queries; by default all see each other.

        Args:
            num_queries (int): How many queries there are this time.
        """
        return None

    def refining_branches(
        self, query_groups: QueryGroups | None
    ) -> Sequence[nn.Module] | None:
        """Box heads that refine the references, one for each layer.

        Args:
            query_groups (QueryGroups, optional): Groups of the queries.

        Returns:
            Sequence[nn.Module] | None: None if references stay.
        """
        return self.bbox_head.reg_branches if self.with_box_refine else None

    def forward_decoder(
        self,
        query: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None,
        reference_points: Tensor,
        **kwargs,
    ) -> dict:
        """Decode the queries.

        Args:
            query (Tensor): Queries, has shape (bs, num_queries, dim).
            memory (Tensor): Encoded features, has shape
                (bs, num_feat_points, dim).
            memory_mask (Tensor, optional): True where padded, has shape
                (bs, num_feat_points).
            reference_points (Tensor): First references in [0, 1],
                (cx, cy) or (cx, cy, w, h), has shape
                (bs, num_queries, 2 or 4).
            **kwargs: Positions, groups and geometry for the decoder.

        Returns:
            dict: Keyword arguments of the head: ``hidden_states`` of shape
            (num_decoder_layers, bs, num_queries, dim), ``references``, a
            list that begins with the first references, and, if the decoder
            has auxiliary results, in training ``auxiliary``.
        """
        hidden_states, references, *auxiliary = self.decoder(
            query,
            value=memory,
            key_padding_mask=memory_mask,
            reference_points=reference_points,
            reg_branches=self.refining_branches(kwargs.get('query_groups')),
            cls_branches=self.bbox_head.cls_branches,
            **kwargs,
        )
        head_inputs = dict(
            hidden_states=hidden_states,
            references=[reference_points, *references],
        )
        if auxiliary:
            head_inputs['auxiliary'] = [
                AuxiliaryBranch(
                    self.auxiliary_prefix.format(i), head, hidden, weight
                )
                for i, (head, hidden, weight) in enumerate(
                    zip(
                        self.bbox_head_aux,
                        auxiliary,
                        self.aux_weights,
                        strict=True,
                    )
                )
            ]
        return head_inputs


def level_geometry(level_shapes: LevelShapes, device: torch.device) -> dict:
    """The level sizes in every form that the layers take.

    The tensors are made on the host and sent: ``torch.tensor`` with a device
    would halt the host until the device has caught up.

    Args:
        level_shapes (tuple[tuple[int, int]]): (h, w) of each level.
        device (torch.device): Where the tensors go.

    Returns:
        dict: ``level_shapes``; ``spatial_shapes``, the same as a tensor of
        shape (num_levels, 2); ``level_start_index``, the index of each
        level's first point, has shape (num_levels, ).
    """
    starts = accumulate((h * w for h, w in level_shapes[:-1]), initial=0)
    shapes, starts = torch.tensor(level_shapes), torch.tensor(list(starts))
    return dict(
        level_shapes=level_shapes,
        spatial_shapes=shapes.to(device, non_blocking=True),
        level_start_index=starts.to(device, non_blocking=True),
    )


def _flatten_levels(maps: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """Join maps of shape (bs, dim, h, w) to (bs, num_feat_points, dim)."""
    return torch.cat([m.flatten(2) for m in maps], 2).transpose(1, 2)
