# Copyright (c) mmdetr authors. All rights reserved.
"""What this package's custom ops become in ONNX, from opset 18 on."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnxscript
import torch
from onnxscript import ir

import project.ops.custom_op
import project.ops.region_pooling
import project.ops.suppression  # noqa: F401

op: Any = onnxscript.opset18
_FLOAT, _BOOL = ir.DataType.FLOAT, ir.DataType.BOOL
_AXES = ('batch', 'channels', 'height', 'width')


def translations() -> dict[Callable, Callable]:
    """Map the custom ops to functions that write ONNX nodes."""
    return {
        torch.ops.mmdetr.deformable_attention.default: deformable_attention,
        torch.ops.mmdetr.nms.default: non_max_suppression,
        torch.ops.mmdetr.roi_align.default: multi_level_roi_align,
    }


def name_axes(model: ir.Model) -> None:
    """Give the axes of any size their names."""
    images, *_ = model.graph.inputs
    assert images.shape is not None
    names = dict(zip(map(str, images.shape), _AXES, strict=True))
    for value in (images, *model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(
                size if isinstance(size, int) else names.get(str(size))
                for size in value.shape
            )


def non_max_suppression(
    boxes: Any,
    iou_threshold: float,
    images_apart: bool,
    max_kept: Any = None,
) -> Any:
    """Write :func:`project.ops.suppression.survivors` as ONNX nodes.

    ``NonMaxSuppression`` compares each box with those that it has kept
    before, so ``max_kept`` also bounds its time.
    """
    number = op.Shape(boxes, start=1, end=2)
    size = boxes.shape[1] if boxes.shape is not None else None
    if max_kept is None:  # TensorRT wants a constant, if there can be one
        max_kept = size if isinstance(size, int) else number
    if isinstance(max_kept, int):
        max_kept = _ints(max_kept)
    zero, one = (op.Constant(value_int=value) for value in (0, -1))
    ranks = op.Cast(op.Range(op.Squeeze(number), zero, one), to=_FLOAT)
    images = op.Shape(boxes, start=0, end=1)
    scores = op.Expand(ranks, op.Concat(images, _ints(1), number, axis=0))
    chosen = op.NonMaxSuppression(
        boxes,
        scores,
        op.Reshape(max_kept, _ints(1)),
        op.Constant(value_float=iou_threshold),
    )
    places = op.Gather(chosen, _ints(0, 2), axis=1)
    marks = op.ConstantOfShape(op.Shape(boxes, start=0, end=2))
    found = op.ConstantOfShape(
        op.Shape(chosen, start=0, end=1),
        value=ir.tensor([1.0]),
    )
    return op.Cast(op.ScatterND(marks, places, found), to=_BOOL)


def deformable_attention(
    value: Any, spatial_shapes: Any, locations: Any, weights: Any
) -> Any:
    """Write ``project.ops.multi_scale_deformable_attention`` as ONNX nodes.

    Images and heads are the batch of ``GridSample``.
    """
    heads, levels, points, _ = locations.shape[2:]
    channels = value.shape[3]
    queries = op.Shape(locations, start=1, end=2)
    memory = op.Reshape(
        op.Transpose(op.Cast(value, to=_FLOAT), perm=[0, 2, 1, 3]),
        op.Concat(
            _ints(-1), op.Shape(value, start=1, end=2), _ints(channels), axis=0
        ),
    )
    one, two = op.Constant(value_float=1.0), op.Constant(value_float=2.0)
    grid = op.Reshape(
        op.Transpose(locations, perm=[0, 2, 3, 1, 4, 5]),
        op.Concat(_ints(-1, levels), queries, _ints(points, 2), axis=0),
    )
    grid = op.Sub(op.Mul(grid, two), one)
    weights = op.Reshape(
        op.Transpose(weights, perm=[0, 2, 3, 1, 4]),
        op.Concat(_ints(-1, 1, levels), queries, _ints(points), axis=0),
    )
    parts = []
    for level, level_map in _level_maps(memory, spatial_shapes, levels):
        found = op.GridSample(
            level_map,
            op.Gather(grid, level, axis=1),
            mode='bilinear',
            padding_mode='zeros',
            align_corners=0,
        )
        found = op.Mul(found, op.Gather(weights, level, axis=2))
        parts.append(op.ReduceSum(found, _ints(3), keepdims=0))
    number = op.Shape(value, start=0, end=1)
    whole = op.Concat(number, _ints(heads * channels), queries, axis=0)
    output = op.Transpose(
        op.Reshape(functools.reduce(op.Add, parts), whole), perm=[0, 2, 1]
    )
    return op.Cast(output, to=value.dtype)


def multi_level_roi_align(
    memory: Any,
    boxes: Any,
    levels: Any,
    spatial_shapes: Any,
    strides: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    """Write ``project.ops.region_pooling`` as ONNX nodes.

    Each level pools its own boxes only, in float32 like the boxes.
    """
    dtype = memory.dtype
    memory, boxes = (op.Cast(x, to=_FLOAT) for x in (memory, boxes))
    num_boxes = op.Shape(boxes, start=1, end=2)
    dims = op.Shape(memory, start=2, end=3)
    flat_levels = op.Reshape(levels, _ints(-1))
    rois = op.Reshape(boxes, _ints(-1, 4))
    bins = _ints(output_size[0] * output_size[1])
    whole = op.Concat(op.Shape(rois, start=0, end=1), bins, dims, axis=0)
    pooled = op.ConstantOfShape(whole)
    maps = _level_maps(memory, spatial_shapes, len(strides))
    for stride, (level, level_map) in zip(strides, maps, strict=True):
        here = op.Reshape(op.NonZero(op.Equal(flat_levels, level)), _ints(-1))
        found = op.RoiAlign(
            level_map,
            op.Gather(rois, here, axis=0),
            op.Div(here, num_boxes),
            mode='avg',
            coordinate_transformation_mode=(
                'half_pixel' if aligned else 'output_half_pixel'
            ),
            output_height=output_size[0],
            output_width=output_size[1],
            sampling_ratio=sampling_ratio,
            spatial_scale=1 / stride,
        )
        found = op.Reshape(found, op.Concat(_ints(-1), dims, bins, axis=0))
        found = op.Transpose(found, perm=[0, 2, 1])
        pooled = op.ScatterND(pooled, op.Unsqueeze(here, _ints(1)), found)
    return op.Cast(pooled, to=dtype)


def _level_maps(
    memory: Any, spatial_shapes: Any, number: int
) -> Iterator[tuple[Any, Any]]:
    """Yield levels and their features, (bs, dim, h, w), of (bs, n, dim)."""
    images = op.Shape(memory, start=0, end=1)
    dims = op.Shape(memory, start=2, end=3)
    start = _ints(0)
    for place in range(number):
        level = op.Constant(value_int=place)
        shape = op.Gather(spatial_shapes, level, axis=0)
        end = op.Add(start, op.ReduceProd(shape, keepdims=1))
        points = op.Slice(memory, start, end, _ints(1))
        whole = op.Concat(images, dims, shape, axis=0)
        yield level, op.Reshape(op.Transpose(points, perm=[0, 2, 1]), whole)
        start = end


def _ints(*values: int) -> Any:
    """A constant of integers."""
    return op.Constant(value_ints=values)
