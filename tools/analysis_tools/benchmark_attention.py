# Copyright (c) mmdetr authors. All rights reserved.
"""Time the backends of multi-scale deformable attention side by side.

They run alternately, A B A B, on queries like the encoder's (all pixels, which
sample around themselves) and the decoder's (900, which sample anywhere), with
8 heads of 32 channels, 4 levels and 4 points.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from _arguments import HelpFormatter, device, positive_int, user_errors

if TYPE_CHECKING:
    from torch import Tensor

HEADS, CHANNELS, POINTS, QUERIES = 8, 32, 4, 900
STRIDES = (8, 16, 32, 64)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        'backends',
        nargs='*',
        help='such as pytorch and cpp; speeds are relative to the first '
        '(default: pytorch, then what is chosen on the device)',
    )
    parser.add_argument(
        '--shape',
        type=positive_int,
        nargs=2,
        default=(800, 1333),
        metavar=('H', 'W'),
        help='size of the image in pixels',
    )
    parser.add_argument(
        '--repeats', type=positive_int, default=9, help='runs of each'
    )
    parser.add_argument(
        '--threads', type=positive_int, default=1, help='CPU threads of torch'
    )
    parser.add_argument(
        '--device', type=device, default='cpu', help='where they run'
    )
    parser.add_argument(
        '--dtype',
        choices=('float32', 'float64', 'bfloat16', 'float16'),
        default='float32',
        help='type of the values',
    )
    parser.add_argument(
        '--cpu-time',
        action='store_true',
        help="count this process's CPU seconds instead of the wall clock's",
    )
    parser.add_argument(
        '--traceback', action='store_true', help='show where an error arose'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table."""
    args = parse_args(argv)
    import torch
    from _benchmarking import Clock, median_ratio, time_in_turn

    from project.ops import backend_name

    torch.set_num_threads(args.threads)
    clock = Clock(args.device, args.cpu_time)
    kind = torch.device(args.device).type
    with user_errors(args.traceback):
        names = args.backends or ['pytorch', backend_name(kind)]
        print('median ms | times as fast | queries, pass, backend')
        for queries in ('encoder', 'decoder'):
            inputs = make_inputs(queries == 'encoder', args)
            for with_gradients in (False, True):
                variants = {
                    name: partial(run, name, inputs, with_gradients)
                    for name in names
                }
                seconds = time_in_turn(variants, args.repeats, clock)
                first = seconds[names[0]]
                done = 'forward, backward' if with_gradients else 'forward'
                for name, times in seconds.items():
                    print(
                        f'{median(times) * 1e3:9.1f} | '
                        f'{median_ratio(first, times):13.1f} | '
                        f'{queries}, {inputs[2].shape[1]} queries, {done}, '
                        f'{name}'
                    )


def make_inputs(of_encoder: bool, args: argparse.Namespace) -> list['Tensor']:
    """Random values, and points around each query of the encoder.

    Returns:
        Value, spatial shapes, locations and weights.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    height, width = args.shape
    levels = [(-(-height // s), -(-width // s)) for s in STRIDES]
    shapes = torch.tensor(levels)
    num_keys = int(shapes.prod(1).sum())
    if of_encoder:
        centers = [
            (torch.cartesian_prod(torch.arange(h), torch.arange(w)) + 0.5)
            / torch.tensor([h, w])
            for h, w in levels
        ]
        points = torch.cat(centers).flip(-1)
    else:
        points = torch.rand(QUERIES, 2, generator=generator)
    grid = 1, len(points), HEADS, len(levels), POINTS
    offsets = 4 * torch.randn(*grid, 2, generator=generator)  # in pixels
    locations = points[:, None, None, None] + (
        offsets / shapes.flip(-1)[:, None]
    )
    value = torch.randn(1, num_keys, HEADS, CHANNELS, generator=generator)
    weights = torch.rand(grid, generator=generator)
    dtype = getattr(torch, args.dtype)
    tensors = [value.to(dtype), shapes, locations, weights]
    return [tensor.to(args.device) for tensor in tensors]


def run(name: str, inputs: Sequence['Tensor'], with_gradients: bool) -> None:
    """Attend once."""
    import torch

    from project.ops import attention_backend, multi_scale_deformable_attention

    value, shapes, locations, weights = inputs
    leaves = [
        tensor.detach().requires_grad_(with_gradients)
        for tensor in (value, locations, weights)
    ]
    num_keys = shapes.prod(1)
    with attention_backend(name), torch.set_grad_enabled(with_gradients):
        output = multi_scale_deformable_attention(
            leaves[0], shapes, num_keys.cumsum(0) - num_keys, *leaves[1:]
        )
        if with_gradients:
            output.sum().backward()


if __name__ == '__main__':
    main()
