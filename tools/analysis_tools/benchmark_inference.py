# Copyright (c) mmdetr authors. All rights reserved.
"""Time the inference of several detectors side by side.

They run in turn, A B C A B C, on the same random image, so that ratios hold
on a busy machine; the seconds do not. Weights are random: they do not matter
to the time.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from statistics import median

from _arguments import HelpFormatter, add_benchmark_arguments, user_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    add_benchmark_arguments(parser, shape=(800, 1333), repeats=9)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table."""
    args = parse_args(argv)
    import torch
    from _benchmarking import (
        build_detector,
        detect,
        median_ratio,
        random_image,
        time_in_turn,
        waiting_for,
    )
    from mmengine.device import get_device

    from project.preflight.config_files import read_config_file

    torch.set_num_threads(args.threads)
    device = args.device or get_device()
    image = random_image(tuple(args.shape), device)
    with user_errors(args.traceback):
        variants = {
            f'{label}: {path}': partial(
                detect,
                build_detector(
                    read_config_file(path, args.cfg_options), device
                ),
                *image,
            )
            for label, path in enumerate(args.configs, 1)
        }
    seconds = time_in_turn(variants, args.repeats, waiting_for(device))
    first = next(iter(seconds.values()))
    print('median s | ratio to the first | config')
    for name, times in seconds.items():
        ratio = median_ratio(times, first)
        print(f'{median(times):8.4f} | {ratio:18.3f} | {name}')


if __name__ == '__main__':
    main()
