# Copyright (c) mmdetr authors. All rights reserved.
"""Time matching and losses against the plain formulation.

Both run in turn, forward and backward, on the same decoder-like outputs, so
that the ratio holds on a busy machine; the seconds do not.
"""

import argparse
from functools import partial

from _arguments import count, device, positive_int


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--gts', type=count, nargs='+', default=[20, 40, 60])
    parser.add_argument('--batch-size', type=positive_int, default=2)
    parser.add_argument(
        '--queries', type=positive_int, nargs=2, default=[300, 1500]
    )
    parser.add_argument('--tokens', type=positive_int, default=22223)
    parser.add_argument('--layers', type=positive_int, default=6)
    parser.add_argument('--classes', type=positive_int, default=91)
    parser.add_argument('--copies', type=positive_int, default=6)
    parser.add_argument('--repeats', type=positive_int, default=5)
    parser.add_argument('--threads', type=positive_int, default=1)
    parser.add_argument('--device', type=device, default='cpu')
    return parser.parse_args()


def main() -> None:
    """Run the benchmark and print a table."""
    args = parse_args()
    import torch
    from _set_prediction import (
        build_criterion,
        compare,
        core_step,
        plain_step,
    )
    from reference.set_prediction_batch import make_batch

    torch.set_num_threads(args.threads)
    criterion = build_criterion()
    print('GT per image | plain s | core s | plain / core | loss difference')
    for num_gts in args.gts:
        batch = make_batch(
            (num_gts,) * args.batch_size,
            num_queries=tuple(args.queries),
            num_tokens=args.tokens,
            num_layers=args.layers,
            num_classes=args.classes,
            num_copies=args.copies,
            dtype=torch.float32,
        ).to(args.device)
        variants = dict(
            plain=partial(plain_step, batch),
            core=partial(core_step, batch, criterion),
        )
        timed = compare(variants, args.repeats, args.device)
        (plain, plain_loss), (core, core_loss) = timed.values()
        print(
            f'{num_gts:12d} | {plain:7.3f} | {core:6.3f} | '
            f'{plain / core:12.2f} | '
            f'{abs(plain_loss - core_loss) / plain_loss:.1e}'
        )


if __name__ == '__main__':
    main()
