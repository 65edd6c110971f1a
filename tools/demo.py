# Copyright (c) mmdetr authors. All rights reserved.
"""Train an H-DETR on synthetic images, test it and draw what it finds.

`make demo` runs this after setting up. It needs neither a GPU nor a download.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from _cli import user_errors

ROOT = Path(__file__).resolve().parents[1]
CONFIG = Path('configs/demo/h-detr_r18_2xb2-10e_shapes.py')
SPEC = dict(train=1000, val=150, size=160, seed=0)
BATCH_SIZE = 4

MIN_AP = 0.5
"""What the validation split reaches at least, from random weights."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo, from the data to the pictures."""
    args = parse_args(argv)
    start = time.monotonic()
    os.chdir(ROOT)
    print(
        f'Training {CONFIG.stem} from random weights takes about ten minutes '
        'on two cores.',
        flush=True,
    )
    keep_earlier_results(args.work_dir)
    prepare_data(args.data_root)
    options = [f'data_root={args.data_root}/', *args.cfg_options]
    train(args.work_dir, options)
    checkpoint = (args.work_dir / 'last_checkpoint').read_text().strip()
    mean_ap = test(checkpoint, args.work_dir / 'test', options)
    pictures = draw(checkpoint, args.work_dir, options)
    minutes = (time.monotonic() - start) / 60
    heading(f'bbox mAP {mean_ap:.3f} after {minutes:.1f} minutes')
    for name, path in pictures.items():
        print(f'{name}: {path}')
    if mean_ap < MIN_AP and not args.cfg_options:
        sys.exit(f'Error: The bbox mAP should have reached {MIN_AP}.')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/demo'),
        help='where checkpoints, logs and pictures go (default: %(default)s)',
    )
    parser.add_argument(
        '--data-root',
        type=Path,
        default=Path('data/shapes'),
        help='where the synthetic images lie or are made '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='override settings of the config, as for train.py',
    )
    return parser.parse_args(argv)


def heading(text: str) -> None:
    """Print a line that stands out among the logs."""
    print(f'\n=== {text}', flush=True)


def keep_earlier_results(work_dir: Path) -> None:
    """Move what an earlier run left to the first free numbered folder."""
    if not work_dir.exists():
        return
    number = 1
    while (kept := Path(f'{work_dir}_{number}')).exists():
        number += 1
    work_dir.rename(kept)
    print(f'What an earlier run left is kept in {kept}.', flush=True)


def prepare_data(root: Path) -> None:
    """Make the dataset unless it is there."""
    heading(f'1/4 data: {SPEC["train"]} + {SPEC["val"]} images in {root}')
    from project.datasets.shapes import ShapesSpec, make_shapes

    with user_errors():
        made = make_shapes(root, ShapesSpec(**SPEC))
    print('written' if made else 'there already', flush=True)


def train(work_dir: Path, options: Sequence[str]) -> None:
    """Train on a GPU, or in two processes where there is none."""
    heading(f'2/4 training into {work_dir}')
    import torch

    processes = 1 if torch.accelerator.is_available() else 2
    batch_size = BATCH_SIZE // processes
    run(
        './dist_train.sh',
        CONFIG,
        processes,
        work_dir,
        '--cfg-options',
        f'train_dataloader.batch_size={batch_size}',
        *options,
    )


def test(checkpoint: str, work_dir: Path, options: Sequence[str]) -> float:
    """Test a checkpoint, which prints the table of COCO's metrics.

    Returns:
        The bbox mAP.
    """
    heading(f'3/4 testing {checkpoint}')
    run(
        './dist_test.sh',
        CONFIG,
        checkpoint,
        1,
        '--work-dir',
        work_dir,
        '--cfg-options',
        *options,
    )
    (metrics,) = work_dir.glob('*/*.json')
    return json.loads(metrics.read_text())['coco/bbox_mAP']


def draw(
    checkpoint: str, work_dir: Path, options: Sequence[str]
) -> dict[str, Path]:
    """Draw detections and curves.

    Returns:
        The pictures by what they show.
    """
    heading('4/4 pictures')
    detections = work_dir / 'detections.png'
    curves = work_dir / 'training.png'
    run(
        sys.executable,
        'tools/analysis_tools/detection_sheet.py',
        CONFIG,
        checkpoint,
        '--out',
        detections,
        '--cfg-options',
        *options,
    )
    run(
        sys.executable,
        'tools/analysis_tools/plot_training.py',
        work_dir,
        '--out',
        curves,
        '--title',
        CONFIG.stem,
    )
    return {
        'Detections beside ground truth': detections,
        'Loss and AP over the training': curves,
    }


def run(*command: str | int | Path) -> None:
    """Run a command and show its output at once; end with it if it fails."""
    words = [str(word) for word in command]
    print('$ ' + ' '.join(words), flush=True)
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    status = subprocess.run(words, env=environment, check=False).returncode
    if status:
        sys.exit(f'Error: {words[0]} ended with status {status}.')


if __name__ == '__main__':
    main()
