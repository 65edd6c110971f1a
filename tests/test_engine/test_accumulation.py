"""A training that resumes between two optimizer steps ends as any other."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import RUNNERS
from torch import Tensor

from tests.helpers.training import (
    TOY_CONFIG,
    run_tool,
    toy_config,
    toy_data,
)

__all__ = ['toy_data']

COUNTS = 3  # of four iterations per epoch
KEY = 'accumulated_gradients'


def train(
    data: Path, work_dir: Path, start: Path | None = None, **options: object
) -> dict[str, Tensor]:
    """Train for three epochs; returns the weights."""
    cfg = toy_config(
        data,
        work_dir,
        train_cfg__max_epochs=3,
        train_dataloader__batch_size=2,
        default_hooks__checkpoint__interval=1,
        **{'optim_wrapper__accumulative_counts': COUNTS, **options},
    )
    if start is not None:
        cfg.load_from, cfg.resume = str(start), True
    runner = RUNNERS.build(cfg)
    runner.train()
    return runner.model.state_dict()


@pytest.fixture(scope='module')
def undisturbed(
    toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Tensor]]:
    work_dir = tmp_path_factory.mktemp('undisturbed')
    return work_dir, train(toy_data, work_dir)


@pytest.mark.parametrize('epoch', [1, 2])
def test_weights_are_those_of_an_undisturbed_training(
    undisturbed: tuple[Path, dict[str, Tensor]],
    toy_data: Path,
    tmp_path: Path,
    epoch: int,
) -> None:
    work_dir, expected = undisturbed
    start = work_dir / f'epoch_{epoch}.pth'
    assert KEY in torch.load(start, weights_only=True)
    found = train(toy_data, tmp_path, start)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_checkpoint_after_a_step_has_none(
    undisturbed: tuple[Path, dict[str, Tensor]],
) -> None:
    last = undisturbed[0] / 'epoch_3.pth'
    assert KEY not in torch.load(last, weights_only=True)


@pytest.mark.parametrize('counts', [COUNTS, 7])
def test_what_is_lost_is_told(
    undisturbed: tuple[Path, dict[str, Tensor]],
    toy_data: Path,
    tmp_path: Path,
    counts: int,
) -> None:
    """As of a checkpoint of mmengine's, or one with other counts."""
    start = torch.load(undisturbed[0] / 'epoch_1.pth')
    if counts == COUNTS:
        del start[KEY]
    torch.save(start, tmp_path / 'start.pth')
    train(
        toy_data,
        tmp_path / 'work',
        tmp_path / 'start.pth',
        optim_wrapper__accumulative_counts=counts,
    )
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    lost = 4 % counts
    assert f'lacks the gradients of {lost} of its {counts} forward' in log


@pytest.mark.slow
def test_two_processes(toy_data: Path, tmp_path: Path) -> None:
    """Their gradients differ until a step; the mean gives the same step."""

    def train_both(name: str, *options: str) -> dict[str, Tensor]:
        result = run_tool(
            'dist_train.sh',
            TOY_CONFIG,
            '2',
            tmp_path / name,
            '--resume',
            '--cfg-options',
            f'data_root={toy_data}',
            f'optim_wrapper.accumulative_counts={COUNTS}',
            'train_dataloader.batch_size=1',
            'max_epochs=3',
            *options,
        )
        assert result.returncode == 0, result.stderr
        return torch.load(tmp_path / name / 'epoch_3.pth')['state_dict']

    expected = train_both('undisturbed')
    onward = tmp_path / 'onward'
    onward.mkdir()
    (tmp_path / 'undisturbed/epoch_1.pth').rename(onward / 'epoch_1.pth')
    found = train_both('onward')
    lost = torch.load(onward / 'epoch_1.pth')
    del lost[KEY]
    (tmp_path / 'lost').mkdir()
    torch.save(lost, tmp_path / 'lost/epoch_1.pth')
    without = train_both('lost')
    errors = {
        which: max(
            (weights[name].double() - value).abs().max().item()
            for name, value in expected.items()
        )
        for which, weights in (('found', found), ('without', without))
    }
    print(errors)
    assert errors['found'] < 0.01 * errors['without']
