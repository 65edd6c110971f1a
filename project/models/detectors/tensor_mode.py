# Copyright (c) mmdetr authors. All rights reserved.
from dataclasses import dataclass
from typing import Any

from mmdet.models.detectors import BaseDetector
from mmdet.structures import OptSampleList
from torch import Tensor


@dataclass(frozen=True)
class WholeImages:
    """Stands for the data samples of a batch in which no image is padded.

    One is enough for any number of images. ``DetDataSample`` copies its meta
    information, which the symbolic sizes of an export do not allow.

    Attributes:
        img_shape (tuple[int, int]): (h, w) of the images.
    """

    img_shape: tuple[int, int]

    @classmethod
    def of(cls, images: Tensor) -> list['WholeImages']:
        """Stand for images of shape (bs, channels, h, w)."""
        return [cls((images.shape[-2], images.shape[-1]))]

    @property
    def batch_input_shape(self) -> tuple[int, int]:
        """tuple[int, int]: The same."""
        return self.img_shape


class TensorModeMixin(BaseDetector):
    """Detector that needs only images in ``mode='tensor'``.

    Export, FLOPs counters and profilers call it without data samples.
    """

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None
    ) -> tuple[Tensor, ...]:
        """Compute the head's outputs; by default no image is padded."""
        samples: Any = batch_data_samples
        if samples is None:
            samples = WholeImages.of(batch_inputs)
        return super()._forward(batch_inputs, samples)

    def detect(self, batch_inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect objects in images without padding.

        Unlike ``predict`` it takes and returns tensors alone, whose sizes do
        not depend on what is found, so that it can be exported.

        Args:
            batch_inputs (Tensor): Preprocessed images, has shape
                (bs, 3, h, w).

        Returns:
            tuple[Tensor, Tensor, Tensor]: Boxes (x1, y1, x2, y2) in pixels
            of the images, has shape (bs, n, 4), scores and labels, best
            first, each has shape (bs, n). Where an image has fewer than n
            detections, boxes and scores are 0 and labels -1.
        """
        samples: Any = WholeImages.of(batch_inputs)
        features = self.extract_feat(batch_inputs)
        outputs = self.forward_transformer(features, samples)
        return self.bbox_head.detect(outputs['decoder_output'], samples)
