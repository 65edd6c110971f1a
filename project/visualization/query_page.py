# Copyright (c) mmdetr authors. All rights reserved.
"""The way of queries through the decoder as one HTML page."""

from collections.abc import Mapping, Sequence

import mmcv
import numpy as np

from project.evaluation.query_views import QueryView
from project.visualization.boxes import color_of
from project.visualization.report_page import as_jpeg, page_template

LEVEL_COLORS = ('#ffd166', '#06d6a0', '#4cc9f0', '#f72585', '#ffffff')
"""Of the points on each feature level, the finest first."""
_SIDE = 760  # pixels of an image, at most


def render_queries(
    views: Mapping[str, QueryView], classes: Sequence[str], title: str
) -> str:
    """Write the page.

    Args:
        views: The queries of each image, by its path.
        classes: Names of the classes.
        title: Of the page.

    Returns:
        str: HTML without references to other files.
    """
    images, data = [], []
    for path, view in views.items():
        image = mmcv.imread(path, channel_order='rgb')
        scale = min(1.0, _SIDE / max(image.shape[:2]))
        image = mmcv.imrescale(image, scale)
        height, width = image.shape[:2]
        images.append(
            dict(name=path, source=as_jpeg(image), num_layers=len(view.scores))
        )
        size = np.array([width, height] * 2)
        queries = [
            _query(view, index, size, classes)
            for index in range(view.scores.shape[1])
        ]
        data.append(dict(width=width, height=height, queries=queries))
    some = next(iter(views.values()))
    levels = some.points[..., 3]
    return page_template('query_page.html').render(
        title=title,
        images=images,
        data=data,
        num_queries=some.scores.shape[1],
        num_levels=int(levels.max()) + 1 if levels.size else 0,
        level_colors=LEVEL_COLORS,
    )


def _query(
    view: QueryView, index: int, size: np.ndarray, classes: Sequence[str]
) -> dict:
    """What the page knows of a query.

    Points are (x, y) in thousandths of the image, weight in ten thousandths
    and level, one after the other, without those that do not count.
    """
    points = view.points[:, index] * [1000, 1000, 10000, 1]
    return dict(
        color=color_of(int(view.labels[-1, index])),
        names=[classes[label] for label in view.labels[:, index]],
        scores=[f'{score:.2f}' for score in view.scores[:, index]],
        references=(view.references[:, index] * size).round(1).tolist(),
        boxes=(view.boxes[:, index] * size).round(1).tolist(),
        points=[
            layer[layer[:, 2] >= 1].flatten().tolist()
            for layer in points.round().astype(int)
        ],
    )
