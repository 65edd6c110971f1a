# Copyright (c) mmdetr authors. All rights reserved.
"""Time the matching of targets to several queries, in H-DETR's second set.

Three ways run in turn on the same costs: scipy's assignment with each target
repeated, the package's own on one thread, and the same on all. Printed are
seconds, and whether the assignments cost the same.
"""

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time
from typing import Any

from _arguments import positive_int


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--gts', type=positive_int, nargs='+', default=[20, 100, 200, 250, 300]
    )
    parser.add_argument('--batch-size', type=positive_int, default=2)
    parser.add_argument('--queries', type=positive_int, default=1500)
    parser.add_argument('--layers', type=positive_int, default=6)
    parser.add_argument('--classes', type=positive_int, default=91)
    parser.add_argument('--copies', type=positive_int, default=6)
    parser.add_argument('--repeats', type=positive_int, default=3)
    parser.add_argument(
        '--cpu-time',
        action='store_true',
        help='measure the CPU time of all threads together',
    )
    return parser.parse_args()


def make_ways(pending: Any, copies: int) -> dict[str, Callable[[], float]]:
    """Give what solves all the problems, and returns their whole cost."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    costs = [block.cost.numpy() for block in pending.blocks]

    def whole_cost(pairs: Any) -> float:
        layer, image, query, target = pairs
        return sum(
            float(costs[i][row, column - pending.blocks[i].first_target, q])
            for row, i, q, column in zip(
                layer, image, query, target, strict=True
            )
        )

    def repeated() -> float:
        total = 0.0
        for cost in costs:
            for of_layer in cost:
                rows, columns = linear_sum_assignment(
                    np.tile(of_layer, (copies, 1))
                )
                total += float(
                    of_layer[rows % len(of_layer), columns].sum(
                        dtype=np.float64
                    )
                )
        return total

    def one_thread() -> float:
        tables = [
            block.solve(layer, cost)
            for block, cost in zip(pending.blocks, costs, strict=True)
            for layer in range(len(cost))
        ]
        return whole_cost(np.concatenate(tables, axis=1))

    def all_threads() -> float:
        return whole_cost(pending.solve(costs))

    return dict(
        repeated=repeated, one_thread=one_thread, all_threads=all_threads
    )


def main() -> None:
    """Run the benchmark and print a table."""
    args = parse_args()
    clock = process_time if args.cpu_time else perf_counter
    import torch
    from _set_prediction import pending_one2many
    from reference.set_prediction_batch import make_batch

    print('GT per image | repeated s | one thread s | all threads s | same')
    for num_gts in args.gts:
        batch = make_batch(
            (num_gts,) * args.batch_size,
            num_queries=(1, args.queries),
            num_tokens=num_gts,
            num_layers=args.layers,
            num_classes=args.classes,
            num_copies=args.copies,
            dtype=torch.float32,
        )
        ways = make_ways(pending_one2many(batch), args.copies)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.repeats):
            totals = []
            for name, solve in ways.items():
                start = clock()
                totals.append(solve())
                seconds[name].append(clock() - start)
        scale = max(1.0, abs(totals[0]))
        is_same = max(totals) - min(totals) < 1e-9 * scale
        times = ' | '.join(f'{median(s):.3f}' for s in seconds.values())
        print(f'{num_gts:12d} | {times} | {is_same}', flush=True)


if __name__ == '__main__':
    main()
