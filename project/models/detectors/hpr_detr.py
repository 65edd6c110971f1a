# Copyright (c) mmdetr authors. All rights reserved.
import torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor

from project.utils.errors import UserError

from ..layers.transformer import proposal_refiner  # noqa: F401, registers it
from .base_dino import BaseDINO


class ReaugmentedMixin:
    """Detector that is trained on two copies of every image at once.

    Source: HPR, "Hybrid Proposal Refiner" (CVPR 2024), data re-augmentation.
    One copy is augmented weakly, the other also strongly; both are one batch.
    """

    def loss(
        self,
        batch_inputs: Tensor | dict[str, Tensor],
        batch_data_samples: SampleList | dict[str, SampleList],
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            batch_inputs (Tensor | dict[str, Tensor]): Images of shape
                (bs, 3, h, w), or those of the branches ``'weak'`` and
                ``'strong'``.
            batch_data_samples (list[:obj:`DetDataSample`] | dict): Ground
                truth, in the same form.

        Returns:
            dict[str, Tensor]: Weighted losses.

        Raises:
            UserError: If a branch is missing, or the branches have images of
                different sizes.
        """
        if isinstance(batch_inputs, dict):
            batch_inputs, batch_data_samples = _joined_branches(
                batch_inputs, batch_data_samples
            )
        return super().loss(batch_inputs, batch_data_samples)


@MODELS.register_module()
class HPRDETR(ReaugmentedMixin, BaseDINO):
    """DINO with HPR's three refiners; Deformable DETR without denoising.

    Source: HPR, "Hybrid Proposal Refiner: Revisiting DETR Series from the
    Faster R-CNN Perspective" (CVPR 2024). The refiners are the decoder's
    layers, :class:`ProposalRefinerLayer`; each of the auxiliary ones has a
    head and losses of its own.

    Args:
        *args, **kwargs: As in :class:`BaseDINO`. ``use_lsj`` of the authors'
            configs, which never had an effect, may be given.
        ckpt_backbone, ckpt_neck (bool): Of the authors' configs: must be
            False, as it is in all of them.

    Raises:
        UserError: If backbone or neck are to be checkpointed.
    """

    auxiliary_prefix = 'hpr_{}_'

    def __init__(
        self,
        *args,
        use_lsj: bool = False,
        ckpt_backbone: bool = False,
        ckpt_neck: bool = False,
        **kwargs,
    ) -> None:
        if ckpt_backbone or ckpt_neck:
            raise UserError(
                'model.ckpt_backbone and model.ckpt_neck should be False; to '
                'save memory set model.backbone.with_cp=True'
            )
        super().__init__(*args, **kwargs)

    def is_drawn(self, name: str) -> bool:
        """Mergers start as plain sums; see :class:`BaseDeformableDETR`."""
        return 'merger' not in name


def _joined_branches(
    inputs: dict[str, Tensor], samples: dict[str, SampleList]
) -> tuple[Tensor, SampleList]:
    """Make one batch of the weakly and strongly augmented copies."""
    if inputs.keys() != {'weak', 'strong'}:
        raise UserError(
            f'the training pipeline gives the branches {sorted(inputs)}; '
            "expected 'weak' and 'strong'"
        )
    branches = [inputs['weak'], inputs['strong']]
    shapes = [tuple(images.shape[-2:]) for images in branches]
    if shapes[0] != shapes[1]:
        raise UserError(
            'the weak and strong copies of the images are padded to the '
            f'different sizes {shapes[0]} and {shapes[1]}; strong '
            'augmentations must keep the size'
        )
    return torch.cat(branches), [*samples['weak'], *samples['strong']]
