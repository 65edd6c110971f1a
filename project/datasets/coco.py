# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS


@DATASETS.register_module()
class DETRCocoDataset(CocoDataset):
    """COCO data, trained on as in DETR's code and in detectron2.

    Each object of which a part lies within its image counts. ``CocoDataset``
    leaves out boxes that are narrower or lower than a pixel, and those with
    an ``area`` of 0 in the file, which need not be that of the box.

    Args:
        *args (Any): As of ``CocoDataset``.
        filter_cfg (dict, optional): As of ``CocoDataset``:
            ``filter_empty_gt`` leaves out images without objects, here also
            those with nothing but crowds, and ``min_size`` small images. With
            ``filter_ignored=False`` objects that the file tells to ``ignore``
            are trained on, as in the sources; by default they are left out.
        **kwargs (Any): As of ``CocoDataset``.
    """

    def parse_data_info(self, raw_data_info: dict) -> dict[str, Any]:
        """Turn an image and its annotations of the file into mmdet's form.

        Args:
            raw_data_info (dict): ``raw_img_info`` and ``raw_ann_info``, the
                entries of the file.

        Returns:
            dict[str, Any]: As of ``CocoDataset``, and ``num_annotated``, the
            number of objects of the classes in the file that are no crowds.
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
        """Tell whether an annotation is kept.

        Args:
            annotation (dict): An entry of the file.
            width (int): Of its image, in pixels.
            height (int): Of its image, in pixels.

        Returns:
            bool: Whether a part of its box lies within the image, and it is
            not one to be ignored.
        """
        filters_ignored = (self.filter_cfg or {}).get('filter_ignored', True)
        if filters_ignored and annotation.get('ignore', False):
            return False
        x, y, w, h = annotation['bbox']
        visible_width = min(x + w, width) - max(x, 0)
        visible_height = min(y + h, height) - max(y, 0)
        return visible_width > 0 and visible_height > 0

    def _instance(self, annotation: dict) -> dict[str, Any]:
        """Turn an annotation into mmdet's form."""
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
        """Leave out images as ``filter_cfg`` says.

        Returns:
            list[dict]: Those that are trained on; all in test mode.
        """
        kept = super().filter_data()
        filter_cfg = self.filter_cfg or {}
        if self.test_mode or not filter_cfg.get('filter_empty_gt', False):
            return kept
        return [info for info in kept if info['num_annotated']]
