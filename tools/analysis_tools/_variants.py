# Copyright (c) mmdetr authors. All rights reserved.
"""Detectors that benchmark.py runs in turn, phase by phase."""

import argparse
import copy
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from _arguments import override
from _benchmarking import (
    Clock,
    build_detector,
    median_ratio,
    peak_memory,
    random_batch,
    random_image,
    total,
)
from mmdet.models import BaseDetector
from mmdet.registry import DATASETS
from mmengine.config import Config, DictAction
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from project.engine.fast_model import speed_up
from project.engine.optim_wrappers import without_mmengines
from project.ops import attention_backend
from project.ops.in_mmcv import installed
from project.preflight.config_files import read_config_file
from project.preflight.data import check_data
from project.preflight.fast_runtime import (
    apply_checkpointing,
    apply_fast_runtime,
    read_fast_runtime,
)
from project.preflight.variables import resolve_config
from project.utils.errors import UserError

Phases = dict[str, float]
_LOSSES = 'matching and losses'


def build_variant(
    name: str, args: argparse.Namespace, device: str, clock: Clock
) -> Callable[[], Phases]:
    """Build what is run again and again.

    Args:
        name: Config, with or without ``@KEY=VALUE`` and ``@BACKEND``.
        args: The command line.
        device: Where it runs.
        clock: Reads the time of its phases.

    Returns:
        Runs once; returns the seconds of each phase.
    """
    path, *settings = name.split('@')
    options, backend = _settings(settings)
    config = read_config(path, {**(args.cfg_options or {}), **options})
    if args.mode == 'data':
        return Loading(config, args.batch_size, clock)
    apply_fast_runtime(config)
    apply_checkpointing(config)
    model = build_detector(config, device)
    speed_up(model, read_fast_runtime(config))
    run: Callable[[], Phases]
    if args.mode == 'training':
        wrapper = make_optim_wrapper(model, config)
        run = Training(model, wrapper, args, device, clock)
    else:
        run = Inference(model, args, device, clock)

    def run_on_backend() -> Phases:
        with installed(), attention_backend(backend):
            return run()

    return run_on_backend if backend else run


def _settings(words: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Tell the settings of a variant from the name of its backend."""
    options, backend = {}, ''
    for word in words:
        if '=' in word:
            key, _, value = override(word).partition('=')
            options[key] = DictAction._parse_iterable(value)
        else:
            backend = word
    return options, backend


def make_optim_wrapper(model: nn.Module, config: Config) -> OptimWrapper:
    """Build what a training of the config takes steps with, small ones."""
    wrapper = copy.deepcopy(config.optim_wrapper)
    wrapper.optimizer.lr = 1e-6
    return build_optim_wrapper(model, without_mmengines(wrapper))


def read_config(path: str, options: dict | None) -> Config:
    """Read a config file, or one of an installed package."""
    if '::' not in path:
        return read_config_file(path, options)
    try:
        config = get_config(path)
    except Exception as error:  # mmengine raises anything
        raise UserError(f'The config {path} is not found: {error}') from error
    config.merge_from_dict(options or {})
    return config


class Inference:
    """Network, then post-processing, of images without padding."""

    def __init__(
        self,
        model: BaseDetector,
        args: argparse.Namespace,
        device: str,
        clock: Clock,
    ) -> None:
        image, samples = random_image(tuple(args.shape), device)
        self.images = image.repeat(args.batch_size, 1, 1, 1)
        self.samples = samples * args.batch_size
        self.model = model
        self.clock = clock
        self.after = Timed(model.bbox_head, 'predict_by_feat', clock)

    @torch.no_grad()
    def __call__(self) -> Phases:
        """Detect once."""
        start = self.clock()
        self.model.predict(self.images, self.samples)
        whole = self.clock() - start
        after = self.after.take()
        return {'network': whole - after, 'post-processing': after}


class Training:
    """A step of an optimizer wrapper, on random boxes."""

    def __init__(
        self,
        model: BaseDetector,
        wrapper: OptimWrapper,
        args: argparse.Namespace,
        device: str,
        clock: Clock,
    ) -> None:
        self.batch = random_batch(
            tuple(args.shape),
            args.batch_size,
            args.gts,
            model.bbox_head.num_classes,
            device,
        )
        self.model = model.train()
        self.wrapper = wrapper
        self.clock = clock
        self.losses = Timed(model.bbox_head, 'loss_by_feat', clock)
        self.clipping = Timed(wrapper, '_clip_grad', clock)

    def __call__(self) -> Phases:
        """Train one step."""
        times = [self.clock()]
        with self.wrapper.optim_context(self.model):
            loss = total(_terms(self.model.loss(*self.batch)))
        times.append(self.clock())
        self.wrapper.backward(loss)
        times.append(self.clock())
        self.wrapper.step()
        self.wrapper.zero_grad()
        times.append(self.clock())
        network, backward, step = (b - a for a, b in itertools.pairwise(times))
        losses, clipping = self.losses.take(), self.clipping.take()
        return {
            'network': network - losses,
            _LOSSES: losses,
            'backward': backward,
            'clipping': clipping,
            'optimiser': step - clipping,
        }


class Loading:
    """Images of the training set, with its augmentations, one after another.

    Args:
        config: Where dataset and pipeline stand.
        batch_size: Images of a run.
        clock: Reads the time.

    Raises:
        UserError: If the dataset is not there or cannot be trained on.
    """

    def __init__(self, config: Config, batch_size: int, clock: Clock) -> None:
        config = resolve_config(config)
        init_default_scope(config.get('default_scope', 'mmdet'))
        check_data(config, ['train'])
        dataset = DATASETS.build(config.train_dataloader.dataset)
        random.seed(0)
        np.random.seed(0)
        order = np.random.permutation(len(dataset)).tolist()
        self.images = itertools.cycle(order)
        self.dataset = dataset
        self.batch_size = batch_size
        self.clock = clock

    def __call__(self) -> Phases:
        """Load as many images as a batch has."""
        start = self.clock()
        for index in itertools.islice(self.images, self.batch_size):
            self.dataset[index]
        return {'data': self.clock() - start}


class Timed:
    """A method of an object, and how long its calls took."""

    def __init__(self, module: object, name: str, clock: Clock) -> None:
        self.spans: list[tuple[Any, Any]] = []
        method = getattr(module, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            try:
                return method(*args, **kwargs)
            finally:
                self.spans.append((start, clock()))

        setattr(module, name, timed)

    def take(self) -> float:
        """Seconds of all calls since the last time."""
        spans, self.spans = self.spans, []
        return sum(end - start for start, end in spans)


def _terms(losses: Mapping[str, Any]) -> list[torch.Tensor]:
    """Those of mmdet's losses that are trained, lists of them included."""
    terms = []
    for name, value in losses.items():
        if 'loss' in name:
            terms += value if isinstance(value, list) else [value]
    return terms


def measure(
    variants: Mapping[str, Callable[[], Phases]],
    repeats: int,
    device: str,
    of_memory: bool = False,
) -> dict[str, list[dict]]:
    """Run all in turn, once to warm up and then ``repeats`` times.

    Args:
        variants: What to run, by name.
        repeats: How often.
        device: Where they run.
        of_memory: Whether to look for the peak of memory on a CPU, too.

    Returns:
        Phases of each run, and the peak of its memory in MiB or None.
    """
    is_cuda = torch.device(device).type == 'cuda'
    runs: dict[str, list[dict]] = {name: [] for name in variants}
    for _ in range(repeats + 1):
        for name, run in variants.items():
            if is_cuda:
                torch.cuda.reset_peak_memory_stats(device)
            phases = run()
            peak = None
            if is_cuda:
                peak = torch.cuda.max_memory_allocated(device) / 2**20
            runs[name].append(dict(phases=phases, peak=peak))
    if of_memory and not is_cuda:
        for name, run in variants.items():
            runs[name][1]['peak'] = peak_memory(run)
    return {name: found[1:] for name, found in runs.items()}


def summarise(
    runs: Mapping[str, Sequence[dict]], batch_size: int
) -> list[dict]:
    """Medians, ratios to the first detector and shares of the phases.

    Args:
        runs: As :func:`measure` returns them.
        batch_size: Images of a run.

    Returns:
        One row for each detector.
    """
    wholes = {
        name: [sum(run['phases'].values()) for run in found]
        for name, found in runs.items()
    }
    first = next(iter(wholes.values()))
    rows = []
    for name, found in runs.items():
        seconds = median(wholes[name])
        spans = {
            phase: median(run['phases'][phase] for run in found)
            for phase in found[0]['phases']
        }
        whole = sum(spans.values())
        row = dict(
            name=name,
            seconds=seconds,
            ratio=median_ratio(wholes[name], first),
            images_per_second=batch_size / seconds,
            peak_mib=found[0]['peak'],
            shares={phase: span / whole for phase, span in spans.items()},
        )
        rows.append(row)
    return rows
