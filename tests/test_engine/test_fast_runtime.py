"""A faster runtime changes no number but for rounding."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from project.engine import DETRRunner
from project.engine.fast_model import speed_up
from project.engine.optim_wrappers import DETRAmpOptimWrapper
from project.preflight.fast_runtime import (
    FastRuntime,
    apply_checkpointing,
    apply_fast_runtime,
)
from project.utils.errors import UserError
from tests.helpers.configs import CONFIGS, read_config
from tests.helpers.toy import (
    build_model,
    check_detections,
    check_training_step,
    toy_batch,
    toy_model_config,
)
from tests.helpers.training import toy_config

BASE = Config.fromfile(CONFIGS / '_base_' / 'fast_runtime.py').fast_runtime


@pytest.fixture
def train(toy_data: Path, tmp_path: Path) -> Any:
    """Trains four steps; returns the runner."""

    def run(**options: Any) -> DETRRunner:
        cfg = toy_config(
            toy_data,
            tmp_path,
            overwrite=True,
            model__backbone__norm_cfg__requires_grad=False,
            val_cfg=None,
            val_dataloader=None,
            val_evaluator=None,
            **options,
        )
        with DefaultScope.overwrite_default_scope('mmdet'):
            runner = DETRRunner.from_cfg(cfg)
            runner.train()
        return runner

    return run


def losses(runner: DETRRunner) -> list[float]:
    return runner.message_hub.get_scalar('train/loss').data[0].tolist()


def test_losses_of_a_training(train: Any, tmp_path: Path) -> None:
    """From the same weights: random ones are drawn in order of memory."""
    train(train_cfg__max_epochs=1)
    start = str((tmp_path / 'epoch_1.pth').rename(tmp_path / 'start.pth'))
    plain = train(load_from=start)
    fast = train(load_from=start, fast_runtime=BASE)
    assert losses(fast) == pytest.approx(losses(plain), rel=1e-4)
    assert len(losses(fast)) == 4
    assert fast.optim_wrapper.optimizer.defaults['fused']
    assert not plain.optim_wrapper.optimizer.defaults.get('fused')
    layouts = [
        runner.model.backbone.layer4[0].conv1.weight.is_contiguous(
            memory_format=torch.channels_last
        )
        for runner in (plain, fast)
    ]
    assert layouts == [False, True]
    ours, theirs = fast.model.state_dict(), plain.model.state_dict()
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0.01, atol=1e-3)


def test_mixed_precision(train: Any) -> None:
    runner = train(fast_runtime={**BASE, 'precision': 'bf16'})
    assert isinstance(runner.optim_wrapper, DETRAmpOptimWrapper)
    assert runner.optim_wrapper.precision == 'bf16'


def test_a_misspelt_setting(train: Any) -> None:
    with pytest.raises(UserError, match=r"'tf23': did you mean tf32"):
        train(fast_runtime=dict(tf23=True))
    with pytest.raises(UserError, match=r"precision.*'int8'.*'fp32'"):
        train(fast_runtime=dict(precision='int8'))


@pytest.mark.parametrize(
    'name',
    [
        'h_detr/h-detr_r50_8xb2-12e_coco.py',
        'dn_detr/dn-detr_r50-dc5_16xb1-50e_coco.py',
    ],
)
def test_norms_of_a_published_model_are_folded(name: str) -> None:
    """Losses, gradients and detections stay, and so do the names."""
    plain = build_model(toy_model_config(name))
    torch.manual_seed(0)
    for module in plain.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    plain.double()
    fast = copy.deepcopy(plain)
    speed_up(fast, FastRuntime(channels_last=True, fold_norms=True))
    norms = []
    for module in fast.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *args: norms.append(args[0]))
    batch, samples = toy_batch(((64, 96),), (3,))
    results = []
    for model in (plain, fast):
        torch.manual_seed(0)  # of the noise, where there is one
        results.append(check_training_step(model, batch.double(), samples))
    torch.testing.assert_close(*results)
    for name, parameter in plain.named_parameters():
        if parameter.grad is not None:
            grad = fast.get_parameter(name).grad
            torch.testing.assert_close(grad, parameter.grad)
    assert not norms
    found, expected = (
        check_detections(model, batch.double(), samples)[0]
        for model in (fast, plain)
    )
    torch.testing.assert_close(found.bboxes, expected.bboxes)
    assert list(fast.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize(
    'changes', [dict(norm_eval=False), dict(with_cp=True)]
)
def test_norms_that_cannot_be_folded_stay(changes: dict) -> None:
    """What is trained, and what is recomputed."""
    config = toy_model_config('h_detr/h-detr_r50_8xb2-12e_coco.py')
    config.backbone.update(changes)
    model = build_model(config)
    speed_up(model, FastRuntime(fold_norms=True))
    assert 'forward' not in vars(model.backbone)


def test_pipelines_of_a_published_config() -> None:
    """Pillow's pixels within a grey level; the config itself stays."""
    published = read_config('h_detr/h-detr_r50_8xb2-12e_coco.py')
    fast = Config(dict(copy.deepcopy(published), fast_runtime=BASE))
    apply_fast_runtime(fast)
    for split in ('train', 'val', 'test'):
        before, after = (
            str(config[f'{split}_dataloader']) for config in (published, fast)
        )
        assert "'backend': 'pillow'" in before
        assert after == before.replace("'pillow'", "'torch'")
    assert fast.optim_wrapper.optimizer.fused
    text = str(fast)
    apply_fast_runtime(fast)
    assert str(fast) == text
    assert 'fused' not in published.optim_wrapper.optimizer


def test_checkpointing_of_other_detectors() -> None:
    """mmengine's own setting stays, and its modules are to be named."""
    cfg = Config(dict(model=dict(type='DINO'), activation_checkpointing=True))
    with pytest.raises(UserError, match='name the modules of DINO'):
        apply_checkpointing(cfg)
    cfg.activation_checkpointing = ['backbone']
    apply_checkpointing(cfg)
    assert cfg.activation_checkpointing == ['backbone']


def test_checkpointing_of_a_training(train: Any) -> None:
    plain, recomputed = train(), train(activation_checkpointing=True)
    assert losses(recomputed) == pytest.approx(losses(plain), rel=1e-5)
    assert recomputed.model.decoder.num_cp == 2


def test_the_config_itself_has_the_last_word() -> None:
    optimizer = dict(type='AdamW', lr=1e-4, fused=False)
    cfg = Config(
        dict(fast_runtime=BASE, optim_wrapper=dict(optimizer=optimizer))
    )
    apply_fast_runtime(cfg)
    assert not cfg.optim_wrapper.optimizer.fused


def test_tf32_is_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch, 'set_float32_matmul_precision', asked.append)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    speed_up(nn.Module(), FastRuntime(tf32=True))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    speed_up(nn.Module(), FastRuntime())
    assert not asked
    speed_up(nn.Module(), FastRuntime(tf32=True))
    assert asked == ['high']
