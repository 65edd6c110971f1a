"""Detectors on two processes, of which only one has objects."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from torch import nn

import project  # noqa: F401
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
TABLE = 'dn_query_generator.label_embedding.weight'


class LossOnly(nn.Module):
    """What a training step computes, for DDP's hooks."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, *batch) -> dict:
        return self.detector.loss(*batch)


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
    (path,) = SHIPPED.glob(f'*/{config}.py')
    settings = tiny_model_config(path)
    if config in HPR:
        settings.decoder.layer_cfg.dy_conv_cfg.feat_channels = 8
    detector = build_model(settings).train()
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


@pytest.mark.parametrize('configs', [DN, HPR], ids=['dn', 'hpr'])
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
