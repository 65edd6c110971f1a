# Copyright (c) mmdetr authors. All rights reserved.
"""Trainings of several methods, and what they gave, in one folder."""

import argparse
import itertools
import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from _benchmarking import Clock
from _cli import build_runner
from _comparison_report import write_report
from _methods import METHODS, small_config
from _variants import build_variant, measure
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from project.datasets.shapes import ShapesSpec, make_shapes
from project.preflight.config_files import read_config_file
from project.preflight.variables import set_max_epochs
from project.utils.errors import UserError

_OBJECTS = 3  # of an image of the shapes dataset, on average


class Comparison:
    """A folder of trainings that are alike but for the method.

    Args:
        out: The folder. It may hold the beginning of the same comparison.
        args: The command line.

    Raises:
        UserError: If a method is unknown, or the folder holds trainings with
            other settings.
    """

    def __init__(self, out: Path, args: argparse.Namespace) -> None:
        self.out = out
        self.epochs = sorted(set(args.epochs))
        self.methods = chosen(args.methods)
        self.options = args.cfg_options or {}
        train, val = args.images
        hold_settings(
            out,
            dict(
                epochs=self.epochs,
                images=[train, val],
                threads=args.threads,
                options=self.options,
            ),
        )
        self.configs = {
            name: self._write_config(name) for name in self.methods
        }
        size = read_config_file(self.configs[self.methods[0]]).image_size
        self.spec = ShapesSpec(train, val, size)
        make_shapes(out / 'data', self.spec)

    def _write_config(self, name: str) -> Path:
        """Write the complete config of a method, for all of its seeds."""
        config = small_config(METHODS[name])
        config.data_root = f'{self.out / "data"}/'
        set_max_epochs(config._cfg_dict, self.epochs[-1])
        config.merge_from_dict(self.options)
        path = self.out / 'configs' / f'{_slug(name)}.py'
        path.parent.mkdir(exist_ok=True)
        # Laid out for people each would take a second.
        Config(config.to_dict(), format_python_code=False).dump(path)
        return path

    def time_steps(self, repeats: int) -> None:
        """Time training steps of all methods in turn, and their memory.

        Args:
            repeats: Steps of each method after one to warm up.
        """
        path = self.out / 'steps.json'
        if set(self.methods) <= set(_read(path)):
            return
        options = argparse.Namespace(
            cfg_options=None,
            mode='training',
            shape=(self.spec.size, self.spec.size),
            batch_size=4,
            gts=_OBJECTS,
        )
        clock = Clock('cpu', of_cpu=True)
        variants = {
            name: build_variant(str(config), options, 'cpu', clock)
            for name, config in self.configs.items()
        }
        steps = {
            name: dict(
                seconds=median(sum(r['phases'].values()) for r in runs),
                peak_mib=runs[0]['peak'],
            )
            for name, runs in measure(variants, repeats, 'cpu', True).items()
        }
        path.write_text(json.dumps(steps, indent=1) + '\n')
        self.report()

    def train(self, name: str, seed: int) -> None:
        """Train a method to the end, unless it is, and write the report."""
        folder = self.out / 'runs' / _slug(name) / f'seed-{seed}'
        noted = folder / 'ap.json'
        found = _read(noted)
        if not set(map(str, self.epochs)) <= set(found):
            config = read_config_file(self.configs[name])
            _drop_unevaluated(folder, self.epochs, found)
            config.train_cfg.val_interval = self.epochs[0]
            config.train_cfg.dynamic_intervals = self._intervals()
            config.work_dir = str(folder)
            config.launcher = 'none'
            config.resume = True
            config.randomness.seed = seed
            config.experiment_name = uuid.uuid4().hex
            config.visualizer.name = config.experiment_name
            runner = build_runner(config)
            runner.register_hook(_NoteAP(noted))
            runner.train()
        self.report()

    def _intervals(self) -> list[tuple[int, int]]:
        """Epochs at which mmengine is to change the validation interval.

        It chooses the interval by the epoch that comes next.
        """
        pairs = itertools.pairwise(self.epochs)
        return [(before + 2, epoch) for before, epoch in pairs]

    def report(self) -> None:
        """Write what there is by now."""
        trained: dict[str, dict[str, dict]] = {}
        for name in self.methods:
            folder = self.out / 'runs' / _slug(name)
            trained[name] = {
                path.parent.name.removeprefix('seed-'): _read(path)
                for path in sorted(folder.glob('seed-*/ap.json'))
            }
        settings = _read(self.out / 'settings.json')
        steps = _read(self.out / 'steps.json')
        write_report(self.out, settings, trained, steps)


class _NoteAP(Hook):
    """Writes the AP of each evaluation into a file, by epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Add an evaluation."""
        found = _read(self.path)
        found[str(runner.epoch)] = (metrics or {})['coco/bbox_mAP']
        self.path.write_text(json.dumps(found) + '\n')


def _read(path: Path) -> dict[str, Any]:
    """What a file of JSON holds, nothing if it is not there."""
    return json.loads(path.read_text()) if path.exists() else {}


def hold_settings(out: Path, settings: dict[str, Any]) -> None:
    """Note the settings of trainings, or compare them with those noted.

    Args:
        out: Folder of the trainings.
        settings: What they have in common, as JSON holds it.

    Raises:
        UserError: If the folder holds trainings with other settings.
    """
    path = out / 'settings.json'
    if not path.exists():
        path.write_text(json.dumps(settings, indent=1) + '\n')
        return
    for key, noted in json.loads(path.read_text()).items():
        if noted != settings[key]:
            raise UserError(
                f'{out} holds trainings with {key}={noted}, not '
                f'{settings[key]}; name another folder with --out'
            )


def chosen(names: Sequence[str] | None) -> list[str]:
    """Methods by their names; all of them without any."""
    for name in names or ():
        if name not in METHODS:
            raise UserError(
                f'--methods knows no {name!r}; expected some of '
                f'{", ".join(map(repr, METHODS))}'
            )
    return [name for name in METHODS if not names or name in names]


def _slug(name: str) -> str:
    """A method's name as that of a file."""
    return name.lower().replace(', ', '_').replace(' ', '-')


def _drop_unevaluated(
    folder: Path, epochs: Sequence[int], found: Mapping[str, float]
) -> None:
    """Remove a training that was killed between checkpoint and evaluation."""
    for checkpoint in folder.glob('epoch_*.pth'):
        done = int(checkpoint.stem.removeprefix('epoch_'))
        if any(e <= done and str(e) not in found for e in epochs):
            shutil.rmtree(folder)
            return
