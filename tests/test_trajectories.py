"""Thirty optimiser steps equal those of the official trainers, in float64.

``pytest -m slow tests/test_trajectories.py --trajectories DIR``; without the
folder there is nothing to test. ``-rP`` shows the figures.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import Tensor

from tests.helpers.configs import CONFIGS
from tests.helpers.golden_systems import Entry, system_of
from tests.helpers.trajectories import (
    Recorder,
    Trajectory,
    noise_of,
    train,
)
from tests.helpers.trajectory_models import completed_model, shipped_config

ENTRIES = {
    'deta': (
        'jozhang97/DETA',
        dict(num_queries=90, num_classes=91, enc_layers=6, pre_nms=200),
    ),
    'rank_detr': (
        'LeapLabTHU/Rank-DETR',
        dict(
            backbone='resnet50',
            num_queries_one2one=60,
            num_queries_one2many=180,
            nheads=8,
            matcher=dict(matcher_change_iter=15),
        ),
    ),
    'dn_deformable': (
        'IDEA-Research/DN-DETR',
        dict(
            method='DN-Deformable-DETR',
            num_classes=91,
            num_queries=50,
            dn_groups=5,
            label_noise=0.2,
            box_noise=0.4,
        ),
    ),
}
"""What trainings of other systems may name of their models."""


@pytest.mark.parametrize('name', ENTRIES)
def test_a_short_description_of_a_model(name: str) -> None:
    """The rest are the published settings."""
    repository, entry = ENTRIES[name]
    meta = dict(
        source=dict(repository=repository, files=[]),
        model=entry,
        losses=dict(loss_ce=1.0, loss_bbox=5.0, loss_giou=2.0),
    )
    meta['model'] = Entry(completed_model(meta, 30))
    model = system_of(meta).build_config(meta)
    config = Config.fromfile(CONFIGS / shipped_config(meta))
    assert model.type == config.model.type
    assert model.encoder.num_layers == 6
    assert model.num_queries in (90, 60, 50)
    if name == 'rank_detr':  # in the middle of the 30 steps
        assert model.train_cfg.assigner.late_begin == 0.5


def test_noise_of_a_description() -> None:
    text = (
        'step s: r = numpy.random.RandomState(7 + s); n = groups x targets; '
        'p = float32(r.rand(n)); new = r.randint(0, 91, n); '
        'box = r.rand(n, 4); the label of a target whose p < 0.2 becomes new'
    )
    noise = noise_of(text, lambda: 3)(2, torch.device('cpu'))
    random = np.random.RandomState(10)
    expected = random.rand(2), random.randint(0, 91, 2), random.rand(2, 4)
    assert noise.label_rand.dtype == torch.float32
    assert noise.label_rand.tolist() == expected[0].astype('float32').tolist()
    assert noise.labels.tolist() == expected[1].tolist()
    assert noise.box_rand.tolist() == expected[2].tolist()
    assert noise.box_sign is None


@pytest.mark.slow
def test_trajectory(trajectory_stem: Path, tmp_path: Path) -> None:
    trajectory = Trajectory(trajectory_stem)
    recorder, names = train(trajectory, tmp_path)
    check_losses(trajectory, recorder)
    check_norms(trajectory, recorder)
    check_rates(trajectory, recorder, names)
    check_distances(trajectory, recorder, names)
    figures = ', '.join(
        f'{what} {value:.2g}' for what, value in trajectory.worst.items()
    )
    print(f'{trajectory_stem.name}: largest relative differences: {figures}')
    if trajectory.mismatches:
        lines = '\n  '.join(trajectory.mismatches)
        pytest.fail(f'{len(trajectory.mismatches)} mismatches\n  {lines}')


def check_losses(trajectory: Trajectory, recorder: Recorder) -> None:
    """Every term of every step, before its weight, and their sum."""
    arrays, meta = trajectory.arrays, trajectory.meta
    allowed = meta['tolerance']['loss_relative']
    ours = {name: meta['losses'][name] for name in meta['loss_terms']}
    names = {name: trajectory.system.loss_name(name) for name in ours}
    expected_names = set(names.values())
    for step, losses in enumerate(recorder.losses):
        given = losses.keys() - {'loss'}
        assert given <= expected_names, given - expected_names
        for name, expected in zip(
            meta['loss_terms'], arrays['losses'][step], strict=True
        ):
            if np.isnan(expected):  # the source has no such term here
                assert not losses.get(names[name]), (step, name)
                continue
            trajectory.relative(
                'loss',
                f'step {step}, {name}',
                _double(losses[names[name]] / ours[name]),
                _double(expected),
                allowed,
            )
    trajectory.relative(
        'loss',
        'loss.total',
        _double([losses['loss'] for losses in recorder.losses]),
        torch.from_numpy(arrays['loss.total']),
        allowed,
    )


def check_norms(trajectory: Trajectory, recorder: Recorder) -> None:
    trajectory.relative(
        'grad_norm',
        'grad_norm',
        _double(recorder.norms),
        torch.from_numpy(trajectory.arrays['grad_norm']),
        trajectory.meta['tolerance']['grad_norm_relative'],
    )


def check_rates(
    trajectory: Trajectory, recorder: Recorder, names: dict[str, str]
) -> None:
    """Learning rate in each step and weight decay, parameter by parameter."""
    rates = torch.from_numpy(trajectory.arrays['lr'])
    seen = set()
    for index, group in enumerate(trajectory.meta['optimiser']['groups']):
        for name in group['parameters']:
            ours = names[name]
            seen.add(recorder.places[ours])
            trajectory.relative(
                'lr',
                f'lr of {name}',
                _double([r[ours] for r in recorder.rates]),
                rates[:, index],
                trajectory.meta['tolerance']['lr_relative'],
            )
            assert recorder.decays[ours] == group['weight_decay'], name
    left = set(recorder.places.values()) - seen
    assert not left, [n for n, p in recorder.places.items() if p in left]


def check_distances(
    trajectory: Trajectory, recorder: Recorder, names: dict[str, str]
) -> None:
    """How far each weight has gone, and what it then adds up to."""
    allowed = trajectory.meta['tolerance']['moved_relative']
    start = recorder.weights[0]
    for steps, weights in recorder.weights.items():
        if not steps:
            continue
        pairs = [
            (start[names[name]], weights[names[name]])
            for name in trajectory.meta['parameters']
        ]
        trajectory.relative(
            'moved',
            f'moved.{steps}',
            _stack([(b - a).norm() for a, b in pairs]),
            torch.from_numpy(trajectory.arrays[f'moved.{steps}']),
            allowed,
        )
        sums = trajectory.arrays.get(f'weight_sum.{steps}')
        if sums is not None:
            check_sums(trajectory, steps, pairs, sums)


def check_sums(
    trajectory: Trajectory,
    steps: int,
    pairs: list[tuple[Tensor, Tensor]],
    sums: np.ndarray,
) -> None:
    """As far off as weights could be that have moved as told, and rounding."""
    allowed = trajectory.meta['tolerance']['moved_relative']
    for name, (a, b), expected in zip(
        trajectory.meta['parameters'], pairs, sums, strict=True
    ):
        gap = abs(float(b.sum()) - expected)
        limit = allowed * float((b - a).norm()) * b.numel() ** 0.5
        limit += 1e-13 * float(b.abs().sum())
        if not gap <= limit:
            trajectory.mismatches.append(
                f'weight_sum.{steps} of {name}: off by {gap:.3g}, allowed '
                f'{limit:.3g}'
            )


def _double(numbers: float | list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _stack(values: list[Tensor]) -> Tensor:
    return torch.stack(values).double()
