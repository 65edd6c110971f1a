# Copyright (c) mmdetr authors. All rights reserved.
"""The way of queries through the decoder, in one image."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.dataset import pseudo_collate
from torch import Tensor

from project.utils.errors import UserError

from .layer_records import followed, has_layers, query_places


@dataclass
class QueryView:
    """The best queries of an image, best first, at the same place everywhere.

    Boxes are (x1, y1, x2, y2) in [0, 1] of the image.

    Attributes:
        scores: Highest probability after each layer, has shape
            (num_layers, num_queries).
        labels: Its class, has the same shape.
        references: Before each layer, the first is the proposal; has shape
            (num_layers, num_queries, 4). A point is a box without size.
        boxes: After each layer, has the same shape.
        points: Where the deformable attention of each layer looks: x, y in
            [0, 1] of the image, weight, and level from 0. The weights of a
            query add up to 1. Has shape
            (num_layers, num_queries, num_points, 4); without deformable
            attention there are no points.
    """

    scores: np.ndarray
    labels: np.ndarray
    references: np.ndarray
    boxes: np.ndarray
    points: np.ndarray


@torch.no_grad()
def view_queries(
    model: Any, prepared: dict, num_queries: int = 20
) -> QueryView:
    """Follow the queries with the highest scores after the last layer.

    Args:
        model: A detector of this package, in evaluation mode.
        prepared: An image and its data sample, as a dataset gives them.
        num_queries: Number of queries, at most.

    Raises:
        UserError: If the detector has no decoder layers to look into.
    """
    if not has_layers(model):
        raise UserError(
            f'{type(model).__name__} is no detector of this package, whose '
            'queries could be followed'
        )
    decoded: list[tuple[dict, dict]] = []
    samplings: list[tuple[Tensor, Tensor]] = []
    with ExitStack() as stack:
        stack.enter_context(
            _watched(
                model,
                'forward_decoder',
                lambda inputs, outputs: decoded.append((inputs, outputs)),
            )
        )
        for layer in model.decoder.layers:
            if hasattr(layer.cross_attn, 'sampling'):
                watched = _watched(
                    layer.cross_attn,
                    'sampling',
                    lambda _, outputs: samplings.append(outputs),
                )
                stack.enter_context(watched)
        model.test_step(pseudo_collate([prepared]))
    ((inputs, outputs),) = decoded
    output = outputs['decoder_output']
    places = query_places(model, output)
    logits, boxes = model.bbox_head(output)
    scores, labels = logits.float().sigmoid().max(-1)
    references = torch.stack(output.references[: len(logits)])
    if references.shape[-1] == 2:
        references = torch.cat([references, 0 * references], -1)
    layers = [scores, labels, *map(bbox_cxcywh_to_xyxy, (references, boxes))]
    points = boxes.new_zeros(*boxes.shape[:3], 0, 4)
    if samplings:
        points = _points(samplings, inputs['valid_ratios'])
    values = [followed(x, places)[:, 0] for x in (*layers, points)]
    best = values[0][-1].argsort(descending=True, stable=True)[:num_queries]
    return QueryView(*(x[:, best].cpu().numpy() for x in values))


def _points(
    samplings: list[tuple[Tensor, Tensor]], valid_ratios: Tensor
) -> Tensor:
    """Join points, weights and levels of all heads of all layers.

    Returns:
        Tensor: Has shape (num_layers, bs, num_queries, num_points, 4).
    """
    locations, weights = map(torch.stack, zip(*samplings, strict=True))
    num_heads, num_levels = weights.shape[-3:-1]
    on_image = locations / valid_ratios[:, None, None, :, None]
    level = torch.arange(num_levels, device=weights.device)[:, None]
    parts = (
        on_image,
        weights[..., None] / num_heads,
        level.expand_as(weights)[..., None].to(weights),
    )
    return torch.cat(parts, -1).flatten(3, 5)


@contextmanager
def _watched(
    owner: Any, name: str, watch: Callable[[dict, Any], None]
) -> Iterator[None]:
    """Show the keyword arguments and the results of a method."""
    method = getattr(owner, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        results = method(*args, **kwargs)
        watch(kwargs, results)
        return results

    setattr(owner, name, watched)
    try:
        yield
    finally:
        delattr(owner, name)
