# Copyright (c) mmdetr authors. All rights reserved.
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import SampleList
from torch import Tensor

from project.utils.errors import UserError


class ReaugmentationMixin(BaseDetector):
    """Detector that can be trained on two views of every image.

    Source: HPR, "Hybrid Proposal Refiner" (CVPR 2024), data re-augmentation.
    The weakly and the strongly augmented views form one batch.
    """

    def loss(
        self,
        batch_inputs: Tensor | dict[str, Tensor],
        batch_data_samples: SampleList | dict[str, SampleList],
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            batch_inputs (Tensor | dict[str, Tensor]): Images of shape
                (bs, 3, h, w), or a dict of these with the keys ``'weak'``
                and ``'strong'``.
            batch_data_samples (list[:obj:`DetDataSample`] | dict): Ground
                truth, in the same form.

        Returns:
            dict[str, Tensor]: Weighted losses.

        Raises:
            UserError: If a branch is missing, or their image sizes differ.
        """
        if isinstance(batch_inputs, dict):
            batch_inputs, batch_data_samples = _joined_branches(
                batch_inputs, batch_data_samples
            )
        return super().loss(batch_inputs, batch_data_samples)


def _joined_branches(
    inputs: dict[str, Tensor], samples: dict[str, SampleList]
) -> tuple[Tensor, SampleList]:
    """Join the weakly and strongly augmented views to one batch."""
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
