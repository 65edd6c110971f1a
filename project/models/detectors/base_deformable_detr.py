# Copyright (c) mmdetr authors. All rights reserved.
"""Base class of the detectors on Deformable DETR's transformer."""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.detectors import DeformableDETR
from mmdet.models.layers import SinePositionalEncoding
from mmdet.structures import OptSampleList
from torch import Tensor, nn

from project.utils.errors import UserError
from project.utils.settings import Eps, NonNegative, PositiveCount, checked

from ..layers.recomputation import recompute_layers
from ..layers.transformer.deformable_attention import LevelShapes
from ..layers.transformer.deformable_layers import (
    BoxRefinementDecoder,
    DeformableEncoder,
)
from ..layers.transformer.feature_levels import (
    flatten_levels,
    level_geometry,
    level_masks,
)
from ..layers.transformer.query_groups import QueryGroups
from ..utils.box_ops import image_sizes
from ..utils.own_weights import OwnWeightsMixin
from ..utils.precision import widened
from ..utils.weight_init import (
    SelfInitialized,
    share_vectors,
    xavier_init_matrices,
)
from .auxiliary_heads import AuxiliaryHeadsMixin
from .finite_step import FiniteStepMixin
from .first_stage import FirstStageMixin
from .grey_images import GreyImagesMixin
from .reaugmentation import ReaugmentationMixin
from .tensor_mode import TensorModeMixin


class BaseDeformableDETR(
    FiniteStepMixin,
    GreyImagesMixin,
    OwnWeightsMixin,
    TensorModeMixin,
    ReaugmentationMixin,
    FirstStageMixin,
    AuxiliaryHeadsMixin,
    DeformableDETR,
):
    """Deformable DETR whose stages a method can override one by one.

    The stages (``pre_transformer``, ``forward_encoder``, ``pre_decoder``,
    ``forward_decoder``) and the parameter names are mmdet's. In addition,
    level sizes are passed as integers, the decoder can look forward twice,
    queries come in groups, and the first stage and the construction of the
    queries are methods of their own.

    Args:
        inverse_sigmoid_eps (float): Eps of the references' inverse sigmoid
            in the head and, by default, in the decoder: 1e-5 in the authors'
            repositories, 1e-3 in detrex. Defaults to 1e-5.
        proposal_selector (dict, optional): Config of the module that selects
            the proposals of the first stage, such as ``LevelNMSSelector``.
            By default the top-k proposals are selected.
        aux_weights (Sequence[float]): Loss weight of each auxiliary output
            of the decoder's layers; each output gets its own copy of the
            head. Defaults to none.
        ckpt_backbone (bool): Whether to use activation checkpointing in the
            backbone, see :func:`recompute_layers`. A backbone that supports
            ``with_cp`` checkpoints block by block, which saves more memory.
            Defaults to False.
        ckpt_neck (bool): Whether to use it in the neck. Defaults to False.
        *args, **kwargs: As in mmdet's ``DeformableDETR``; ``num_cp`` of
            ``encoder`` and ``decoder`` is their number of checkpointed
            layers.

    Raises:
        UserError: If settings contradict each other, such as
            ``look_forward_twice`` without ``with_box_refine``.
    """

    # Settings, which become modules when mmdet's constructor has them made.
    positional_encoding: Any
    encoder: Any
    decoder: Any

    decoder_class: type = BoxRefinementDecoder
    layers_share_vectors = True
    """Whether the layers of encoder and decoder start with the same biases,
    as in code derived from the official Deformable DETR; see
    :func:`share_vectors`."""

    @checked('model', num_queries=PositiveCount)
    def __init__(
        self,
        *args: Any,
        decoder: dict,
        bbox_head: dict,
        inverse_sigmoid_eps: Eps = 1e-5,
        proposal_selector: dict | None = None,
        aux_weights: Sequence[NonNegative] = (),
        ckpt_backbone: bool = False,
        ckpt_neck: bool = False,
        **kwargs: Any,
    ) -> None:
        decoder = {'inverse_sigmoid_eps': inverse_sigmoid_eps, **decoder}
        bbox_head = {**bbox_head, 'inverse_sigmoid_eps': inverse_sigmoid_eps}
        super().__init__(*args, decoder=decoder, bbox_head=bbox_head, **kwargs)
        if decoder.get('look_forward_twice') and not self.with_box_refine:
            raise UserError(
                'decoder.look_forward_twice=True needs with_box_refine=True: '
                'without refinement there is no later box to look at'
            )
        self._init_proposal_selector(proposal_selector)
        if ckpt_neck and not self.with_neck:
            raise UserError('model.ckpt_neck=True needs a model.neck')
        recompute_layers([self.backbone], int(ckpt_backbone))
        if ckpt_neck:
            recompute_layers([self.neck], 1)
        self._check_detection_count()
        self._init_auxiliary_heads(aux_weights)

    def _check_detection_count(self) -> None:
        """Refuse ``max_per_img`` above what the queries can give.

        DETRRunner does so earlier; this is for models built without it.
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
        """Initialize as mmdet does, with the same biases in all layers."""
        super().init_weights()
        self._finish_transformer()

    def _init_transformer(self) -> None:
        """Initialize matrices by Xavier, deformable attention as mmcv does.

        For detectors that initialize their queries differently from mmdet.
        """
        xavier_init_matrices(self.encoder, self.decoder)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()
        self._finish_transformer()

    def _finish_transformer(self) -> None:
        """Initialize what Xavier must not overwrite."""
        for module in self.decoder.modules():
            if isinstance(module, SelfInitialized):
                module.init_weights()
        if self.layers_share_vectors:
            share_vectors(self.encoder.layers)
            share_vectors(self.decoder.layers)

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
            batch_data_samples (list[:obj:`DetDataSample`], optional): Hold
                the size of each image within the batch; needed by proposal
                refiners. By default no image is padded.

        Returns:
            tuple[dict, dict]: Keyword arguments of ``forward_encoder`` and
            of ``forward_decoder``.
        """
        masks = level_masks(mlvl_feats, batch_data_samples)
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
            shape = (mlvl_feats[0].shape[0], len(mlvl_feats), 2)
            ratios = mlvl_feats[0].new_ones(shape)
        else:
            padding = [mask for mask in masks if mask is not None]
            feat_mask = torch.cat([mask.flatten(1) for mask in padding], 1)
            ratios = torch.stack([self.get_valid_ratio(m) for m in padding], 1)
        geometry = level_geometry(
            tuple((feat.shape[-2], feat.shape[-1]) for feat in mlvl_feats),
            mlvl_feats[0].device,
        )
        encoder_inputs_dict = dict(
            feat=flatten_levels(mlvl_feats),
            feat_mask=feat_mask,
            feat_pos=flatten_levels(positions),
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

    def forward_encoder(
        self,
        feat: Tensor,
        feat_mask: Tensor | None,
        feat_pos: Tensor,
        level_shapes: LevelShapes,
        **kwargs: Any,
    ) -> dict:
        """Encode the features.

        Args:
            feat (Tensor): Features, has shape (bs, num_feat_points, dim).
            feat_mask (Tensor, optional): True where padded, has shape
                (bs, num_feat_points).
            feat_pos (Tensor): Positional encoding, has the shape of
                ``feat``.
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
        batch_data_samples: OptSampleList = None,
    ) -> tuple[dict, dict]:
        """Select proposals and build the queries from them.

        Args:
            memory (Tensor): Encoded features, has shape
                (bs, num_feat_points, dim).
            memory_mask (Tensor, optional): True where padded, has shape
                (bs, num_feat_points).
            level_shapes (Sequence[tuple[int, int]]): (h, w) of each level.
            batch_data_samples (list, optional): Ground truth, for denoising.

        Returns:
            tuple[dict, dict]: Keyword arguments of ``forward_decoder``, and
            of the head: ``first_stage`` if ``as_two_stage``.
        """
        head_inputs = dict()
        if self.as_two_stage:
            first_stage = self.propose(memory, memory_mask, level_shapes)
            query, query_pos = self.embed_proposals(
                first_stage.references_unact, first_stage.features
            )
            references = first_stage.references_unact.sigmoid()
            head_inputs['first_stage'] = first_stage
        else:
            query, query_pos = self._learned_queries(memory.shape[0])
            references = widened(self.reference_points_fc(query_pos)).sigmoid()
        decoder_inputs = dict(
            query=query,
            query_pos=query_pos,
            memory=memory,
            reference_points=references,
            query_groups=self.query_groups(query.shape[1]),
        )
        return decoder_inputs, head_inputs

    def _learned_queries(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Content and position of the queries if there is no first stage."""
        table = self.query_embedding.weight
        if not self.training:
            table = table[: self.num_queries]
        query_pos, query = table.expand(batch_size, -1, -1).chunk(2, dim=2)
        return query, query_pos

    def query_groups(self, num_queries: int) -> QueryGroups | None:
        """Groups of the queries; by default one, in which all attend to all.

        Args:
            num_queries (int): Number of queries of this batch.
        """
        return None

    def refining_branches(
        self, query_groups: QueryGroups | None
    ) -> Sequence[nn.Module] | None:
        """Box heads that refine the references, one for each layer.

        Args:
            query_groups (QueryGroups, optional): Groups of the queries.

        Returns:
            Sequence[nn.Module] | None: None without box refinement.
        """
        return self.bbox_head.reg_branches if self.with_box_refine else None

    def forward_decoder(
        self,
        query: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None,
        reference_points: Tensor,
        **kwargs: Any,
    ) -> dict:
        """Decode the queries.

        Args:
            query (Tensor): Queries, has shape (bs, num_queries, dim).
            memory (Tensor): Encoded features, has shape
                (bs, num_feat_points, dim).
            memory_mask (Tensor, optional): True where padded, has shape
                (bs, num_feat_points).
            reference_points (Tensor): Initial references in [0, 1],
                (cx, cy) or (cx, cy, w, h), has shape
                (bs, num_queries, 2 or 4).
            **kwargs: Positions, groups and geometry for the decoder.

        Returns:
            dict: Keyword arguments of the head: ``decoder_output`` and, if
            the decoder has auxiliary outputs, ``auxiliary``.
        """
        decoder_output = self.decoder(
            query,
            value=memory,
            key_padding_mask=memory_mask,
            reference_points=reference_points,
            reg_branches=self.refining_branches(kwargs.get('query_groups')),
            cls_branches=self.bbox_head.cls_branches,
            **kwargs,
        )
        head_inputs = dict(decoder_output=decoder_output)
        if decoder_output.auxiliary:
            head_inputs['auxiliary'] = self.auxiliary_branches(decoder_output)
        return head_inputs
