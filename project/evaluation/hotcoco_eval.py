# Copyright (c) mmdetr authors. All rights reserved.
"""COCO evaluation of boxes by hotcoco."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def has_hotcoco() -> bool:
    """Whether hotcoco is installed."""
    return find_spec('hotcoco') is not None


def is_countable(truth: COCO) -> bool:
    """Whether hotcoco gives the results of pycocotools for annotations.

    hotcoco needs integer ids. In pycocotools a detection matched to the id 0
    counts as unmatched, and of two annotations with the same id the latter is
    used twice.
    """
    ids = [annotation['id'] for annotation in _annotations(truth)]
    others = [*truth.imgs, *truth.cats]
    are_whole = all(type(value) is int for value in (*ids, *others))
    return are_whole and 0 not in ids and len(set(ids)) == len(ids)


class HotCOCOeval(COCOeval):
    """pycocotools' ``COCOeval`` for boxes, computed by hotcoco.

    ``params``, ``eval`` and ``summarize`` are those of pycocotools.

    Args:
        truth (COCO): Annotations; see :func:`is_countable`.
        detections (ndarray): Rows of image id, box (x, y, w, h) in pixels,
            score and category id, has shape (num_detections, 7).

    Attributes:
        engine (hotcoco.COCOeval): What computes, after :meth:`evaluate`.
    """

    def __init__(self, truth: COCO, detections: np.ndarray) -> None:
        super().__init__(truth, iouType='bbox')
        self._detections = detections

    def evaluate(self) -> None:
        """Match detections with annotations."""
        import hotcoco

        self.params.catIds = sorted(set(self.params.catIds))
        self.params.imgIds = sorted(set(self.params.imgIds))
        truth = _to_hotcoco(self.cocoGt)
        found = truth.load_res(np.ascontiguousarray(self._detections))
        self.engine: Any = hotcoco.COCOeval(truth, found, 'bbox')
        params = self.engine.params
        params.cat_ids, params.img_ids = self.params.catIds, self.params.imgIds
        params.iou_thrs = np.asarray(self.params.iouThrs).tolist()
        params.rec_thrs = np.asarray(self.params.recThrs).tolist()
        params.max_dets = sorted(self.params.maxDets)
        params.area_rng = [list(map(float, r)) for r in self.params.areaRng]
        params.area_rng_lbl = list(self.params.areaRngLbl)
        params.use_cats = bool(self.params.useCats)
        self.engine.evaluate()

    def accumulate(self, p: object = None) -> None:
        """Compute precision and recall."""
        self.engine.accumulate()
        self.eval = {
            name: np.asarray(self.engine.eval[name])
            for name in ('precision', 'recall', 'scores')
        }


def _annotations(truth: COCO) -> Sequence[dict]:
    return truth.dataset.get('annotations', ())


def _to_hotcoco(truth: COCO) -> Any:
    """Convert the annotations of boxes."""
    import hotcoco

    annotations = _annotations(truth)
    columns = {
        name: np.array([annotation[name] for annotation in annotations])
        for name in ('image_id', 'category_id', 'id', 'area', 'iscrowd')
    }
    boxes = np.array([annotation['bbox'] for annotation in annotations])
    return hotcoco.COCO.from_arrays(
        [
            dict(
                id=i,
                width=image.get('width', 0),
                height=image.get('height', 0),
            )
            for i, image in truth.imgs.items()
        ],
        [dict(id=i, name=str(c['name'])) for i, c in truth.cats.items()],
        columns['image_id'].astype(np.int64),
        columns['category_id'].astype(np.int64),
        boxes.reshape(-1, 4).astype(np.float64),
        ids=columns['id'].astype(np.int64),
        area=columns['area'].astype(np.float64),
        iscrowd=columns['iscrowd'].astype(np.int64),
    )
