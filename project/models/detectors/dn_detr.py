# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.models.detectors import DABDETR
from mmdet.models.layers import SinePositionalEncoding
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList
from torch import Tensor

from project.utils.settings import Eps, PositiveCount, checked

from ..layers.transformer.dab_layers import DABDecoder, DABEncoder
from ..utils.own_weights import OwnWeightsMixin
from ..utils.precision import like_weights
from ..utils.weight_init import share_vectors
from .denoising import DABDenoisingMixin
from .finite_step import FiniteStepMixin
from .grey_images import GreyImagesMixin
from .tensor_mode import TensorModeMixin


@MODELS.register_module()
class DNDETR(
    FiniteStepMixin,
    GreyImagesMixin,
    OwnWeightsMixin,
    TensorModeMixin,
    DABDenoisingMixin,
    DABDETR,
):
    """DN-DETR: DAB-DETR that is also trained to denoise boxes.

    Source: `DN-DETR: Accelerate DETR Training by Introducing Query DeNoising
    <https://arxiv.org/abs/2203.01305>`_.

    Matched queries are learned anchors whose content is the embedding of "no
    object" (plus a learned pattern, if there are several for each anchor).
    Training adds groups of noised ground truths, which are masked from the
    matched queries.

    Args:
        dn_cfg (dict, optional): Settings of :class:`DNQueryGenerator`.
        inverse_sigmoid_eps (float): Eps of the references' inverse sigmoid.
            Defaults to 1e-3, as in the authors' code and detrex.
        decoder_key_padding_mask (bool): Whether the decoder masks padding,
            which detrex does not. Defaults to True.
        *args, **kwargs: As in mmdet's ``DABDETR``.
    """

    # Settings, which become modules when mmdet's constructor has them made.
    positional_encoding: Any
    encoder: Any
    decoder: Any

    @checked('model', num_queries=PositiveCount)
    def __init__(
        self,
        *args: Any,
        decoder: dict,
        bbox_head: dict,
        dn_cfg: dict | None = None,
        inverse_sigmoid_eps: Eps = 1e-3,
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
        self._init_learned_queries()

    def init_weights(self) -> None:
        """Initialize as mmdet does, with the same biases in all layers."""
        super().init_weights()
        share_vectors(self.encoder.layers)
        share_vectors(self.decoder.layers)

    def pre_transformer(
        self,
        img_feats: tuple[Tensor, ...],
        batch_data_samples: OptSampleList = None,
    ) -> tuple[dict, dict]:
        """Flatten the features and encode their positions.

        Args:
            img_feats (tuple[Tensor]): Features of the neck; only the last,
                of shape (bs, dim, h, w), is used.
            batch_data_samples (list[:obj:`DetDataSample`]): Hold the size of
                each image within the batch.

        Returns:
            tuple[dict, dict]: Keyword arguments of ``forward_encoder`` and
            of ``forward_decoder``.
        """
        encoder_inputs, decoder_inputs = super().pre_transformer(
            img_feats, batch_data_samples
        )
        # mmdet encodes in float32, whatever the precision of the model.
        position = like_weights(encoder_inputs['feat_pos'], self.encoder)
        encoder_inputs['feat_pos'] = decoder_inputs['memory_pos'] = position
        return encoder_inputs, decoder_inputs
