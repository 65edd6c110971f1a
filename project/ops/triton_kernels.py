# Copyright (c) mmdetr authors. All rights reserved.
"""Triton's kernels of deformable attention, and what launches them.

Bilinear sampling as in ``F.grid_sample(padding_mode='zeros',
align_corners=False)``. A program handles some queries of one head of one
image. Computations are in the dtype of the locations, float32 at least,
whatever the dtype of the values.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language import constexpr
from triton.runtime.interpreter import InterpretedFunction

# Channels times queries of a program, and its warps.
_TILES = ((512, 1), (512, 2), (1024, 4), (2048, 4))
_SIZES = ('num_keys', 'num_queries')


@triton.jit
def _program(
    num_keys,
    num_queries,
    num_heads: constexpr,
    channels: constexpr,
    padded: constexpr,
    tile: constexpr,
):
    """Locate what this program handles.

    Returns:
        Rows of its queries, int64, and which are queries; offsets of its
        channels among the values of an image, and which are channels; places
        of its outputs, and which there are.
    """
    block: constexpr = tile // padded if tile > padded else 1
    program = tl.program_id(0).to(tl.int64)
    num_blocks = tl.cdiv(num_queries, block)
    head = program % num_heads
    image = program // num_heads // num_blocks
    first = program // num_heads % num_blocks * block
    query = first + tl.arange(0, block)
    row = (image * num_queries + query) * num_heads + head
    channel = tl.arange(0, padded)
    is_query, has_channel = query < num_queries, channel < channels
    offset = (image * num_keys * num_heads + head) * channels + channel
    at_output = (row * channels)[:, None] + channel
    is_output = is_query[:, None] & has_channel
    return row, is_query, offset, has_channel, at_output, is_output


@triton.jit
def _place(locations, size, is_query):
    """Locate points along one axis of a level.

    The order of operations is that of mmcv and grid_sample, since rounding
    decides on which side of a pixel's centre a point lies. Points that are
    not finite are outside.

    Returns:
        The pixel before, the fraction of the way to the next one, and whether
        either of them is on the map.
    """
    location = tl.load(locations, mask=is_query, other=0)
    scaled = 2 * location - 1
    at = (scaled + 1) * (size.to(location.dtype) / 2) - 0.5
    before = tl.floor(at)
    is_near = is_query & (before >= -1) & (before < size)
    return tl.where(is_near, before, 0).to(tl.int32), at - before, is_near


@triton.jit
def _size(spatial_shapes, level):
    """Height and width of a level, int32."""
    height = tl.load(spatial_shapes + 2 * level).to(tl.int32)
    width = tl.load(spatial_shapes + 2 * level + 1).to(tl.int32)
    return height, width


@triton.jit
def _point(locations, weights, at, height, width, is_query):
    """Locate a point of every query on a level, with its weight."""
    left, x, is_near_x = _place(locations + 2 * at, width, is_query)
    top, y, is_near_y = _place(locations + 2 * at + 1, height, is_query)
    weight = tl.load(weights + at, mask=is_query, other=0)
    return left, x, top, y, is_near_x & is_near_y, weight


@triton.jit
def _corner(left, x, top, y, is_near, height, width, start, corner: constexpr):
    """Choose one of the four pixels around each point.

    Returns:
        The pixel's key, whether it is on the map, and its share of the value
        along both axes.
    """
    row, column = top + corner // 2, left + corner % 2
    is_there = is_near & (row >= 0) & (row < height)
    is_there = is_there & (column >= 0) & (column < width)
    key = start + row.to(tl.int64) * width + column
    share_x = x if corner % 2 else 1 - x
    share_y = y if corner // 2 else 1 - y
    return key, is_there, share_x, share_y


@triton.jit(do_not_specialize=_SIZES)
def forward_kernel(
    value,
    spatial_shapes,
    locations,
    weights,
    output,
    num_keys,
    num_queries,
    num_heads: constexpr,
    channels: constexpr,
    num_levels: constexpr,
    num_points: constexpr,
    padded: constexpr,
    tile: constexpr,
):
    """Weighted sum of the samples of each query."""
    row, is_query, offset, has_channel, at_output, is_output = _program(
        num_keys, num_queries, num_heads, channels, padded, tile
    )
    shape: constexpr = [is_query.shape[0], padded]
    total = tl.zeros(shape, locations.dtype.element_ty)
    start = tl.full([], 0, tl.int64)
    for level in range(num_levels):
        height, width = _size(spatial_shapes, level)
        for point in range(num_points):
            at = (row * num_levels + level) * num_points + point
            left, x, top, y, is_near, weight = _point(
                locations, weights, at, height, width, is_query
            )
            sample = tl.zeros_like(total)
            for corner in tl.static_range(4):
                key, is_there, share_x, share_y = _corner(
                    left, x, top, y, is_near, height, width, start, corner
                )
                at_pixel = (key * num_heads * channels)[:, None]
                mask = is_there[:, None] & has_channel
                features = tl.load(value + offset + at_pixel, mask, 0)
                area = (share_x * share_y)[:, None]
                sample += features.to(total.dtype) * area
            total += sample * weight[:, None]
        start += height.to(tl.int64) * width
    total = total.to(output.dtype.element_ty)
    tl.store(output + at_output, total, mask=is_output)


@triton.jit
def _point_grads(
    grad,
    value,
    locations,
    weights,
    grad_value,
    at,
    height,
    width,
    start,
    is_query,
    has_channel,
    stride: constexpr,
):
    """Gradients of a point of every query; adds those of its four pixels.

    Returns:
        Gradients of the weight and of the location along both axes.
    """
    left, x, top, y, is_near, weight = _point(
        locations, weights, at, height, width, is_query
    )
    grad_weight = tl.zeros_like(x)
    grad_x = tl.zeros_like(x)
    grad_y = tl.zeros_like(x)
    for corner in tl.static_range(4):
        key, is_there, share_x, share_y = _corner(
            left, x, top, y, is_near, height, width, start, corner
        )
        at_pixel = (key * stride)[:, None]
        mask = is_there[:, None] & has_channel
        features = tl.load(value + at_pixel, mask=mask, other=0)
        area = share_x * share_y
        grad_pixel = grad * (weight * area)[:, None]
        tl.atomic_add(grad_value + at_pixel, grad_pixel, mask, sem='relaxed')
        product = tl.sum(grad * features.to(x.dtype), axis=1)
        grad_weight += product * area
        grad_x += product * (share_y if corner % 2 else -share_y)
        grad_y += product * (share_x if corner // 2 else -share_x)
    grad_x *= weight * width.to(x.dtype)
    grad_y *= weight * height.to(x.dtype)
    return grad_weight, grad_x, grad_y


@triton.jit(do_not_specialize=_SIZES)
def backward_kernel(
    grad_output,
    value,
    spatial_shapes,
    locations,
    weights,
    grad_value,
    grad_locations,
    grad_weights,
    num_keys,
    num_queries,
    num_heads: constexpr,
    channels: constexpr,
    num_levels: constexpr,
    num_points: constexpr,
    padded: constexpr,
    tile: constexpr,
):
    """Gradients of the sum; those of the values by atomic addition."""
    row, is_query, offset, has_channel, at_output, is_output = _program(
        num_keys, num_queries, num_heads, channels, padded, tile
    )
    grad = tl.load(grad_output + at_output, is_output, 0)
    start = tl.full([], 0, tl.int64)
    for level in range(num_levels):
        height, width = _size(spatial_shapes, level)
        for point in range(num_points):
            at = (row * num_levels + level) * num_points + point
            grad_weight, grad_x, grad_y = _point_grads(
                grad,
                value + offset,
                locations,
                weights,
                grad_value + offset,
                at,
                height,
                width,
                start,
                is_query,
                has_channel,
                num_heads * channels,
            )
            tl.store(grad_weights + at, grad_weight, mask=is_query)
            tl.store(grad_locations + 2 * at, grad_x, mask=is_query)
            tl.store(grad_locations + 2 * at + 1, grad_y, mask=is_query)
        start += height.to(tl.int64) * width


def _tuned(kernel: Any, **options) -> Any:
    """Autotune the tile for each number of channels and dtypes."""
    if isinstance(kernel, InterpretedFunction):
        return kernel
    configs = [
        triton.Config(dict(tile=tile), num_warps=num_warps)
        for tile, num_warps in _TILES
    ]
    return triton.autotune(configs, ['padded'], **options)(kernel)


_forward = _tuned(forward_kernel)
_backward = _tuned(backward_kernel, reset_to_zero=['grad_value'])


def _launch(
    kernel: Any, value: Tensor, locations: Tensor, *tensors: Tensor
) -> None:
    """Launch a kernel on ``tensors``, which include value and locations."""
    images, num_keys, num_heads, channels = value.shape
    num_queries, _, num_levels, num_points = locations.shape[1:5]
    if not images * num_queries * num_heads * channels:
        return
    padded = triton.next_power_of_2(channels)
    tile = {}
    if isinstance(kernel, InterpretedFunction):  # one large tile is fastest
        tile['tile'] = padded * triton.next_power_of_2(num_queries)

    def grid(meta: dict[str, Any]) -> tuple[int]:
        num_blocks = triton.cdiv(num_queries, max(meta['tile'] // padded, 1))
        return (images * num_heads * num_blocks,)

    with torch.cuda.device_of(value):
        kernel[grid](
            *tensors,
            num_keys,
            num_queries,
            num_heads,
            channels,
            num_levels,
            num_points,
            padded,
            **tile,
        )


def forward(
    value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """Run the forward pass; all tensors are contiguous.

    Returns:
        Tensor: Has shape (bs, num_queries, num_heads * channels) and the
        dtype of ``value``.
    """
    num_heads, channels = value.shape[2:]
    output = value.new_empty(*locations.shape[:2], num_heads * channels)
    tensors = value, spatial_shapes, locations, weights, output
    _launch(_forward, value, locations, *tensors)
    return output


def backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    locations: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the backward pass; all tensors are contiguous.

    Returns:
        tuple: Gradients of ``value``, ``locations`` and ``weights``, in
        their dtypes.
    """
    grads = (
        torch.zeros_like(value, dtype=locations.dtype),
        torch.empty_like(locations),
        torch.empty_like(weights),
    )
    inputs = grad_output, value, spatial_shapes, locations, weights
    _launch(_backward, value, locations, *inputs, *grads)
    return grads[0].to(value.dtype), *grads[1:]
