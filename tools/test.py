# Copyright (c) mmdetr authors. All rights reserved.
"""Test a detector; takes the options of mmdet's tools/test.py."""

import argparse
import copy
import os.path as osp

from _cli import (
    add_shared_arguments,
    build_runner,
    join_job,
    load_config,
    require_file,
    user_errors,
)
from _types import argument_errors, number_between, out_file, out_folder
from mmengine.config import Config, ConfigDict


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out',
        type=out_file,
        metavar='FILE.pkl',
        help="write the detections to a file for mmdet's analysis tools",
    )
    parser.add_argument(
        '--report',
        type=out_file,
        metavar='FILE.html',
        help='write a page on what the detector gets wrong; see report.py',
    )
    parser.add_argument(
        '--show',
        action='store_true',
        help='show each image with its detections in a window',
    )
    parser.add_argument(
        '--show-dir',
        metavar='NAME',
        help='draw the detections of each image to work_dir/<time>/NAME',
    )
    parser.add_argument(
        '--wait-time',
        type=number_between(0, float('inf')),
        default=2,
        help='seconds that --show waits for a key',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: merge the detections of each image and '
        'its mirror image',
    )
    add_shared_arguments(parser)
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end in .pkl or .pickle, got {args.out!r}')
    if args.show_dir and osp.isabs(args.show_dir):
        with argument_errors(parser):
            out_folder(args.show_dir)
    join_job(args)
    require_file(args.config, 'config')
    require_file(args.checkpoint, 'checkpoint')
    return args


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Put the options that only testing has into the config.

    Args:
        cfg (Config): Is changed.
        args (argparse.Namespace): The command line.
    """
    from mmdet.engine.hooks.utils import trigger_visualization_hook

    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show or args.show_dir:
        trigger_visualization_hook(cfg, args)
    if args.tta:
        augment(cfg)
    if args.out:
        metrics = cfg.test_evaluator
        metrics = [metrics] if isinstance(metrics, dict) else list(metrics)
        dump = dict(type='DumpDetResults', out_file_path=args.out)
        cfg.test_evaluator = [*metrics, dump]


def augment(cfg: Config) -> None:
    """Test each image and its mirror image and merge their detections.

    ``tta_model`` and ``tta_pipeline`` of the config take precedence.

    Args:
        cfg (Config): Is changed.
    """
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_pipeline' not in cfg:
        cfg.tta_pipeline = copy.deepcopy(dataset.pipeline)
        cfg.tta_pipeline[-1] = flipping(cfg.tta_pipeline[-1])
    tta_model = cfg.get('tta_model') or dict(
        type='DetTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
    )
    cfg.model = ConfigDict(**tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def flipping(pack: dict) -> dict:
    """Make a transform that packs an image twice, once mirrored.

    Args:
        pack (dict): The config of the packing transform.

    Returns:
        dict: The config of the transform to put in its place.
    """
    flips = ('flip', 'flip_direction')
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    return dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='RandomFlip', prob=1.0),
                dict(type='RandomFlip', prob=0.0),
            ],
            [dict(pack, meta_keys=(*pack.get('meta_keys', keys), *flips))],
        ],
    )


def main() -> None:
    """Test."""
    args = parse_args()
    with user_errors(args.traceback):
        cfg = load_config(args)
        apply_options(cfg, args)
        if args.report is None:
            build_runner(cfg).test()
            return
        from project.apis.report import keep_evaluation, write_report

        keep_evaluation(cfg)
        write_report(build_runner(cfg), args.report)


if __name__ == '__main__':
    main()
