# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS
from mmdet.structures import OptSampleList
from torch import Tensor, nn

from project.utils.errors import UserError

from ..layers.denoising import patterned_queries
from ..layers.transformer.dab_layers import LevelwiseDABDecoder
from .dn_deformable_detr import DNDeformableDETR


@MODELS.register_module()
class DNDeformableEncoderDETR(DNDeformableDETR):
    """DN-DETR with a deformable encoder over several feature levels.

    Source: `DN-DETR <https://arxiv.org/abs/2203.01305>`_, the authors' code
    of DN-DAB-Deformable-DETR, "deformable encoder only". Queries and decoder
    are DN-DETR's; its dense cross-attention looks at each level by itself.

    Args:
        num_patterns (int): Patterns for each anchor; 0 for none, which is one
            without a content of its own. Defaults to 0.
        *args, **kwargs: As in :class:`DNDeformableDETR`, without
            ``uniform_anchors``.

    Raises:
        UserError: As there, or if ``uniform_anchors`` is asked for.
    """

    decoder_class = LevelwiseDABDecoder

    def __init__(
        self, *args: Any, num_patterns: int = 0, **kwargs: Any
    ) -> None:
        if kwargs.get('uniform_anchors'):
            raise UserError(
                'model.uniform_anchors=True is of DNDeformableDETR, whose '
                'queries have contents of their own; '
                f'{type(self).__name__} has none'
            )
        self.num_patterns = num_patterns
        super().__init__(*args, **kwargs)

    def _init_learned_queries(self) -> None:
        """Initialize anchors, patterns and the denoising queries."""
        self.query_embedding = nn.Embedding(self.num_queries, 4)
        self.patterns = None
        if self.num_patterns:
            self.patterns = nn.Embedding(self.num_patterns, self.embed_dims)
        self._init_denoising(self.dn_cfg)

    def _init_transformer(self) -> None:
        """Draw all matrices from Xavier's distribution.

        The weights of offsets and attention of the deformable encoder do not
        stay 0 here, as in the authors' code.
        """
        parts = [self.encoder, self.decoder]
        if self.patterns is not None:
            parts.append(self.patterns)
        for part in parts:
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def pre_transformer(
        self,
        mlvl_feats: tuple[Tensor, ...],
        batch_data_samples: OptSampleList = None,
    ) -> tuple[dict, dict]:
        """Flatten the features and encode their positions.

        Args:
            mlvl_feats (tuple[Tensor]): As in :class:`BaseDeformableDETR`.
            batch_data_samples (list[:obj:`DetDataSample`], optional): As
                there.

        Returns:
            tuple[dict, dict]: Keyword arguments of ``forward_encoder`` and of
            ``forward_decoder``, which needs the positions, too.
        """
        encoder_inputs, decoder_inputs = super().pre_transformer(
            mlvl_feats, batch_data_samples
        )
        decoder_inputs['memory_pos'] = encoder_inputs['feat_pos']
        return encoder_inputs, decoder_inputs

    def matched_queries(self) -> tuple[Tensor, Tensor]:
        """Contents and anchors of the matched queries.

        Returns:
            tuple[Tensor, Tensor]: Contents, has shape (num_queries, dim), and
            boxes (cx, cy, w, h) as log-odds, has shape (num_queries, 4).
        """
        return patterned_queries(
            self.dn_query_generator.no_object_content(),
            self.query_embedding.weight,
            self.patterns.weight if self.num_patterns else None,
        )

    def forward_decoder(
        self,
        query: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None,
        memory_pos: Tensor,
        **kwargs: Any,
    ) -> dict:
        """Decode the queries.

        Args:
            query (Tensor): Contents, has shape (bs, num_queries, dim).
            memory (Tensor): Encoded features, has shape
                (bs, num_feat_points, dim).
            memory_mask (Tensor, optional): True where padded, has shape
                (bs, num_feat_points).
            memory_pos (Tensor): Their positions, has the shape of
                ``memory``.
            **kwargs: References and groups of the queries, and geometry.

        Returns:
            dict: Keyword arguments of the head: ``hidden_states`` of shape
            (num_decoder_layers, bs, num_queries, dim) and ``references``
            before each layer.
        """
        names = ('reference_points', 'query_groups', 'level_shapes')
        hidden_states, references = self.decoder(
            query,
            memory,
            key_pos=memory_pos,
            key_padding_mask=memory_mask,
            reg_branch=self.bbox_head.fc_reg,
            **{name: kwargs[name] for name in names},
        )
        return dict(hidden_states=hidden_states, references=references)
