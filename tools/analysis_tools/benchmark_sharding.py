# Copyright (c) mmdetr authors. All rights reserved.
"""Compare a training by itself, in DDP and split by fully_shard=True.

Start it with torchrun, which tells each process its rank. The ways run
alternately, each process on as many images in each of them: the ratio to
"alone", where nothing is exchanged, is the weak scaling. "static" is DDP with
static graph and bucket view. The MiB are those of the weights, gradients and
moments that process 0 holds after a backward pass; DDP without bucket view
has buckets of the size of the gradients besides.
"""

import argparse

from _arguments import (
    HelpFormatter,
    add_benchmark_arguments,
    count,
    positive_int,
    user_errors,
)

WAYS = ('alone', 'ddp', 'static', 'fully_shard')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=HelpFormatter
    )
    add_benchmark_arguments(parser, shape=(800, 1333), repeats=5)
    parser.add_argument(
        '--batch-size',
        type=positive_int,
        default=1,
        help='images of each process',
    )
    parser.add_argument(
        '--gts', type=count, default=7, help='boxes of each image'
    )
    parser.add_argument(
        '--ways',
        nargs='+',
        choices=WAYS,
        default=WAYS,
        help='which ways; all of them are in memory at once',
    )
    parser.add_argument(
        '--cpu-time',
        action='store_true',
        help='measure the CPU time of process 0, waiting left out',
    )
    return parser.parse_args()


def main() -> None:
    """Run the benchmark and print a table."""
    args = parse_args()
    import torch
    from _benchmarking import Clock, median_ratio, time_in_turn
    from _sharding import Way, process_group

    torch.set_num_threads(args.threads)
    with user_errors(args.traceback), process_group() as (rank, device):
        ways = {
            f'{path} {name}': Way(path, name, args, device)
            for path in args.configs
            for name in args.ways
        }
        clock = Clock(device, args.cpu_time)
        seconds = time_in_turn(ways, args.repeats, clock)
        if rank == 0:
            print('median s | ratio to first | MiB held | way')
        for name, way in ways.items():
            times = seconds[name]
            first = seconds[f'{way.path} {args.ways[0]}']
            if rank == 0:
                print(
                    f'{sorted(times)[len(times) // 2]:8.2f} | '
                    f'{median_ratio(times, first):14.2f} | '
                    f'{way.held / 2**20:8.0f} | {name}'
                )


if __name__ == '__main__':
    main()
