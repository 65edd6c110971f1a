# Copyright (c) mmdetr authors. All rights reserved.
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import SampleList
from torch import Tensor

from project.utils.errors import UserError


class ReaugmentationMixin(BaseDetector):
    """Detector that may be trained on two copies of every image at once.

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
