# Copyright (c) mmdetr authors. All rights reserved.
"""Converts images of any kind to the form that pipelines take."""

import os
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from project.utils.errors import UserError

CHANNEL_ORDERS = ('rgb', 'bgr')
_EXPECTED = (
    'expected (height, width), (height, width, 3) or (height, width, 4)'
)


def is_path(image: Any) -> bool:
    """Return whether an image is given by its path."""
    return isinstance(image, (str, os.PathLike))


def pixels_of(image: Any, channel_order: str = 'rgb') -> np.ndarray:
    """Convert an image in memory to RGB pixels.

    Args:
        image (PIL.Image | np.ndarray | Tensor): PIL images are rotated as
            their EXIF data say. Arrays have shape (h, w), (h, w, 1),
            (h, w, 3) or (h, w, 4), whose alpha channel is dropped; tensors
            are channels-first. Values are uint8, uint16 (of which the upper
            8 bits are used, as when OpenCV reads a file), bool, other
            integers from 0 to 255, or floats from 0 to 1.
        channel_order (str): Channel order of arrays and tensors, ``'rgb'``
            or ``'bgr'``. Defaults to ``'rgb'``.

    Returns:
        np.ndarray: (h, w, 3), uint8, RGB.

    Raises:
        UserError: If it is anything else.
    """
    if channel_order not in CHANNEL_ORDERS:
        raise UserError(
            f'channel_order is {channel_order!r}; expected one of '
            f'{CHANNEL_ORDERS}.'
        )
    if isinstance(image, Image.Image):
        return _of_pil(image)
    if isinstance(image, Tensor):
        image = _of_tensor(image)
    if not isinstance(image, np.ndarray):
        raise UserError(
            f'An image is a {type(image).__name__}; expected a path, an image '
            'of PIL, an array or a tensor, or a list of them.'
        )
    pixels = _three_channels(_eight_bits(image))
    return pixels[..., ::-1] if channel_order == 'bgr' else pixels


def _of_pil(image: Image.Image) -> np.ndarray:
    """Convert a PIL image of any mode."""
    image = ImageOps.exif_transpose(image)
    if image.mode == 'I' or image.mode.startswith('I;16'):
        pixels = np.asarray(image)
        return _three_channels(_eight_bits(pixels.astype(np.uint16)))
    if image.mode == 'F':
        return _three_channels(_eight_bits(np.asarray(image)))
    return np.asarray(image.convert('RGB'))


def _of_tensor(tensor: Tensor) -> np.ndarray:
    """Put the channels of a tensor last."""
    if tensor.is_floating_point():
        tensor = tensor.float()
    array = tensor.detach().cpu().numpy()
    if array.ndim == 3:
        if array.shape[0] not in (1, 3, 4):
            raise UserError(
                f'A tensor has the shape {array.shape}; expected its channels '
                'first, (3, height, width).'
            )
        array = array.transpose(1, 2, 0)
    return array


def _three_channels(pixels: np.ndarray) -> np.ndarray:
    """Repeat a grey channel; drop an alpha channel."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise UserError(f'An image has the shape {pixels.shape}; {_EXPECTED}.')
    if not pixels.size:
        raise UserError(f'An image of the shape {pixels.shape} has no pixels.')
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    return pixels[..., :3]


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Scale values to the range from 0 to 255."""
    kind = pixels.dtype.kind
    if pixels.dtype == np.uint8 or not pixels.size:
        return pixels
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    if kind == 'b':
        return pixels.astype(np.uint8) * 255
    if kind not in 'fiu':
        raise UserError(f'An image holds {pixels.dtype}; expected numbers.')
    limit, low, high = (1 if kind == 'f' else 255), pixels.min(), pixels.max()
    if not (low >= 0 and high <= limit):  # NaN is not, either
        raise UserError(
            f'An image of {pixels.dtype} holds numbers from {low:g} to '
            f'{high:g}; expected 0 to {limit}. Undo a normalisation, or '
            'give it as uint8.'
        )
    scaled = np.rint(pixels * 255) if kind == 'f' else pixels
    return scaled.astype(np.uint8)
