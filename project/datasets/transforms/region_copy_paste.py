# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

import numpy as np
import pycocotools.mask
from mmdet.datasets.transforms import CopyPaste, LoadAnnotations
from mmdet.registry import TRANSFORMS

from .region_masks import Region, RegionMasks


@TRANSFORMS.register_module()
class LoadRegionAnnotations(LoadAnnotations):
    """``LoadAnnotations`` with masks as :class:`RegionMasks`.

    Args:
        *args, **kwargs: As in ``LoadAnnotations``.
    """

    def _load_masks(self, results: dict) -> None:
        """Rasterize polygons and RLE, and keep the regions of the objects."""
        height, width = results['ori_shape']
        regions = []
        for mask in self._process_masks(results):
            if isinstance(mask, list):
                rles = pycocotools.mask.frPyObjects(mask, height, width)
                mask = pycocotools.mask.merge(rles)
            regions.append(Region.around(self._poly2mask(mask, height, width)))
        results['gt_masks'] = RegionMasks(regions, height, width)


@TRANSFORMS.register_module()
class RegionCopyPaste(CopyPaste):
    """mmdet's ``CopyPaste``, faster by processing only regions of objects.

    Pixels, boxes, labels and masks are the same for the same random numbers.

    Args:
        *args, **kwargs: As in ``CopyPaste``.
        keep_masks (bool): Whether to output masks, which detectors of boxes
            do not need. Defaults to False.
    """

    def __init__(
        self, *args: Any, keep_masks: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.keep_masks = keep_masks

    def transform(self, results: dict) -> dict:
        """Paste objects of another image.

        Args:
            results (dict): Image and annotations; those of the other image
                are in ``mix_results``.

        Returns:
            dict: Image and annotations with the pasted objects.
        """
        results = super().transform(results)
        if not self.keep_masks:
            results.pop('gt_masks', None)
        return results

    def _copy_paste(self, dst_results: dict, src_results: dict) -> dict:
        """Paste all objects of ``src_results``."""
        boxes = src_results['gt_bboxes']
        if not len(boxes):
            return dst_results
        pasted = RegionMasks.of(src_results['gt_masks'])
        covered = np.zeros((pasted.height, pasted.width), dtype=bool)
        for region in pasted.regions:
            covered[region.place] |= region.bitmap.astype(bool)
        own = RegionMasks.of(self.get_gt_masks(dst_results))
        seen = RegionMasks(
            [
                Region(r.x, r.y, np.where(covered[r.place], 0, r.bitmap))
                for r in own.regions
            ],
            own.height,
            own.width,
        )
        own_boxes = dst_results['gt_bboxes']
        seen_boxes = seen.get_bboxes(type(own_boxes))
        moved = (seen_boxes.tensor - own_boxes.tensor).abs()
        is_kept = (moved <= self.bbox_occluded_thr).all(-1).numpy()
        is_kept |= seen.areas > self.mask_occluded_thr

        image = dst_results['img'].copy()
        image[covered] = src_results['img'][covered]
        dst_results['img'] = image
        dst_results['gt_bboxes'] = boxes.cat([seen_boxes[is_kept], boxes])
        for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
            parts = [dst_results[key][is_kept], src_results[key]]
            dst_results[key] = np.concatenate(parts)
        regions = [*seen[is_kept].regions, *pasted.regions]
        dst_results['gt_masks'] = RegionMasks(regions, own.height, own.width)
        return dst_results

    def __repr__(self) -> str:
        return super().__repr__()[:-1] + f', keep_masks={self.keep_masks})'
