# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

import torch
from mmdet.models.detectors import DABDETR
from mmdet.models.layers import SinePositionalEncoding
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList
from torch import Tensor, nn

from ..layers.denoising import patterned_queries
from ..layers.transformer.dab_layers import DABDecoder, DABEncoder
from .denoising import DenoisingMixin


@MODELS.register_module()
class DNDETR(DenoisingMixin, DABDETR):
    """DAB-DETR that is also trained to denoise boxes, DN-DETR.

    Source: `DN-DETR: Accelerate DETR Training by Introducing Query DeNoising
    <https://arxiv.org/abs/2203.01305>`_.

    Matched queries are learned anchors whose content is the embedding of "no
    object" (and a learned pattern, if there are several for each anchor). In
    training noised ground truths are decoded with them, in groups that the
    matched queries do not see; in evaluation they do not exist.

    Args:
        dn_cfg (dict, optional): Settings of :class:`DNQueryGenerator`.
        inverse_sigmoid_eps (float): How close to 0 and 1 references may
            come before their log-odds are taken, in decoder and head.
            Defaults to 1e-3, as in both published codes.
        decoder_key_padding_mask (bool): Whether the decoder passes over
            padding. detrex's does not. Defaults to True.
        *args, **kwargs: As in mmdet's ``DABDETR``.
    """

    def __init__(
        self,
        *args: Any,
        decoder: dict,
        bbox_head: dict,
        dn_cfg: dict | None = None,
        inverse_sigmoid_eps: float = 1e-3,
        decoder_key_padding_mask: bool = True,
        **kwargs: Any,
    ) -> None:
        self.dn_cfg = dn_cfg
        self.decoder_key_padding_mask = decoder_key_padding_mask
        decoder = {**decoder, 'inverse_sigmoid_eps': inverse_sigmoid_eps}
        bbox_head = {**bbox_head, 'inverse_sigmoid_eps': inverse_sigmoid_eps}
        super().__init__(*args, decoder=decoder, bbox_head=bbox_head, **kwargs)

    def _init_layers(self) -> None:
        """Initialize layers except for backbone, neck and bbox_head."""
        self.positional_encoding = SinePositionalEncoding(
            **self.positional_encoding
        )
        self.encoder = DABEncoder(**self.encoder)
        self.decoder = DABDecoder(**self.decoder)
        self.embed_dims = self.encoder.embed_dims
        self.query_embedding = nn.Embedding(self.num_queries, 4)
        self.patterns = None
        if self.num_patterns:
            self.patterns = nn.Embedding(self.num_patterns, self.embed_dims)
        self._init_denoising(self.dn_cfg)

    def pre_transformer(
        self,
        img_feats: tuple[Tensor, ...],
        batch_data_samples: OptSampleList = None,
    ) -> tuple[dict, dict]:
        """Flatten the features and encode their positions.

        Args:
            img_feats (tuple[Tensor]): Features of the neck; the last, of
                shape (bs, dim, h, w), is used.
            batch_data_samples (list[:obj:`DetDataSample`]): Tell the size of
                each image within the batch.

        Returns:
            tuple[dict, dict]: Keyword arguments of ``forward_encoder`` and
            of ``forward_decoder``.
        """
        encoder_inputs, decoder_inputs = super().pre_transformer(
            img_feats, batch_data_samples
        )
        # Encoded in float32, whatever the precision of the model.
        position = encoder_inputs['feat_pos']
        dtype = torch.promote_types(img_feats[-1].dtype, position.dtype)
        position = position.to(dtype)
        encoder_inputs['feat_pos'] = decoder_inputs['memory_pos'] = position
        return encoder_inputs, decoder_inputs

    def pre_decoder(
        self, memory: Tensor, batch_data_samples: OptSampleList = None
    ) -> tuple[dict, dict]:
        """Build the matched and, in training, the denoising queries.

        Args:
            memory (Tensor): Encoded features, has shape
                (bs, num_feat_points, dim).
            batch_data_samples (list[:obj:`DetDataSample`], optional): Ground
                truth, needed in training.

        Returns:
            tuple[dict, dict]: Keyword arguments of ``forward_decoder``, and
            ``denoising`` for the head's loss.
        """
        contents, anchors = patterned_queries(
            self.dn_query_generator.no_object_content(),
            self.query_embedding.weight,
            self.patterns.weight if self.num_patterns else None,
        )
        decoder_inputs, head_inputs = self.join_queries(
            contents, anchors, memory, batch_data_samples
        )
        return dict(memory=memory, **decoder_inputs), head_inputs

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
            **kwargs: First references and groups of the queries.

        Returns:
            dict: Keyword arguments of the head: ``hidden_states`` of shape
            (num_decoder_layers, bs, num_queries, dim) and ``references``
            before each layer.
        """
        if not self.decoder_key_padding_mask:
            memory_mask = None
        hidden_states, references = self.decoder(
            query,
            memory,
            key_pos=memory_pos,
            key_padding_mask=memory_mask,
            reg_branch=self.bbox_head.fc_reg,
            **kwargs,
        )
        return dict(hidden_states=hidden_states, references=references)
