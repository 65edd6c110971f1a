# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS
from mmdet.structures import OptSampleList
from torch import Tensor, nn

from project.utils.errors import UserError

from ..layers.transformer.dab_layers import LevelwiseDABDecoder
from ..utils.weight_init import xavier_init_matrices
from .denoising import DABDenoisingMixin
from .dn_deformable_detr import DNDeformableDETR


@MODELS.register_module()
class DNDeformableEncoderDETR(  # type: ignore[misc]  # other decoder inputs
    DABDenoisingMixin, DNDeformableDETR
):
    """DN-DETR with a multi-scale deformable encoder.

    Source: `DN-DETR <https://arxiv.org/abs/2203.01305>`_, the authors' code
    of DN-DAB-Deformable-DETR, "deformable encoder only". Queries and decoder
    are DN-DETR's; its dense cross-attention attends to each level separately.

    Args:
        num_patterns (int): Learned patterns for each anchor; 0 for one query
            without a pattern. Defaults to 0.
        *args, **kwargs: As in :class:`DNDeformableDETR`, except for
            ``uniform_anchors``.

    Raises:
        UserError: As in :class:`DNDeformableDETR`, and if
            ``uniform_anchors`` is True.
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

    def _init_transformer(self) -> None:
        """Initialize all matrices by Xavier.

        As in the authors' code, that includes sampling offsets and attention
        weights of the deformable encoder, which are 0 elsewhere.
        """
        parts: list[nn.Module] = [self.encoder, self.decoder]
        if self.patterns is not None:
            parts.append(self.patterns)
        xavier_init_matrices(*parts)
        self._finish_transformer()

    def pre_transformer(
        self,
        mlvl_feats: tuple[Tensor, ...],
        batch_data_samples: OptSampleList = None,
    ) -> tuple[dict, dict]:
        """Flatten the features, with inputs of dense attention.

        Arguments and results are those of :class:`BaseDeformableDETR`.
        """
        encoder_inputs, _ = super().pre_transformer(
            mlvl_feats, batch_data_samples
        )
        decoder_inputs = dict(
            memory_mask=encoder_inputs['feat_mask'],
            memory_pos=encoder_inputs['feat_pos'],
            level_shapes=encoder_inputs['level_shapes'],
        )
        return encoder_inputs, decoder_inputs
