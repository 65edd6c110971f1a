# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.models.detectors import BaseDetector


class GreyImagesMixin(BaseDetector):
    """Detector of colour images that also accepts grey arrays.

    mmdet loads grey files with three channels, but an array of shape (h, w)
    that is passed to ``DetInferencer`` reaches the model with one.
    """

    def test_step(self, data: dict | tuple | list) -> list:
        """Detect objects in images.

        Args:
            data (dict | tuple | list): As in mmengine.

        Returns:
            list[:obj:`DetDataSample`]: The images with their detections.
        """
        return super().test_step(self._in_colour(data))

    def _in_colour(self, data: Any) -> Any:
        """Repeat the channel of grey images if the mean has three channels."""
        preprocessor: Any = self.data_preprocessor
        # That of each branch, where training images have two.
        preprocessor = getattr(preprocessor, 'data_preprocessor', preprocessor)
        mean = getattr(preprocessor, 'mean', ())
        inputs = data.get('inputs') if isinstance(data, dict) else None
        if len(mean) != 3 or not isinstance(inputs, list):
            return data
        colour = [
            image.expand(3, -1, -1) if len(image) == 1 else image
            for image in inputs
        ]
        return {**data, 'inputs': colour}
