# Copyright (c) mmdetr authors. All rights reserved.
"""Time and memory of HPR's decoder against the plain formulation.

Both run in turn, forward and backward, on the same inputs. Time is measured
with one run after the other, so that the ratio holds on a busy machine; the
seconds do not. Memory is the peak of what is allocated during one run, of
which there is only one of each, with what is allocated before subtracted.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

from _arguments import count, positive_int


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--img-shape', type=positive_int, nargs=2, default=[256, 320]
    )
    parser.add_argument('--batch-size', type=positive_int, default=1)
    parser.add_argument('--queries', type=positive_int, default=300)
    parser.add_argument('--dn-groups', type=count, default=10)
    parser.add_argument('--dn-group-size', type=count, default=20)
    parser.add_argument('--layers', type=positive_int, default=6)
    parser.add_argument('--repeats', type=positive_int, default=3)
    parser.add_argument('--threads', type=positive_int, default=1)
    return parser.parse_args()


def main() -> None:
    """Run the benchmark and print a table."""
    args = parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import torch
    from _benchmarking import peak_memory
    from mmengine.registry import DefaultScope
    from reference.refiner_batch import RefinerBatch, decoders

    torch.set_num_threads(args.threads)
    with DefaultScope.overwrite_default_scope('mmdet'):
        decoder, plain, branches = decoders(args.layers)
    batch = RefinerBatch.make(
        [tuple(args.img_shape)] * args.batch_size,
        args.queries,
        args.dn_groups,
        args.dn_group_size,
    )
    variants = {
        'plain': partial(batch.run, plain, branches),
        'package': partial(batch.run, decoder, branches),
    }
    memory = {name: peak_memory(step) for name, step in variants.items()}
    runs: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(args.repeats):
        for name, step in variants.items():
            start = process_time()
            step()
            runs[name].append(process_time() - start)
    seconds = {name: median(values) for name, values in runs.items()}
    print('decoder | seconds | peak MiB')
    for name in variants:
        print(f'{name:7} | {seconds[name]:7.2f} | {memory[name]:8.0f}')
    print(
        f'the package is {seconds["plain"] / seconds["package"]:.2f} times as '
        f'fast and takes {memory["package"] / memory["plain"]:.0%} of the '
        'memory'
    )


if __name__ == '__main__':
    main()
