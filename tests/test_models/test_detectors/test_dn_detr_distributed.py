"""DN-DETR on two processes, of which only one has objects."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from torch import nn

import project  # noqa: F401
from tests.helpers.toy import build_model, tiny_model_config, toy_batch

NUM_STEPS = 3
CONFIGS = [
    'dn-detr_r50_8xb2-50e_coco.py',
    'dn-deformable-detr_r50_8xb2-50e_coco-detrex.py',
    'dn-deformable-encoder-detr_r50_3pat_16xb1-12e_coco.py',
]


class LossOnly(nn.Module):
    """What a training step computes, for DDP's hooks."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, *batch) -> dict:
        return self.detector.loss(*batch)


def run_rank(rank: int, folder: str, num_gts: tuple) -> None:
    """One process: train each config."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        world_size=2,
        rank=rank,
        timeout=timedelta(seconds=60),
    )
    for config in CONFIGS:
        results = train(rank, config, num_gts[rank])
        torch.save(results, f'{folder}/{config}.rank{rank}.pth')
    dist.destroy_process_group()


def train(rank: int, config: str, num_gts: tuple[int, int]) -> dict:
    """Train a few steps.

    Returns:
        The losses of the last step, and the weights before and after.
    """
    detector = build_model(tiny_model_config(f'dn_detr/{config}')).train()
    start = {name: w.clone() for name, w in detector.state_dict().items()}
    model = MMDistributedDataParallel(
        LossOnly(detector), find_unused_parameters=False
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(NUM_STEPS):
        batch = toy_batch(num_gts=num_gts, seed=10 * step + rank)
        losses = model(*batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    values = {name: value.item() for name, value in losses.items()}
    return dict(losses=values, start=start, weights=detector.state_dict())


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results; the second process has objects, in one of its images."""
    path = tmp_path_factory.mktemp('ranks')
    mp.spawn(run_rank, (str(path), ((0, 0), (0, 3))), nprocs=2)
    return path


@pytest.mark.parametrize('config', CONFIGS)
def test_ranks_stay_together(folder: Path, config: str) -> None:
    empty, full = (
        torch.load(folder / f'{config}.rank{rank}.pth') for rank in (0, 1)
    )
    assert empty['losses'].keys() == full['losses'].keys()
    noised = [name for name in empty['losses'] if 'dn_' in name]
    assert len(noised) == 6
    assert all(empty['losses'][name] == 0 for name in noised)
    assert all(full['losses'][name] > 0 for name in noised)
    torch.testing.assert_close(
        empty['weights'], full['weights'], rtol=0, atol=0
    )
    table = 'dn_query_generator.label_embedding.weight'
    assert not full['weights'][table].equal(full['start'][table])
