"""Detectors on two processes, of which only one has objects."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, nn

import project  # noqa: F401
from project.models.losses import set_criterion
from tests.helpers.configs import CONFIGS as SHIPPED
from tests.helpers.toy import build_model, tiny_model_config, toy_batch

NUM_STEPS = 3
DN = [
    'dn-detr_r50_8xb2-50e_coco',
    'dn-deformable-detr_r50_8xb2-50e_coco-detrex',
    'dn-deformable-encoder-detr_r50_3pat_16xb1-12e_coco',
]
HPR = [
    'hpr-deformable-detr_r50_8xb2-12e_coco',
    'hpr-dino_r50_8xb2-12e_coco',
    'hpr-align-detr_r50_8xb2-12e_coco',
    'hpr-ddq_r50_8xb2-88k_coco',
]
KINDS = [
    'align-detr_r50_8xb2-12e_coco',
    'anchor-detr_r50_8xb1-50e_coco',
    'anchor-detr_r50_8xb2-50e_coco',
    'deta_r50_5scale_8xb2-12e_coco',
    'deta_r50_5scale_8xb2-12e_coco-detrex',
    'deta_r50_improved-baseline_8xb2-50e_coco',
    *DN,
    'dn-deformable-detr_r50_8xb2-50e_coco',
    'dn-detr_r50_8xb2-50e_coco-detrex',
    'dn-detr_r50-dc5_3pat_16xb1-12e_coco',
    'h-detr_r50_8xb2-12e_coco',
    'h-detr_r50_8xb2-12e_coco-detrex',
    'h-detr_r50_baseline_8xb2-12e_coco',
    'h-detr_r50_baseline-tricks_8xb2-12e_coco',
    'h-detr_r50_no-tricks_8xb2-12e_coco',
    'h-detr_r50_one-stage_8xb2-50e_coco',
    'h-detr_r50_one-stage-refine_8xb2-50e_coco',
    'h-detr_r50_one-stage-single-scale_8xb2-50e_coco',
    *HPR,
    'hpr-h-detr_r50_8xb2-12e_coco',
    'hpr-rank-detr_r50_8xb2-12e_coco',
    'rank-detr_r50_8xb2-12e_coco',
    'rank-detr_r50_baseline_8xb2-12e_coco',
    'rank-detr_r50_no-gcl_8xb2-12e_coco',
    'rank-detr_r50_no-hmc_8xb2-12e_coco',
    'rank-detr_r50_no-qrl_8xb2-12e_coco',
    'rank-detr_r50_no-rch_8xb2-12e_coco',
]
"""Every family, and every kind of shipped config that computes otherwise."""
OBJECTS = (((0, 0), (3, 2)), ((4, 1), (0, 0)), ((0, 0), (0, 0)))
"""In each step, on each rank, in each image."""
TABLE = 'dn_query_generator.label_embedding.weight'


class LossOnly(nn.Module):
    """What a training step computes, for DDP's hooks."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, *batch) -> dict:
        return self.detector.loss(*batch)


def small_detector(config: str) -> nn.Module:
    (path,) = SHIPPED.glob(f'*/{config}.py')
    settings = tiny_model_config(path)
    if config.startswith('hpr'):
        settings.decoder.layer_cfg.dy_conv_cfg.feat_channels = 8
    return build_model(settings).train()


def run_rank(
    rank: int, folder: str, configs: list[str], num_gts: tuple
) -> None:
    """One process: train each config."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        world_size=2,
        rank=rank,
        timeout=timedelta(seconds=120),
    )
    for config in configs:
        results = train(rank, config, num_gts[rank])
        torch.save(results, f'{folder}/{config}.rank{rank}.pth')
    dist.destroy_process_group()


def train(rank: int, config: str, num_gts: tuple[int, int]) -> dict:
    """Train a few steps.

    Returns:
        The losses of the last step, and the weights before and after.
    """
    detector = small_detector(config)
    start = {name: w.clone() for name, w in detector.state_dict().items()}
    model = MMDistributedDataParallel(
        LossOnly(detector), find_unused_parameters=False
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(NUM_STEPS):
        batch = toy_batch(num_gts=num_gts, seed=10 * step + rank)
        losses = {
            name: torch.stack(value) if isinstance(value, list) else value
            for name, value in model(*batch).items()
        }
        optimizer.zero_grad()
        sum(value.sum() for value in losses.values()).backward()
        optimizer.step()
    values = {name: value.sum().item() for name, value in losses.items()}
    return dict(losses=values, start=start, weights=detector.state_dict())


@pytest.mark.parametrize(
    'configs',
    [
        pytest.param(DN, id='dn'),
        pytest.param(HPR, id='hpr', marks=pytest.mark.slow),
    ],
)
def test_training(tmp_path: Path, configs: list[str]) -> None:
    """The second process has objects, in one of its images.

    Processes are slow to start: the same two train all configs.
    """
    num_gts = ((0, 0), (0, 3))
    mp.spawn(run_rank, (str(tmp_path), configs, num_gts), nprocs=2)
    for config in configs:
        empty, full = (
            torch.load(tmp_path / f'{config}.rank{rank}.pth')
            for rank in (0, 1)
        )
        check_ranks_stayed_together(empty, full)
        assert (TABLE in full['weights']) == (config != HPR[0])
        if config != HPR[0]:
            check_denoising(empty, full, num_heads=1 if configs == DN else 3)
        if configs == HPR:
            check_refiners(full)


def check_ranks_stayed_together(empty: dict, full: dict) -> None:
    assert empty['losses'].keys() == full['losses'].keys()
    torch.testing.assert_close(
        empty['weights'], full['weights'], rtol=0, atol=0
    )
    matched = [name for name in full['losses'] if name.endswith('_iou')]
    assert all(empty['losses'][name] == 0 for name in matched)
    assert all(full['losses'][name] > 0 for name in matched)


def check_denoising(empty: dict, full: dict, num_heads: int) -> None:
    """It trains though one rank has no objects."""
    noised = [name for name in empty['losses'] if 'dn_' in name]
    assert len(noised) == 6 * num_heads
    assert all(empty['losses'][name] == 0 for name in noised)
    assert all(full['losses'][name] > 0 for name in noised)
    assert not full['weights'][TABLE].equal(full['start'][TABLE])


def check_refiners(results: dict) -> None:
    """All that HPR adds trains."""
    start, weights = results['start'], results['weights']
    added = re.compile(r'merger|regional_ca|dy_conv|bbox_head_aux')
    names = [name for name in weights if added.search(name)]
    assert names
    for name in names:
        assert not weights[name].equal(start[name]), name


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    """The same images in one process, to 1e-11 in float64.

    Losses of each rank, the averaged gradient and the weights in the end.
    """
    compare_with_one_process(tmp_path, KINDS)


def compare_with_one_process(tmp_path: Path, configs: list[str]) -> None:
    mp.spawn(run_kinds, (str(tmp_path), configs), nprocs=2)
    worst = {}
    for config in configs:
        first, second = (
            torch.load(tmp_path / f'{config}.rank{rank}.pth')
            for rank in (0, 1)
        )
        for name, weight in first['weights'].items():
            assert weight.equal(second['weights'][name]), (config, name)
        expected = train_both_halves(config)
        worst[config] = max(
            _largest_gap(found['losses'], wanted)
            for found, wanted in zip(
                (first, second), expected['losses'], strict=True
            )
        )
        assert worst[config] < 1e-11, config
        for name, gradients in expected['gradients'].items():
            gap = (gradients - first['gradients'][name]).norm()
            assert gap <= 1e-11 * max(1.0, gradients.norm()), (config, name)
        for name, weight in expected['weights'].items():
            torch.testing.assert_close(
                first['weights'][name], weight, rtol=1e-7, atol=1e-9
            )
    print(
        '\n'.join(
            f'{name}: losses to {gap:.1g}' for name, gap in worst.items()
        )
    )


def _largest_gap(found: list[dict], expected: list[dict]) -> float:
    """Relative, of all the losses of all steps."""
    gaps = [0.0]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            scale = max(abs(value), 1e-6)
            gaps.append(abs(ours[name] - value) / scale)
    return max(gaps)


def run_kinds(rank: int, folder: str, configs: list[str]) -> None:
    """One process: train every kind in turn."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/kinds',
        world_size=2,
        rank=rank,
        timeout=timedelta(seconds=600),
    )
    for config in configs:
        detector = small_detector(config).double()
        model = MMDistributedDataParallel(
            LossOnly(detector), find_unused_parameters=False
        )
        optimizer = _optimizer(detector)
        losses = []
        for step in range(len(OBJECTS)):
            values = _losses(model, step, rank)
            losses.append({name: float(v) for name, v in values.items()})
            optimizer.zero_grad()
            sum(values.values()).backward()
            gradients = _gradients(detector)
            optimizer.step()
        torch.save(
            dict(
                losses=losses,
                gradients=gradients,
                weights=detector.state_dict(),
            ),
            f'{folder}/{config}.rank{rank}.pth',
        )
    dist.destroy_process_group()


def train_both_halves(config: str) -> dict:
    """In this process, with the mean of what both halves divide by."""
    detector = small_detector(config).double()
    optimizer = _optimizer(detector)
    losses = [], []
    for step in range(len(OBJECTS)):
        counts = []
        for rank in (0, 1):
            with _divided_by([], counts), torch.no_grad():
                _losses(LossOnly(detector), step, rank)
        half = len(counts) // 2
        means = [
            (a + b) / 2
            for a, b in zip(counts[:half], counts[half:], strict=True)
        ]
        optimizer.zero_grad()
        for rank in (0, 1):
            with _divided_by(means, []):
                values = _losses(LossOnly(detector), step, rank)
            losses[rank].append({name: float(v) for name, v in values.items()})
            (sum(values.values()) / 2).backward()
        gradients = _gradients(detector)
        optimizer.step()
    return dict(
        losses=losses, gradients=gradients, weights=detector.state_dict()
    )


@contextmanager
def _divided_by(means: list[Tensor], counts: list[Tensor]) -> Iterator[None]:
    """Note what would be averaged over the ranks, and give these means."""
    answers = iter(means)

    def reduce_mean(numbers: Tensor) -> Tensor:
        counts.append(numbers.clone())
        return next(answers, numbers)

    with mock.patch.object(set_criterion, 'reduce_mean', reduce_mean):
        yield


def _losses(model: nn.Module, step: int, rank: int) -> dict[str, Tensor]:
    """Of a rank's images in a step, with the random numbers of both."""
    batch, samples = toy_batch(
        num_gts=OBJECTS[step][rank], seed=10 * step + rank
    )
    torch.manual_seed(100 * step + rank)
    return {
        name: sum(value).sum() if isinstance(value, list) else value.sum()
        for name, value in model(batch.double(), samples).items()
    }


def _gradients(detector: nn.Module) -> dict[str, Tensor]:
    """Of all that is trained: none may be missing."""
    return {
        name: parameter.grad.clone()
        for name, parameter in detector.named_parameters()
        if parameter.requires_grad
    }


def _optimizer(detector: nn.Module) -> torch.optim.Optimizer:
    parameters = [p for p in detector.parameters() if p.requires_grad]
    return torch.optim.AdamW(parameters, lr=1e-4)
