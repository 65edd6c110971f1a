# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS


@DATASETS.register_module()
class DETRCocoDataset(CocoDataset):
    """COCO data that keeps the same objects as DETR's code and detectron2.

    Every object with a part inside of its image is kept. ``CocoDataset`` drops
    boxes with a side under one pixel and those with ``area`` 0 in the file,
    which need not be the area of the box.

    Args:
        *args (Any): As in ``CocoDataset``.
        filter_cfg (dict, optional): As in ``CocoDataset``:
            ``filter_empty_gt`` drops images without objects, here also those
            with only crowds, and ``min_size`` small images. With
            ``filter_ignored=False`` objects marked ``ignore`` in the file are
            trained on, as in the sources; by default they are dropped.
        **kwargs (Any): As in ``CocoDataset``.
    """

    def parse_data_info(self, raw_data_info: dict) -> dict[str, Any]:
        """Convert an image and its annotations to mmdet's format.

        Args:
            raw_data_info (dict): ``raw_img_info`` and ``raw_ann_info``, the
                entries of the file.

        Returns:
            dict[str, Any]: As in ``CocoDataset``, and ``num_annotated``, the
            number of objects of the classes in the file without crowds.
        """
        annotations = [
            annotation
            for annotation in raw_data_info['raw_ann_info']
            if annotation['category_id'] in self.cat2label
        ]
        info = super().parse_data_info(dict(raw_data_info, raw_ann_info=[]))
        info['instances'] = [
            self._instance(annotation)
            for annotation in annotations
            if self.takes_part(annotation, info['width'], info['height'])
        ]
        info['num_annotated'] = sum(
            not annotation.get('iscrowd', False) for annotation in annotations
        )
        return info

    def takes_part(self, annotation: dict, width: int, height: int) -> bool:
        """Whether an annotation is kept.

        Args:
            annotation (dict): An entry of the file.
            width (int): Width of its image in pixels.
            height (int): Height of its image in pixels.

        Returns:
            bool: Whether a part of its box is inside of the image, and it is
            not ignored.
        """
        filters_ignored = (self.filter_cfg or {}).get('filter_ignored', True)
        if filters_ignored and annotation.get('ignore', False):
            return False
        x, y, w, h = annotation['bbox']
        visible_width = min(x + w, width) - max(x, 0)
        visible_height = min(y + h, height) - max(y, 0)
        return visible_width > 0 and visible_height > 0

    def _instance(self, annotation: dict) -> dict[str, Any]:
        """Convert an annotation to mmdet's format."""
        x, y, w, h = annotation['bbox']
        instance = dict(
            bbox=[x, y, x + w, y + h],
            bbox_label=self.cat2label[annotation['category_id']],
            ignore_flag=int(annotation.get('iscrowd') or 0),
        )
        if annotation.get('segmentation'):
            instance['mask'] = annotation['segmentation']
        return instance

    def filter_data(self) -> list[dict]:
        """Drop images according to ``filter_cfg``, except in test mode."""
        kept = super().filter_data()
        filter_cfg = self.filter_cfg or {}
        if self.test_mode or not filter_cfg.get('filter_empty_gt', False):
            return kept
        return [info for info in kept if info['num_annotated']]
