# Copyright (c) mmdetr authors. All rights reserved.
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample, OptSampleList
from torch import Tensor


class TensorModeMixin(BaseDetector):
    """Detector that needs only images in ``mode='tensor'``.

    Export, FLOPs counters and profilers call it without data samples.
    """

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None
    ) -> tuple[Tensor, ...]:
        """Compute the head's outputs; by default no image is padded."""
        if batch_data_samples is None:
            shape = tuple(batch_inputs.shape[-2:])
            meta = dict(img_shape=shape, batch_input_shape=shape)
            batch_data_samples = [
                DetDataSample(metainfo=meta) for _ in range(len(batch_inputs))
            ]
        return super()._forward(batch_inputs, batch_data_samples)
