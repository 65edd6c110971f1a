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
    """``Resize`` for images of any bit depth, with one more backend.

    With ``backend='pillow'`` mmcv supports only 8-bit images and fails for
    floats (after ``PhotoMetricDistortion``, with ``to_float32=True`` or from
    an inferencer) and for 16-bit images. Here their channels are resized one
    by one with Pillow's filter for floats; 8-bit images are equal to mmcv's.

    ``backend='torch'`` uses PyTorch's antialiasing filter, which is at most
    one grey level off Pillow's for 8-bit images and five times as fast.

    The other arguments are those of ``Resize``.

    Raises:
        UserError: If torch does not support ``interpolation``.
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
        """Resize the image, of any dtype."""
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
    """Resize an image to (width, height) and keep its dtype."""
    is_kept = _is_8_bit(image)
    pixels = np.atleast_3d(image if is_kept else image.astype(np.float32))
    # A channels-last view, which is fastest in torch.
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
    """Resize an image to (width, height) and keep its dtype."""
    channels = [
        Image.fromarray(channel.astype(np.float32)).resize(
            size, pillow_interp_codes[interpolation]
        )
        for channel in np.moveaxis(np.atleast_3d(image), -1, 0)
    ]
    resized = np.stack([np.asarray(part) for part in channels], axis=-1)
    return _like(resized, image)


def _like(resized: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Convert pixels to the dtype and number of axes of an image."""
    if image.ndim == 2:
        resized = resized[..., 0]
    if np.issubdtype(image.dtype, np.integer) and not _is_8_bit(resized):
        limits = np.iinfo(image.dtype)
        # Sharpening filters overshoot.
        resized = np.rint(resized).clip(limits.min, limits.max)
    return resized.astype(image.dtype, copy=False)
