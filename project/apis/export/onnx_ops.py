# Copyright (c) mmdetr authors. All rights reserved.
"""What this package's custom ops become in ONNX, from opset 18 on."""

from collections.abc import Callable, Sequence
from typing import Any

import onnxscript
import torch
from onnxscript import ir

import project.ops.region_pooling
import project.ops.suppression  # noqa: F401

op: Any = onnxscript.opset18
_FLOAT, _BOOL = ir.DataType.FLOAT, ir.DataType.BOOL
_AXES = ('batch', 'channels', 'height', 'width')


def translations() -> dict[Callable, Callable]:
    """Map the custom ops to functions that write ONNX nodes."""
    return {
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
        max_kept = op.Constant(value_ints=[max_kept])
    zero, one = (op.Constant(value_int=value) for value in (0, -1))
    ranks = op.Cast(op.Range(op.Squeeze(number), zero, one), to=_FLOAT)
    images = op.Shape(boxes, start=0, end=1)
    ones = op.Constant(value_ints=[1])
    scores = op.Expand(ranks, op.Concat(images, ones, number, axis=0))
    chosen = op.NonMaxSuppression(
        boxes,
        scores,
        op.Reshape(max_kept, ones),
        op.Constant(value_float=iou_threshold),
    )
    places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
    marks = op.ConstantOfShape(op.Shape(boxes, start=0, end=2))
    found = op.ConstantOfShape(
        op.Shape(chosen, start=0, end=1),
        value=ir.tensor([1.0]),
    )
    return op.Cast(op.ScatterND(marks, places, found), to=_BOOL)


def _level_map(memory: Any, start: Any, end: Any, shape: Any) -> Any:
    """Cut a level out of the features: (bs, dim, h, w)."""
    points = op.Slice(memory, start, end, op.Constant(value_ints=[1]))
    images = op.Shape(memory, start=0, end=1)
    dims = op.Shape(memory, start=2, end=3)
    whole = op.Concat(images, dims, shape, axis=0)
    return op.Reshape(op.Transpose(points, perm=[0, 2, 1]), whole)


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

    Each level pools its own boxes only.
    """
    num_boxes = op.Shape(boxes, start=1, end=2)
    dims = op.Shape(memory, start=2, end=3)
    minus = op.Constant(value_ints=[-1])
    flat_levels = op.Reshape(levels, minus)
    rois = op.Reshape(boxes, op.Constant(value_ints=[-1, 4]))
    bins = op.Constant(value_ints=[output_size[0] * output_size[1]])
    whole = op.Concat(op.Shape(rois, start=0, end=1), bins, dims, axis=0)
    pooled = op.ConstantOfShape(whole)
    start = op.Constant(value_ints=[0])
    for level, stride in enumerate(strides):
        number = op.Constant(value_int=level)
        shape = op.Gather(spatial_shapes, number, axis=0)
        end = op.Add(start, op.ReduceProd(shape, keepdims=1))
        here = op.Reshape(op.NonZero(op.Equal(flat_levels, number)), minus)
        found = op.RoiAlign(
            _level_map(memory, start, end, shape),
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
        found = op.Reshape(found, op.Concat(minus, dims, bins, axis=0))
        places = op.Unsqueeze(here, op.Constant(value_ints=[1]))
        pooled = op.ScatterND(
            pooled, places, op.Transpose(found, perm=[0, 2, 1])
        )
        start = end
    return pooled
