# Copyright (c) mmdetr authors. All rights reserved.
"""Bitmap masks that store only the region of each object."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import mmcv
import numpy as np
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes
from mmdet.structures.bbox.box_type import get_box_type
from mmdet.structures.mask import BitmapMasks


@dataclass
class Region:
    """The region of a mask outside of which it is 0.

    Args:
        x (int): First column.
        y (int): First row.
        bitmap (ndarray): Zeros and ones, has shape (h, w), which may be 0.
    """

    x: int
    y: int
    bitmap: np.ndarray

    @classmethod
    def around(cls, mask: np.ndarray) -> 'Region':
        """Bounding region of a mask."""
        columns, rows = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
        if not len(columns):
            return cls(0, 0, mask[:0, :0])
        y, x = rows[0], columns[0]
        # A view would keep the whole mask in memory.
        return cls(x, y, mask[y : rows[-1] + 1, x : columns[-1] + 1].copy())

    @property
    def place(self) -> tuple[slice, slice]:
        """tuple[slice, slice]: Its rows and columns in the mask."""
        height, width = self.bitmap.shape
        rows = slice(self.y, self.y + height)
        return rows, slice(self.x, self.x + width)

    def cropped(self, x: int, y: int, width: int, height: int) -> 'Region':
        """Part inside of a rectangle, relative to the rectangle's corner."""
        rows, columns = self.place
        x1, x2 = np.clip([columns.start - x, columns.stop - x], 0, width)
        y1, y2 = np.clip([rows.start - y, rows.stop - y], 0, height)
        left, top = x1 + x - self.x, y1 + y - self.y
        bitmap = self.bitmap[top : top + y2 - y1, left : left + x2 - x1]
        return Region(x1, y1, bitmap)

    def picked(self, rows: np.ndarray, columns: np.ndarray) -> 'Region':
        """Region of the mask indexed by ascending rows and columns."""
        own_rows, own_columns = self.place
        y1, y2 = np.searchsorted(rows, [own_rows.start, own_rows.stop])
        x1, x2 = np.searchsorted(
            columns, [own_columns.start, own_columns.stop]
        )
        bitmap = self.bitmap[rows[y1:y2] - self.y]
        return Region(x1, y1, bitmap[:, columns[x1:x2] - self.x])


class RegionMasks(BitmapMasks):
    """``BitmapMasks`` that store only the region of each object.

    Selecting, resizing, cropping, flipping, padding and copying take a
    fraction of the time, with the same pixels. Access to ``masks`` converts
    them to whole bitmaps for good.

    Args:
        regions (Sequence[Region]): Region of each object.
        height (int): Height of the masks in pixels.
        width (int): Width of the masks in pixels.
    """

    def __init__(
        self, regions: Sequence[Region], height: int, width: int
    ) -> None:
        self.height = int(height)
        self.width = int(width)
        self._regions: list[Region] | None = list(regions)

    @classmethod
    def of(cls, masks: BitmapMasks) -> 'RegionMasks':
        """Convert masks, unless they store regions."""
        if isinstance(masks, cls) and masks._regions is not None:
            return masks
        regions = [Region.around(mask) for mask in masks.masks]
        return cls(regions, masks.height, masks.width)

    @property
    def regions(self) -> list[Region]:
        """list[Region]: Region of each object."""
        regions = RegionMasks.of(self)._regions
        assert regions is not None  # as of() leaves it
        return regions

    @property
    def masks(self) -> np.ndarray:
        """ndarray: The bitmaps, of shape (num_objects, height, width)."""
        if self._regions is not None:
            masks = np.zeros(
                (len(self._regions), self.height, self.width), np.uint8
            )
            for mask, region in zip(masks, self._regions, strict=True):
                mask[region.place] = region.bitmap
            self.masks = masks
        return self._masks

    @masks.setter
    def masks(self, masks: np.ndarray) -> None:
        self._masks = masks
        self._regions = None

    def __len__(self) -> int:
        """Count the masks."""
        regions = self._regions
        return len(self._masks if regions is None else regions)

    def __getitem__(self, index: Any) -> BitmapMasks:
        """Select masks."""
        if self._regions is None:
            return super().__getitem__(index)
        chosen = np.arange(len(self))[index].reshape(-1)
        regions = [self._regions[i] for i in chosen]
        return RegionMasks(regions, self.height, self.width)

    @property
    def areas(self) -> np.ndarray:
        """ndarray: Number of pixels of each mask."""
        if self._regions is None:
            return super().areas
        areas = [region.bitmap.sum(dtype=int) for region in self._regions]
        return np.array(areas, dtype=int)

    def get_bboxes(self, dst_type: Any = 'hbb') -> BaseBoxes:
        """Bounding boxes of the masks; (0, 0, 0, 0) for empty ones."""
        kind = get_box_type(dst_type)[1]
        if self._regions is None or kind is not HorizontalBoxes:
            return super().get_bboxes(dst_type)
        boxes = np.zeros((len(self), 4), dtype=np.float32)
        for box, region in zip(boxes, self._regions, strict=True):
            tight = Region.around(region.bitmap)
            height, width = tight.bitmap.shape
            if height:
                x, y = region.x + tight.x, region.y + tight.y
                box[:] = x, y, x + width, y + height
        return HorizontalBoxes(boxes)

    def rescale(
        self, scale: Any, interpolation: str = 'nearest'
    ) -> BitmapMasks:
        """Resize masks to fit into a scale, as ``mmcv.imrescale`` does."""
        size = mmcv.rescale_size((self.width, self.height), scale)
        return self.resize(size[::-1], interpolation)

    def resize(
        self, out_shape: tuple[int, int], interpolation: str = 'nearest'
    ) -> BitmapMasks:
        """Resize masks to (height, width)."""
        if self._regions is None or interpolation != 'nearest':
            return super().resize(out_shape, interpolation)
        height, width = out_shape
        # OpenCV decides which pixels it samples.
        rows = cv2.resize(
            np.arange(self.height, dtype=np.float32)[:, None],
            (1, height),
            interpolation=cv2.INTER_NEAREST,
        )
        columns = cv2.resize(
            np.arange(self.width, dtype=np.float32)[None],
            (width, 1),
            interpolation=cv2.INTER_NEAREST,
        )
        picks = rows.reshape(-1).astype(int), columns.reshape(-1).astype(int)
        regions = [region.picked(*picks) for region in self._regions]
        return RegionMasks(regions, height, width)

    def flip(self, flip_direction: str = 'horizontal') -> BitmapMasks:
        """Flip masks."""
        if self._regions is None:
            return super().flip(flip_direction)
        is_x = flip_direction in ('horizontal', 'diagonal')
        is_y = flip_direction in ('vertical', 'diagonal')
        regions = []
        for region in self._regions:
            rows, columns = region.place
            x = self.width - columns.stop if is_x else region.x
            y = self.height - rows.stop if is_y else region.y
            steps = slice(None, None, -1 if is_y else 1)
            bitmap = region.bitmap[steps, :: -1 if is_x else 1]
            regions.append(Region(x, y, bitmap))
        return RegionMasks(regions, self.height, self.width)

    def pad(self, out_shape: tuple[int, int], pad_val: int = 0) -> BitmapMasks:
        """Enlarge masks to (height, width), at the right and the bottom."""
        if self._regions is None or pad_val:
            return super().pad(out_shape, pad_val)
        return RegionMasks(self._regions, *out_shape)

    def crop(self, bbox: np.ndarray) -> BitmapMasks:
        """Cut a rectangle (x1, y1, x2, y2) out of masks."""
        if self._regions is None:
            return super().crop(bbox)
        x1, x2 = np.clip(bbox[0::2], 0, self.width)
        y1, y2 = np.clip(bbox[1::2], 0, self.height)
        width, height = max(x2 - x1, 1), max(y2 - y1, 1)
        regions = [
            region.cropped(x1, y1, width, height) for region in self._regions
        ]
        return RegionMasks(regions, height, width)
