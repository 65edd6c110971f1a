"""Mixed precision: on the CPU, and from one run to the next."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from project.engine import DETRRunner, optim_wrappers
from project.engine.optim_wrappers import (
    DETRAmpOptimWrapper,
    DETROptimWrapper,
    without_mmengines,
)
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from tests.helpers.training import toy_config

BF16 = dict(
    optim_wrapper__type='AmpOptimWrapper',
    optim_wrapper__loss_scale='dynamic',
    optim_wrapper__dtype='bfloat16',
)
"""What ``--amp bf16`` sets."""


class Watch(Hook):
    """Notes losses, and the type of what the encoder's layers compute."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.dtypes: set[torch.dtype] = set()

    def before_train(self, runner: Runner) -> None:
        runner.model.encoder.layers[0].ffn.layers[0][0].register_forward_hook(
            lambda module, inputs, output: self.dtypes.add(output.dtype)
        )

    def after_train_iter(
        self, runner: Runner, *args: Any, outputs: dict, **kwargs: Any
    ) -> None:
        self.losses.append(outputs['loss'].item())


@pytest.fixture(autouse=True)
def scope() -> Any:
    """Leave the registries' scope as it was."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def train(toy_data: Path, tmp_path: Path) -> Any:
    """Trains two epochs, with options; returns what was watched."""

    def run(kind: type = DETRRunner, **options: Any) -> Watch:
        cfg = toy_config(
            toy_data,
            tmp_path,
            val_cfg=None,
            val_dataloader=None,
            val_evaluator=None,
            **{'overwrite': True, **options},
        )
        runner = kind.from_cfg(resolve_config(cfg))
        watch = Watch()
        runner.register_hook(watch)
        runner.train()
        return watch

    return run


def log_of(work_dir: Path) -> str:
    """What the last run has logged."""
    return max(work_dir.glob('*/*.log')).read_text()


def test_bf16_on_the_cpu(train: Any, tmp_path: Path) -> None:
    """Losses are those of float32 but for rounding."""
    plain = train()
    assert plain.dtypes == {torch.float32}
    mixed = train(**BF16)
    assert mixed.dtypes == {torch.bfloat16}
    assert ', in bf16' in log_of(tmp_path)
    assert len(mixed.losses) == 4
    assert mixed.losses != plain.losses
    assert mixed.losses == pytest.approx(plain.losses, rel=0.02)


def test_in_mmengines_runner(train: Any) -> None:
    """It takes the wrapper by its own name."""
    options = {**BF16, 'optim_wrapper__type': 'DETRAmpOptimWrapper'}
    assert train(Runner, **options).dtypes == {torch.bfloat16}


@pytest.mark.parametrize('dtype', [None, 'float16'])
def test_fp16_on_the_cpu(train: Any, dtype: str | None) -> None:
    with pytest.raises(
        UserError, match=r'float16 .* needs a GPU .*--amp bf16'
    ):
        train(
            optim_wrapper__type='AmpOptimWrapper', optim_wrapper__dtype=dtype
        )


def test_no_type_of_numbers(train: Any) -> None:
    with pytest.raises(UserError, match=r"dtype is 'bf16'; .* bfloat16"):
        train(**{**BF16, 'optim_wrapper__dtype': 'bf16'})


def test_a_gpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim_wrappers, 'has_accelerator', lambda: True)
    cuda = mock.Mock()
    cuda.is_bf16_supported.return_value = False
    cuda.get_device_name.return_value = 'GTX'
    monkeypatch.setattr(torch, 'cuda', cuda)
    wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16')
    with pytest.raises(UserError, match=r'GTX does not compute in bf16'):
        without_mmengines(wrapper)
    wrapper['dtype'] = 'float16'
    assert without_mmengines(wrapper)['type'] is DETRAmpOptimWrapper


def test_a_users_wrapper_stays() -> None:
    class Users(AmpOptimWrapper):
        pass

    wrapper = dict(type=Users)
    assert without_mmengines(wrapper) is wrapper
    assert without_mmengines({})['type'] is DETROptimWrapper


def test_resuming_in_another_precision(train: Any, tmp_path: Path) -> None:
    """It is told, and goes on; resuming in the same one is not."""
    train(train_cfg__max_epochs=1)
    said = ' resumes in '
    train(resume=True, overwrite=False, **BF16)
    assert f'was in fp32 and{said}bf16' in log_of(tmp_path)
    train(resume=True, overwrite=False, train_cfg__max_epochs=3, **BF16)
    assert said not in log_of(tmp_path)
    train(resume=True, overwrite=False, train_cfg__max_epochs=4)
    assert f'was in bf16 and{said}fp32' in log_of(tmp_path)


@pytest.mark.parametrize('mixed', [False, True])
def test_states_of_mmengines_wrappers(mixed: bool) -> None:
    """Say only whether precision was mixed; its default is fp16."""
    optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters())
    state = OptimWrapper(optimizer).state_dict()
    if mixed:
        state['loss_scaler'] = dict(scale=1.0)
    wrapper = DETRAmpOptimWrapper(dtype='bfloat16', optimizer=optimizer)
    with mock.patch.object(optim_wrappers, 'print_log') as told:
        wrapper.load_state_dict(state)
    before = 'fp16' if mixed else 'fp32'
    assert f'was in {before} and resumes in bf16' in told.call_args[0][0]


@pytest.mark.parametrize('kind', [DETROptimWrapper, DETRAmpOptimWrapper])
def test_gradients_are_accumulated(kind: type) -> None:
    """A step is one with the mean of the gradients, clipped once."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False)
    before = model.weight.detach().clone()
    batches = torch.randn(5, 4, 3)
    mixed = dict(dtype='bfloat16') if kind is DETRAmpOptimWrapper else {}
    wrapper = kind(
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        accumulative_counts=2,
        clip_grad=dict(max_norm=0.1),
        **mixed,
    )
    wrapper.initialize_count_status(model, 0, len(batches))
    for parts in (batches[:2], batches[2:4], batches[4:]):
        with torch.no_grad():
            expected = 2 * parts.flatten(0, 1).mean(0)
        expected *= 0.1 / max(expected.norm(), 0.1)
        for batch in parts:
            wrapper.update_params(2 * model(batch).mean())
        # mmengine gives the last ones of a training all the weight.
        torch.testing.assert_close(model.weight, before - expected)
        before = model.weight.detach().clone()
    wrapper.log_norm()
    hub = wrapper.message_hub
    assert len(hub.get_scalar('train/grad_norm').data[0]) >= 3
