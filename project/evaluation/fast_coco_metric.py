# Copyright (c) mmdetr authors. All rights reserved.
import json
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.fileio import put_text
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from project.utils.coco_metrics import AP_ITEMS, RECALL_ITEMS

from .hotcoco_eval import HotCOCOeval, has_hotcoco, is_countable


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """mmdet's ``CocoMetric``, with box metrics computed by hotcoco.

    Without hotcoco (``pip install hotcoco``), for masks, and for annotations
    whose ids are not positive integers, it falls back to the slower
    ``CocoMetric``. The results are the same, but for ``classwise`` where the
    category ids of a file do not ascend: ``CocoMetric`` confuses the classes
    then.

    Args:
        *args, **kwargs: As in ``CocoMetric``.
    """

    cat_ids: list[int] | None
    img_ids: list[int] | None

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics of all images.

        Args:
            results (list[tuple[dict, dict]]): Ground truth and prediction of
                each image, from ``CocoMetric.process``.

        Returns:
            dict[str, float]: The metrics under the names of ``CocoMetric``;
            those of single classes come last.
        """
        values = self._compute(results)
        # ``save_best='auto'`` chooses by the first, which is to be the mAP.
        return dict(sorted(values.items(), key=_is_of_a_class))

    def _compute(self, results: list) -> dict[str, float]:
        """Compute them by hotcoco or pycocotools."""
        if self._coco_api is not None:
            results = self._with_sorted_categories(results)
        if not self._is_fast(results):
            return super().compute_metrics(results)
        predictions = [prediction for _, prediction in results]
        if self.img_ids is None:
            self.img_ids = self._coco_api.get_img_ids()
        if self.outfile_prefix is not None:
            self.results2json(predictions, self.outfile_prefix)
        logger = MMLogger.get_current_instance()
        detections = np.column_stack(self._columns(predictions))
        values: dict[str, float] = OrderedDict()
        if not len(detections):
            logger.error('The testing results of the whole dataset is empty.')
            return values
        for metric in self.metrics:
            logger.info(f'Evaluating {metric}...')
            evaluation = self._evaluate(metric, detections)
            values.update(self._named(metric, evaluation, logger))
        return values

    def _with_sorted_categories(self, results: list) -> list:
        """Number the classes by their ids, as pycocotools does.

        mmdet numbers them in the order of the file, and so confuses the APs
        of classes (``classwise``) where ids do not ascend.
        """
        classes = self.dataset_meta['classes']
        listed = self._coco_api.get_cat_ids(cat_names=classes)
        self.cat_ids = sorted(listed)
        if self.cat_ids == listed:
            return results
        places = np.searchsorted(self.cat_ids, listed)
        return [
            (truth, {**found, 'labels': places[found['labels']]})
            for truth, found in results
        ]

    def _evaluate(self, metric: str, detections: np.ndarray) -> HotCOCOeval:
        """Match detections with annotations and summarize.

        ``detections`` is as in :class:`HotCOCOeval`.
        """
        evaluation = HotCOCOeval(self._coco_api, detections)
        evaluation.params.catIds = self.cat_ids
        evaluation.params.imgIds = self.img_ids
        evaluation.params.maxDets = list(self.proposal_nums)
        evaluation.params.iouThrs = self.iou_thrs
        evaluation.params.useCats = int(metric != 'proposal')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation

    def results2json(
        self, results: Sequence[dict], outfile_prefix: str
    ) -> dict[str, str]:
        """Write detections in COCO's format.

        Args:
            results (Sequence[dict]): ``img_id``, ``bboxes`` (x1, y1, x2, y2)
                in pixels, ``scores`` and ``labels`` of each image.
            outfile_prefix (str): The file is ``'<prefix>.bbox.json'``.

        Returns:
            dict[str, str]: The file, as ``'bbox'`` and as ``'proposal'``.
        """
        if 'masks' in results[0]:
            return super().results2json(results, outfile_prefix)
        columns = [column.tolist() for column in self._columns(results)]
        keys = ('image_id', 'bbox', 'score', 'category_id')
        rows = [
            dict(zip(keys, row, strict=True))
            for row in zip(*columns, strict=True)
        ]
        path = f'{outfile_prefix}.bbox.json'
        put_text(json.dumps(rows), path)
        return dict(bbox=path, proposal=path)

    def _is_fast(self, results: list) -> bool:
        """Whether hotcoco supports the metrics and annotations."""
        return (
            has_hotcoco()
            and not self.format_only
            and self._coco_api is not None
            and set(self.metrics) <= {'bbox', 'proposal'}
            and is_countable(self._coco_api)
        )

    def _columns(self, results: Sequence[dict]) -> list[np.ndarray]:
        """Image ids, boxes (x, y, w, h), scores and category ids."""
        counts = [len(result['labels']) for result in results]
        ids = [result.get('img_id', i) for i, result in enumerate(results)]
        boxes, scores, labels = (
            np.concatenate([result[key] for result in results])
            for key in ('bboxes', 'scores', 'labels')
        )
        boxes = boxes.reshape(-1, 4).astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        categories = np.asarray(self.cat_ids)[labels.astype(np.int64)]
        return [
            np.repeat(np.asarray(ids), counts),
            boxes,
            scores.astype(np.float64),
            categories,
        ]

    def _named(
        self, metric: str, evaluation: HotCOCOeval, logger: MMLogger
    ) -> dict[str, float]:
        """Metrics by mmdet's names, rounded as in mmdet."""
        index = dict(zip(AP_ITEMS + RECALL_ITEMS, range(12), strict=True))
        stats = evaluation.stats
        is_proposal = metric == 'proposal'
        values = {}
        if self.classwise and not is_proposal:
            values = self._of_classes(evaluation.eval['precision'], logger)
        names = self.metric_items or (
            RECALL_ITEMS if is_proposal else AP_ITEMS
        )
        for name in names:
            if name not in index:
                raise KeyError(f'metric item "{name}" is not supported')
            value = stats[index[name]]
            if is_proposal:
                values[name] = float(f'{value:.3f}')
            else:
                values[f'{metric}_{name}'] = float(round(value, 3))
        if not is_proposal:
            six = ' '.join(f'{value:.3f}' for value in stats[:6])
            logger.info(f'{metric}_mAP_copypaste: {six}')
        return values

    def _of_classes(
        self, precisions: np.ndarray, logger: MMLogger
    ) -> dict[str, float]:
        """Precision of each class, which is also logged as a table."""
        rows, values = [], {}
        for index, category in enumerate(
            self._coco_api.loadCats(self.cat_ids)
        ):
            means = class_means(precisions[:, :, index])
            rows.append([category['name'], *(f'{round(m, 3)}' for m in means)])
            values[f'{category["name"]}_precision'] = round(means[0], 3)
        table = AsciiTable([['category', *AP_ITEMS], *rows])
        logger.info('\n' + table.table)
        return values


def _is_of_a_class(item: tuple[str, float]) -> bool:
    """Whether a metric is one of ``classwise``."""
    return item[0].endswith('_precision')


def class_means(precisions: np.ndarray) -> list[float]:
    """Average precisions of one class, as mmdet's ``classwise`` has them.

    Args:
        precisions (ndarray): Has shape (IoU thresholds, recalls, areas,
            numbers of detections); -1 where there is no object.

    Returns:
        list[float]: The values of ``AP_ITEMS``, NaN where there is no object.
    """
    most = precisions[..., -1]
    parts = [most[..., 0], most[0, :, 0], most[5, :, 0]]
    parts += [most[..., area] for area in (1, 2, 3)]
    return [
        np.mean(part[part > -1]) if (part > -1).any() else np.nan
        for part in parts
    ]
