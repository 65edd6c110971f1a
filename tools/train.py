# Copyright (c) mmdetr authors. All rights reserved.
"""Train a detector; takes the options of mmdet's tools/train.py."""

import argparse
import os.path as osp
import sys
from itertools import pairwise

from _cli import (
    add_shared_arguments,
    build_runner,
    join_job,
    load_config,
    require_file,
    user_errors,
)
from mmengine.config import Config

_DTYPES = {'fp16': 'float16', 'bf16': 'bfloat16'}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--amp',
        nargs='?',
        choices=[*_DTYPES, ''],
        const='',
        metavar='fp16|bf16',
        help='train with automatic mixed precision: fp16 (the default), which '
        'needs a GPU, or bf16, which also works on a CPU',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the total batch size',
    )
    # Of a work dir that holds a training, either is asked for.
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint (default: the last one in work_dir, if '
        'there is one)',
    )
    group.add_argument(
        '--overwrite',
        action='store_true',
        help='overwrite the checkpoints of another training in work_dir',
    )
    add_shared_arguments(parser)
    args = parser.parse_args(_with_amp_apart(sys.argv[1:]))
    join_job(args)
    require_file(args.config, 'config')
    if args.resume not in (None, 'auto'):
        require_file(args.resume, 'checkpoint')
    return args


def _with_amp_apart(words: list[str]) -> list[str]:
    """Keep ``--amp CONFIG`` from being read as a precision."""
    return [
        f'{word}=' if word == '--amp' and after not in _DTYPES else word
        for word, after in pairwise([*words, ''])
    ]


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Put the options that only training has into the config.

    Args:
        cfg (Config): Is changed.
        args (argparse.Namespace): The command line.

    Raises:
        UserError: If the config has nothing for an option to act on.
    """
    from project.utils.errors import UserError

    if args.amp is not None:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
        if args.amp:
            cfg.optim_wrapper.dtype = _DTYPES[args.amp]
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError(
                '--auto-scale-lr needs the batch size that the learning rate '
                'is meant for: set auto_scale_lr.base_batch_size in '
                f'{args.config}.'
            )
        cfg.auto_scale_lr.enable = True
    if args.overwrite:
        cfg.overwrite = True
    if args.resume is not None:
        cfg.resume = True
        if args.resume == 'auto':
            cfg.start_from = cfg.get('load_from')  # if there is no training
            cfg.load_from = None
        else:
            cfg.load_from = args.resume


def check_work_dir(cfg: Config) -> None:
    """Refuse to write over the checkpoints of another config unasked.

    It is told at once; the runner looks at the rest before it trains.

    Args:
        cfg (Config): The config.

    Raises:
        UserError: If ``work_dir`` belongs to another config.
    """
    from project.utils.errors import UserError

    if cfg.get('resume') or cfg.get('overwrite'):
        return
    # A runner leaves both: its config by name and where it saved last.
    own_config = osp.join(cfg.work_dir, osp.basename(cfg.filename))
    last_checkpoint = osp.join(cfg.work_dir, 'last_checkpoint')
    if osp.exists(last_checkpoint) and not osp.exists(own_config):
        raise UserError(
            f'{cfg.work_dir} holds checkpoints of another config than '
            f'{osp.basename(cfg.filename)}; train into another folder, or '
            'over them with --overwrite.'
        )


def main() -> None:
    """Train."""
    args = parse_args()
    with user_errors(args.traceback):
        cfg = load_config(args)
        apply_options(cfg, args)
        check_work_dir(cfg)
        build_runner(cfg).train()


if __name__ == '__main__':
    main()
