# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

import torch
from mmdet.models.detectors import DeformableDETR
from mmdet.models.layers import inverse_sigmoid
from mmdet.registry import MODELS
from torch import Tensor, nn

from project.utils.errors import UserError

from ..layers.dn_query_generator import with_indicator
from ..layers.transformer.dab_deformable_decoder import DABDeformableDecoder
from .base_deformable_detr import BaseDeformableDETR
from .denoising import DenoisingMixin


@MODELS.register_module()
class DNDeformableDETR(DenoisingMixin, BaseDeformableDETR):
    """DN-DAB-Deformable-DETR: anchor boxes as queries, with denoising.

    Source: `DN-DETR <https://arxiv.org/abs/2203.01305>`_, the authors' code
    of DN-DAB-Deformable-DETR, version 2. Unlike in DN-DETR, the matched
    queries have learned contents.

    Args:
        dn_cfg (dict, optional): Settings of :class:`DNQueryGenerator`.
        uniform_anchors (bool): Whether anchors are initialized uniformly over
            the image and contents with zeros, as in detrex, instead of both
            from the normal distribution. Defaults to False.
        *args, **kwargs: As in :class:`BaseDeformableDETR`.

    Raises:
        UserError: If ``as_two_stage`` is True or ``with_box_refine`` False.
    """

    decoder_class = DABDeformableDecoder
    learned_queries_are_points = False

    def __init__(
        self,
        *args: Any,
        dn_cfg: dict | None = None,
        uniform_anchors: bool = False,
        inverse_sigmoid_eps: float = 1e-3,
        with_box_refine: bool = True,
        as_two_stage: bool = False,
        **kwargs: Any,
    ) -> None:
        if as_two_stage or not with_box_refine:
            raise UserError(
                f'{type(self).__name__} has learned anchors that are refined: '
                'it needs as_two_stage=False and with_box_refine=True'
            )
        self.dn_cfg = dn_cfg
        self.uniform_anchors = uniform_anchors
        super().__init__(
            *args,
            inverse_sigmoid_eps=inverse_sigmoid_eps,
            with_box_refine=True,
            as_two_stage=False,
            **kwargs,
        )

    def _init_learned_queries(self) -> None:
        """Initialize contents, anchors and the denoising queries."""
        self.tgt_embed = nn.Embedding(self.num_queries, self.embed_dims - 1)
        self.refpoint_embed = nn.Embedding(self.num_queries, 4)
        self._init_denoising(self.dn_cfg)

    def init_weights(self) -> None:
        """Initialize weights of the transformer and other components."""
        super(DeformableDETR, self).init_weights()
        self._init_transformer()
        nn.init.normal_(self.level_embed)
        if self.uniform_anchors:
            nn.init.zeros_(self.tgt_embed.weight)
            anchors = torch.rand_like(self.refpoint_embed.weight)
            anchors = inverse_sigmoid(anchors).clamp(-3, 3)
            self.refpoint_embed.weight.data.copy_(anchors)

    def matched_queries(self) -> tuple[Tensor, Tensor]:
        """Contents and anchors of the matched queries.

        Returns:
            tuple[Tensor, Tensor]: Contents, has shape (num_queries, dim), and
            logits of boxes (cx, cy, w, h), has shape (num_queries, 4).
        """
        contents = with_indicator(self.tgt_embed.weight, 0)
        return contents, self.refpoint_embed.weight
