# Copyright (c) mmdetr authors. All rights reserved.
"""Time what matching and losses take of a training step.

Detectors run in turn, A B C A B C, on the same random images and objects,
forward and backward, without the optimizer. Shares and ratios hold on a busy
machine; the seconds do not. Weights are random.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from statistics import median

from _arguments import (
    HelpFormatter,
    add_benchmark_arguments,
    count,
    positive_int,
    user_errors,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    add_benchmark_arguments(parser, shape=(320, 320), repeats=5)
    parser.add_argument(
        '--batch-size', type=positive_int, default=2, help='images'
    )
    parser.add_argument(
        '--gts', type=count, default=20, help='objects of each image'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table."""
    args = parse_args(argv)
    import torch
    from _benchmarking import (
        Clock,
        TimedCriterion,
        build_detector,
        median_ratio,
        random_batch,
        time_in_turn,
        train_step,
    )
    from mmengine.device import get_device

    from project.preflight.config_files import read_config_file

    torch.set_num_threads(args.threads)
    device = args.device or get_device()
    clock = Clock(device)
    timers, variants = {}, {}
    with user_errors(args.traceback):
        for label, path in enumerate(args.configs, 1):
            name = f'{label}: {path}'
            config = read_config_file(path, args.cfg_options)
            model = build_detector(config, device).train()
            head = model.bbox_head
            timers[name] = TimedCriterion(head.criterion, clock)
            head.criterion = timers[name]
            batch = random_batch(
                tuple(args.shape),
                args.batch_size,
                args.gts,
                head.num_classes,
                device,
            )
            variants[name] = partial(train_step, model, *batch)
    steps = time_in_turn(variants, args.repeats, clock)
    losses = {name: timer.seconds[1:] for name, timer in timers.items()}
    first = next(iter(losses.values()))
    print('step s | matching and losses s | share | to the first | config')
    for name, seconds in losses.items():
        share = median_ratio(seconds, steps[name])
        print(
            f'{median(steps[name]):6.2f} | {median(seconds):21.4f} | '
            f'{share:5.1%} | {median_ratio(seconds, first):12.3f} | {name}'
        )


if __name__ == '__main__':
    main()
