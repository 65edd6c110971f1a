# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.image.geometric import pillow_interp_codes
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS
from PIL import Image

from project.utils.errors import UserError

_TORCH_FILTERS = ('bilinear', 'bicubic')


@TRANSFORMS.register_module()
class AnyDepthResize(Resize):
    """``Resize`` with a backend more, and for images of more than 8 bits.

    With ``backend='pillow'`` mmcv takes only those of 8 bits, and stops where
    a transform before has made floats (``PhotoMetricDistortion``,
    ``to_float32=True``), at 16-bit images that are loaded unchanged, and at
    arrays of floats that are given to an inferencer. Their channels are
    resized here one by one with Pillow's filter for floats. Images of 8 bits
    come out as before, to the last bit.

    ``backend='torch'`` smooths as Pillow does when it shrinks, by PyTorch's
    filter: 8 bits are at most one grey level off, in a fifth of the time.

    Takes the other arguments of ``Resize`` and has its effects.

    Raises:
        UserError: If torch has no such ``interpolation``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.backend == 'torch' and (
            self.interpolation not in _TORCH_FILTERS
        ):
            raise UserError(
                f'interpolation={self.interpolation!r} of '
                f'{type(self).__name__} should be one of {_TORCH_FILTERS} '
                "with backend='torch'"
            )

    def _resize_img(self, results: dict) -> None:
        """Resize the image, of whatever type its numbers are."""
        image = results.get('img')
        is_torch = self.backend == 'torch'
        is_deep = self.backend == 'pillow' and not _is_8_bit(image)
        if image is None or not (is_torch or is_deep):
            super()._resize_img(results)
            return
        height, width = image.shape[:2]
        size = results['scale']
        if self.keep_ratio:
            size = mmcv.rescale_size((width, height), size)
        resize = _resized_by_torch if is_torch else _resized_by_pillow
        results['img'] = resize(image, size, self.interpolation)
        results['img_shape'] = results['img'].shape[:2]
        results['scale_factor'] = (size[0] / width, size[1] / height)
        results['keep_ratio'] = self.keep_ratio


def _is_8_bit(image: np.ndarray | None) -> bool:
    return image is not None and image.dtype == np.uint8


def _resized_by_torch(
    image: np.ndarray, size: tuple[int, int], interpolation: str
) -> np.ndarray:
    """Resize an image to (width, height); its type stays."""
    is_kept = _is_8_bit(image)
    pixels = np.atleast_3d(image if is_kept else image.astype(np.float32))
    # A view, whose channels come last in memory: what torch is fast with.
    pixels = np.require(pixels, requirements=('C', 'W'))
    batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = F.interpolate(
        batch, size[::-1], mode=interpolation, antialias=True
    )
    array = resized[0].permute(1, 2, 0).numpy()
    return _like(np.ascontiguousarray(array), image)


def _resized_by_pillow(
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
    return _like(resized, image)


def _like(resized: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Give numbers the type and the number of axes of an image."""
    if image.ndim == 2:
        resized = resized[..., 0]
    if np.issubdtype(image.dtype, np.integer) and not _is_8_bit(resized):
        limits = np.iinfo(image.dtype)
        # Filters that sharpen overshoot.
        resized = np.rint(resized).clip(limits.min, limits.max)
    return resized.astype(image.dtype, copy=False)
