# Copyright (c) mmdetr authors. All rights reserved.
"""Fine-tune a detector on a folder of images; see docs/finetune.md.

The folder contains COCO annotations (in COCO's or Roboflow's layout), Pascal
VOC or YOLO. A config is written and trained; the best checkpoint is tested.
The same command resumes an interrupted training.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from _cli import add_traceback, detect_command, user_errors
from _types import count, number_between, out_folder, positive_int

if TYPE_CHECKING:
    from mmengine.config import Config
    from rich.console import Console

TOOLS = Path(__file__).resolve().parent
_HOURS = (0.001, 10_000)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('data', metavar='DATA', help='folder of the dataset')
    parser.add_argument(
        '--model',
        required=True,
        metavar='NAME',
        help='method and backbone, such as rank-detr_r50; or the name or '
        'path of a config',
    )
    parser.add_argument(
        '--checkpoint',
        default='none',
        metavar='FILE',
        help='trained detector to start from, may be an official one '
        '(default: none, only the backbone is pretrained)',
    )
    parser.add_argument(
        '--work-dir',
        type=out_folder,
        help='folder for all results (default: '
        'work_dirs/<model>_<name of DATA>)',
    )
    parser.add_argument(
        '--check-only',
        action='store_true',
        help='write the config, check the data and stop',
    )
    _add_training_options(parser)
    add_traceback(parser)
    args = parser.parse_args(argv)
    if args.work_dir is None:
        name = f'{Path(args.model).stem}_{Path(args.data).resolve().name}'
        args.work_dir = out_folder(str(Path('work_dirs') / name))
    return args


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add what the training depends on; the names are those of Options."""
    group = parser.add_argument_group('training')
    for name, text in (
        ('epochs', 'length of the training (default: by the data)'),
        ('batch-size', "images per GPU (default: the config's)"),
        ('gpus', 'number of GPUs, or of processes without GPUs (default: 1)'),
        ('image-size', 'short side of images in pixels'),
        ('workers', 'processes per GPU that load images'),
    ):
        group.add_argument(
            f'--{name}',
            type=count if name == 'workers' else positive_int,
            metavar='N',
            default=1 if name == 'gpus' else None,
            help=text,
        )
    group.add_argument(
        '--time-limit',
        type=number_between(*_HOURS),
        metavar='HOURS',
        help='save and end after so many hours of training, and test what is '
        'best by then; the same command resumes it',
    )
    group.add_argument(
        '--amp',
        choices=['fp16', 'bf16'],
        help='train in mixed precision; bf16 works on a CPU, too',
    )
    group.add_argument(
        '--ema',
        action='store_true',
        help='test and keep a moving average of the weights',
    )
    group.add_argument(
        '--tracker',
        choices=['tensorboard', 'wandb', 'mlflow'],
        help='where losses and metrics are written besides',
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Check, train, test and report."""
    args = parse_args(argv)
    from project.apis.finetuning.preparation import (
        CONFIG,
        has_begun,
        read_state,
        write_state,
    )
    from project.apis.finetuning.report import best_checkpoint

    work_dir = Path(args.work_dir)
    config = work_dir / CONFIG
    with user_errors(args.traceback):
        classes = check(args, config)
        if args.check_only:
            return
        is_trained = read_state(work_dir).get('trained', False)
        if not is_trained:
            resume = ['--resume'] if has_begun(work_dir) else []
            words = (config, args.gpus, work_dir, *resume)
            is_trained = launch('train', *words, hours=args.time_limit)
            write_state(work_dir, trained=is_trained)
        best, tested = best_checkpoint(work_dir), work_dir / 'test'
        launch('test', config, best, args.gpus, '--work-dir', tested)
        curves = TOOLS / 'analysis_tools' / 'plot_training.py'
        run(sys.executable, curves, work_dir)
        tell(work_dir, best, classes)
        if not is_trained:
            print(
                f'The training ended after {args.time_limit:g} hours; the '
                'same command resumes it.'
            )


def check(args: argparse.Namespace, config: Path) -> tuple[str, ...]:
    """Write the config and check its data.

    Ends the program with status 1 if training would refuse the data.

    Returns:
        The names of the classes.
    """
    from mmengine.registry import init_default_scope

    import project.engine  # noqa: F401  registers everything of the package
    from project.apis.finetuning.preparation import Request, prepare
    from project.apis.finetuning.recipe import Options, check_device
    from project.preflight.config_files import read_config_file
    from project.preflight.doctor import examine

    checkpoint = None if args.checkpoint == 'none' else args.checkpoint
    if checkpoint and Path(checkpoint).exists():
        checkpoint = str(Path(checkpoint).resolve())
    chosen = {x.name: getattr(args, x.name) for x in fields(Options)}
    data = str(Path(args.data).resolve())
    if not args.check_only:
        check_device(args.amp)
    request = Request(data, args.model, checkpoint, **chosen)
    lines = prepare(request, config.parent)
    cfg: Config = read_config_file(config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    if not examine(cfg, wide_console()):
        sys.exit(1)
    print(f'\n{config}:')
    print('\n'.join(f'- {line}' for line in lines), flush=True)
    return tuple(cfg.classes)


def wide_console() -> 'Console':
    """A console whose tables fit into a file, too."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)


def launch(
    task: str, *words: str | int | Path, hours: float | None = None
) -> bool:
    """Run ``./dist_train.sh`` or ``./dist_test.sh``; see :func:`run`."""
    script = TOOLS.parent / f'dist_{task}.sh'
    if script.is_file():
        return run(script, *words, hours=hours)
    # An installed wheel has what is in them.
    return run(sys.executable, TOOLS / 'launch.py', task, *words, hours=hours)


def run(*command: str | int | Path, hours: float | None = None) -> bool:
    """Show a command, run it, and end with it if it fails.

    The signals at which a training saves and ends are passed on to it.

    Args:
        *command: The words of the command.
        hours: When to send it such a signal. Defaults to never.

    Returns:
        bool: Whether it has come to its own end.
    """
    words = [str(word) for word in command]
    print(f'\n$ {shlex.join(words)}', flush=True)
    process = subprocess.Popen(words)

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = [signal.signal(number, pass_on) for number in numbers]
    is_over = False
    try:
        status = process.wait(hours and hours * 3600)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGUSR1)
        status, is_over = process.wait(), True
    except KeyboardInterrupt:
        status = process.wait()  # Ctrl-C has reached it as well
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    status = status if status >= 0 else 128 - status  # as a shell has it
    if is_over and status == 128 + signal.SIGUSR1:
        return False
    _end_with(status, words[0])
    return True


def _end_with(status: int, command: str) -> None:
    """End the program if a command has failed."""
    if status:
        print(
            f'Error: {os.path.basename(command)} ended with status {status}; '
            'the same command resumes from the last checkpoint, if there is '
            'one.',
            file=sys.stderr,
        )
        sys.exit(status)


def tell(work_dir: Path, best: Path, classes: tuple[str, ...]) -> None:
    """Print how good the detector is, and where everything is."""
    from project.apis.finetuning.recipe import MONITOR
    from project.apis.finetuning.report import read_metrics, write_class_aps

    aps = work_dir / 'class_ap.csv'
    metrics = read_metrics(work_dir / 'test')
    wide_console().print(write_class_aps(metrics, classes, aps))
    print(f'mAP {metrics.get(MONITOR, float("nan")):.3f}')
    for name, path in (
        ('Best checkpoint', best),
        ('Config', work_dir / 'finetune.py'),
        ('Loss and AP', work_dir / 'training.png'),
        ('AP of each class', aps),
        ('Metrics and logs', work_dir / 'test'),
    ):
        print(f'{name}: {path}')
    print(f'Detect with it: {detect_command(str(best))}')


if __name__ == '__main__':
    main()
