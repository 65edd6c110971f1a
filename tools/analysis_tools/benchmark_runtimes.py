# Copyright (c) mmdetr authors. All rights reserved.
"""Time a detector in PyTorch and in the runtimes it is exported to.

From pixels to boxes, on a CPU, in turn; weights are random, and files are for
one size. PyTorch has the deformable attention of this machine
(docs/performance.md), also compiled.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from _arguments import HelpFormatter, add_benchmark_arguments, user_errors

if TYPE_CHECKING:
    import numpy as np
    from torch import nn
    from torch.export import ExportedProgram

VARIANTS = ('pytorch', 'compiled', 'onnx', 'openvino')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=HelpFormatter
    )
    add_benchmark_arguments(parser, shape=(800, 1333), repeats=5)
    parser.add_argument(
        '--variants',
        nargs='+',
        choices=VARIANTS,
        default=VARIANTS,
        help='what to time; ratios are to the first',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table for each config."""
    args = parse_args(argv)
    import torch
    from _benchmarking import (
        Clock,
        build_detector,
        median_ratio,
        time_in_turn,
    )
    from _variants import read_config

    from project.apis.export.network import ExportedNetwork, capture

    torch.set_num_threads(args.threads)
    images = (torch.rand(1, 3, *args.shape) * 255).numpy()
    print(
        f'one image of {args.shape[0]}x{args.shape[1]}, threads '
        f'{args.threads}, CPU time, torch {torch.__version__}'
    )
    for path in args.configs:
        with user_errors(args.traceback), tempfile.TemporaryDirectory() as out:
            model = build_detector(read_config(path, args.cfg_options), 'cpu')
            network = ExportedNetwork(model)
            traced = cache(partial(capture, network, args.shape, False))
            runs = {
                name: prepare(
                    name, network, traced, images, Path(out), args.threads
                )
                for name in args.variants
            }
            seconds = time_in_turn(
                runs, args.repeats, Clock('cpu', of_cpu=True)
            )
        first = seconds[args.variants[0]]
        print(f'\n{path}\nmedian s | ratio to the first')
        for name, times in seconds.items():
            ratio = median_ratio(times, first)
            print(f'{median(times):8.3f} | {ratio:18.3f} | {name}')


def prepare(
    name: str,
    network: 'nn.Module',
    traced: Callable[[], 'ExportedProgram'],
    images: 'np.ndarray',
    folder: Path,
    threads: int,
) -> Callable[[], object]:
    """Make what is timed.

    Args:
        name (str): One of :data:`VARIANTS`.
        network (nn.Module): From pixels to boxes.
        traced (Callable): Returns its graph.
        images (np.ndarray): Its input.
        folder (Path): For the files of the runtimes.
        threads (int): CPU threads.

    Returns:
        Callable: Detects once.
    """
    import torch

    from project.apis.export import runtimes

    if name in ('pytorch', 'compiled'):
        tensor = torch.from_numpy(images)
        module = torch.compile(network) if name == 'compiled' else network

        @torch.no_grad()
        def run() -> object:
            return module(tensor)

        return run
    runtimes.check_packages(name)
    path = folder / ('model.xml' if name == 'openvino' else 'model.onnx')
    runtimes.write(name, traced(), path, {})
    runner = runtimes.open_file(name, path, threads)
    return lambda: runner(images)


if __name__ == '__main__':
    main()
