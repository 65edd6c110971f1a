# Copyright (c) mmdetr authors. All rights reserved.
import numpy as np
from mmcv.image.geometric import pillow_interp_codes
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS
from PIL import Image


@TRANSFORMS.register_module()
class AnyDepthResize(Resize):
    """``Resize`` for images that are not of 8 bits as well.

    With ``backend='pillow'`` mmcv takes only those, and stops where a
    transform before has made floats (``PhotoMetricDistortion``,
    ``to_float32=True``), at 16-bit images that are loaded unchanged, and at
    arrays of floats that are given to an inferencer. Their channels are
    resized here one by one with Pillow's filter for floats. Images of 8 bits
    come out as before, to the last bit.

    Takes the arguments of ``Resize`` and has its effects.
    """

    def _resize_img(self, results: dict) -> None:
        """Resize the image, of whatever type its numbers are."""
        image = results.get('img')
        if image is None or self.backend != 'pillow' or _is_8_bit(image):
            super()._resize_img(results)
            return
        # The parent finds the size, on a picture that it takes.
        results['img'] = np.zeros(image.shape[:2], np.uint8)
        super()._resize_img(results)
        size = results['img'].shape[1::-1]
        results['img'] = _resized(image, size, self.interpolation)


def _is_8_bit(image: np.ndarray) -> bool:
    return image.dtype == np.uint8


def _resized(
    image: np.ndarray, size: tuple[int, int], interpolation: str
) -> np.ndarray:
    """Resize an image to (width, height); its type stays."""
    channels = [
        Image.fromarray(channel.astype(np.float32)).resize(
            size, pillow_interp_codes[interpolation]
        )
        for channel in np.moveaxis(np.atleast_3d(image), -1, 0)
    ]
    resized = np.stack([np.asarray(part) for part in channels], axis=-1)
    if image.ndim == 2:
        resized = resized[..., 0]
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        # Filters that sharpen overshoot.
        resized = np.rint(resized).clip(limits.min, limits.max)
    return resized.astype(image.dtype)
