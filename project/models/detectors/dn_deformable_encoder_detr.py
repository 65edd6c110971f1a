# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS
from mmdet.structures import OptSampleList
from torch import Tensor, nn

from project.utils.errors import UserError

from ..layers.transformer.dab_layers import LevelwiseDABDecoder
from .denoising import DABDenoisingMixin
from .dn_deformable_detr import DNDeformableDETR


@MODELS.register_module()
class DNDeformableEncoderDETR(  # type: ignore[misc]  # other decoder inputs
    DABDenoisingMixin, DNDeformableDETR
):
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
        UserError: As in :class:`DNDeformableDETR`, or if
            ``uniform_anchors`` is asked for.
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
        """Draw all matrices from Xavier's distribution.

        The weights of offsets and attention of the deformable encoder do not
        stay 0 here, as in the authors' code.
        """
        parts: list[nn.Module] = [self.encoder, self.decoder]
        if self.patterns is not None:
            parts.append(self.patterns)
        for part in parts:
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        self._finish_transformer()

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
            ``forward_decoder``, which takes what dense attention needs.
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
