"""A training that diverges ends before anything of it is saved."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from project.engine import DETRRunner
from project.engine.hooks import FiniteHook
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from project.utils.finite import not_finite
from tests.helpers.hooks import BreakStep, read_losses
from tests.helpers.training import (
    WATCHED_CONFIG,
    assert_one_sentence,
    run_tool,
    toy_config,
)


def config(toy_data: Path, work_dir: Path, **options: Any) -> Config:
    """Two steps an epoch, each epoch evaluated and saved, the best as well."""
    return toy_config(
        toy_data,
        work_dir,
        train_cfg__max_epochs=2,
        train_cfg__val_interval=1,
        default_hooks__checkpoint__save_best='auto',
        **options,
    )


def saved(work_dir: Path) -> list[str]:
    return sorted(path.name for path in work_dir.glob('*.pth'))


@pytest.mark.parametrize('runner_type', [DETRRunner, Runner])
def test_a_loss(
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runner_type: type,
) -> None:
    """In mmengine's own runner, too."""
    monkeypatch.setenv('NAN_AT', '3')
    cfg = resolve_config(config(toy_data, tmp_path))
    runner = runner_type.from_cfg(cfg)
    runner.register_hook(BreakStep())
    before = {}

    class Watch(Hook):
        def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
            for name, value in runner.model.state_dict().items():
                before[name] = value.clone()

    runner.register_hook(Watch())
    with pytest.raises(UserError) as error:
        runner.train()
    for words in (
        'in iteration 4',
        'loss_cls',
        'encoder.layers.0.norms.1 (LayerNorm)',
    ):
        assert words in str(error.value)
    names = saved(tmp_path)
    assert 'epoch_1.pth' in names
    assert 'epoch_2.pth' not in names
    for name, value in runner.model.state_dict().items():
        assert value.equal(before[name]), name


class BreakWeights(Hook):
    """Loses a weight after the last step of an epoch."""

    priority = 'HIGHEST'

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if runner.iter == 1:
            runner.model.level_embed.data[0, 0] = torch.nan


@pytest.mark.parametrize('runner_type', [DETRRunner, Runner])
def test_a_weight_after_the_last_step(
    toy_data: Path, tmp_path: Path, runner_type: type
) -> None:
    """It would have been saved, evaluated and called the best."""
    runner = runner_type.from_cfg(resolve_config(config(toy_data, tmp_path)))
    runner.register_hook(BreakWeights())
    if runner_type is Runner:
        runner.register_hook(FiniteHook())
    with pytest.raises(UserError, match=r'level_embed\): the training has d'):
        runner.train()
    assert saved(tmp_path) == []


def test_mmengines_runner_evaluates_no_such_weight(
    toy_data: Path, tmp_path: Path
) -> None:
    runner = Runner.from_cfg(resolve_config(config(toy_data, tmp_path)))
    runner.register_hook(BreakWeights())
    with pytest.raises(UserError, match=r'The detections in .*level_embed'):
        runner.train()
    assert not any('best' in name for name in saved(tmp_path))


def test_a_gradient(toy_data: Path, tmp_path: Path) -> None:
    """Of a finite loss; by the gradients' norm every weight is lost."""
    runner = DETRRunner.from_cfg(config(toy_data, tmp_path))
    runner.model.level_embed.register_hook(lambda grad: grad * torch.nan)
    with pytest.raises(
        UserError, match=r'after iteration 1: its losses are finite .* is nan'
    ):
        runner.train()
    assert saved(tmp_path) == []


@pytest.fixture(scope='module')
def broken_checkpoint(
    toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What a training that diverged would have saved."""
    folder = tmp_path_factory.mktemp('diverged')
    cfg = toy_config(
        toy_data,
        folder,
        train_cfg__max_epochs=1,
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        DETRRunner.from_cfg(cfg).train()
    path = folder / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=True)
    for value in checkpoint['state_dict'].values():
        if value.is_floating_point():
            value.fill_(torch.nan)
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize('task', ['train', 'test', 'resume'])
def test_a_checkpoint(
    toy_data: Path, tmp_path: Path, broken_checkpoint: Path, task: str
) -> None:
    cfg = config(toy_data, tmp_path, load_from=str(broken_checkpoint))
    cfg.resume = task == 'resume'
    runner = DETRRunner.from_cfg(cfg)
    run = runner.test if task == 'test' else runner.train
    with pytest.raises(UserError, match=r'epoch_1\.pth holds NaN or infinity'):
        run()


@pytest.mark.slow
@pytest.mark.parametrize('rank', ['0', '1'])
def test_two_processes(toy_data: Path, tmp_path: Path, rank: str) -> None:
    """Both stop at the step at which one of them has NaN."""
    begin = time.monotonic()
    result = run_tool(
        'dist_train.sh',
        WATCHED_CONFIG,
        '2',
        tmp_path,
        '--cfg-options',
        f'data_root={toy_data}',
        'train_dataloader.batch_size=2',
        'default_hooks.checkpoint.save_best=auto',
        env=dict(NAN_AT='3', NAN_RANK=rank),
    )
    assert_one_sentence(
        result, 'in iteration 4', 'loss_cls', 'encoder.layers.0.norms.1'
    )
    assert saved(tmp_path) == ['epoch_1.pth']
    assert [len(read_losses(tmp_path, rank)) for rank in (0, 1)] == [3, 3]
    print(f'{time.monotonic() - begin:.0f} s')


@pytest.fixture(autouse=True)
def scope() -> Any:
    """Leave the registries' scope as it was."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def test_a_state_that_is_no_tensor() -> None:
    """Modules keep what they like with ``get_extra_state``."""
    state = {'_extra_state': dict(scale=1), 'weight': torch.tensor([1, 0.0])}
    assert not_finite(state) == []
    assert not_finite({**state, 'bias': torch.tensor(1.0).log() / 0}) == [
        'bias'
    ]
