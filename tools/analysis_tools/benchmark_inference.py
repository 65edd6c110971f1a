# Copyright (c) mmdetr authors. All rights reserved.
"""Time the inference of several detectors side by side.

They run in turn, A B C A B C, on the same random image, so that ratios hold
on a busy machine; the seconds do not. Weights are random: they do not matter
to the time.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from time import perf_counter

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from project.apis import add_model_arguments, positive_int, read_config
from project.preflight.variables import resolve_config
from project.utils.errors import UserError


def build_detector(config: Config, device: str) -> nn.Module:
    """Build the detector of a config, with random weights.

    Args:
        config: A config with a model.
        device: Where it is to run.

    Returns:
        The detector in evaluation mode.
    """
    config = resolve_config(config)
    init_default_scope(config.get('default_scope', 'mmdet'))
    config.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    return model.to(device).eval()


def random_image(
    shape: tuple[int, int], device: str
) -> tuple[Tensor, list[DetDataSample]]:
    """Make one image without padding, as the preprocessor hands it on.

    Args:
        shape: (h, w) in pixels.
        device: Where it is to lie.

    Returns:
        The batch, of shape (1, 3, h, w), and its data sample.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *shape, generator=generator)
    sample = DetDataSample(
        metainfo=dict(
            img_shape=shape,
            ori_shape=shape,
            batch_input_shape=shape,
            pad_shape=shape,
            scale_factor=(1.0, 1.0),
        )
    )
    return image.to(device), [sample]


def time_in_turn(
    variants: dict[str, Callable[[], object]],
    repeats: int,
    wait: Callable[[], object],
) -> dict[str, list[float]]:
    """Run all variants in turn, once to warm up and then ``repeats`` times.

    Args:
        variants: What to run, by name.
        repeats: How often.
        wait: Called before the clock is read.

    Returns:
        Seconds of each run.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats + 1):
        for name, run in variants.items():
            wait()
            start = perf_counter()
            run()
            wait()
            seconds[name].append(perf_counter() - start)
    return {name: times[1:] for name, times in seconds.items()}


@torch.no_grad()
def detect(
    model: nn.Module, batch: Tensor, samples: list[DetDataSample]
) -> None:
    """Detect objects, post-processing included."""
    model.predict(batch, samples)


def add_benchmark_arguments(
    parser: argparse.ArgumentParser, shape: tuple[int, int], repeats: int
) -> None:
    """Add the options of a benchmark of several detectors.

    Args:
        parser: Gets the options.
        shape: Default size (h, w) of the images.
        repeats: How often each detector runs by default.
    """
    parser.add_argument(
        'configs',
        nargs='+',
        help='config files; ratios are to the first, so the first once more '
        'shows the noise',
    )
    parser.add_argument(
        '--shape',
        type=positive_int,
        nargs=2,
        default=shape,
        metavar=('H', 'W'),
        help='size of the images in pixels',
    )
    parser.add_argument(
        '--repeats',
        type=positive_int,
        default=repeats,
        help='runs of each detector',
    )
    parser.add_argument(
        '--threads',
        type=positive_int,
        default=1,
        help='CPU threads of torch',
    )
    add_model_arguments(parser)


def waiting_for(device: str) -> Callable[[], object]:
    """Give what waits until a device has done its work."""
    if device.startswith('cuda'):
        return partial(torch.cuda.synchronize, device)
    return lambda: None


def median_ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """Ratio of runs; those of one turn are neighbours, also in noise."""
    return median(a / b for a, b in zip(seconds, others, strict=True))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_benchmark_arguments(parser, shape=(800, 1333), repeats=9)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    image = random_image(tuple(args.shape), args.device)
    try:
        variants = {
            f'{label}: {path}': partial(
                detect,
                build_detector(
                    read_config(path, args.cfg_options), args.device
                ),
                *image,
            )
            for label, path in enumerate(args.configs, 1)
        }
    except UserError as error:
        sys.exit(f'Error: {error}')
    seconds = time_in_turn(variants, args.repeats, waiting_for(args.device))
    first = next(iter(seconds.values()))
    print('median s | ratio to the first | config')
    for name, times in seconds.items():
        ratio = median_ratio(times, first)
        print(f'{median(times):8.4f} | {ratio:18.3f} | {name}')


if __name__ == '__main__':
    main()
