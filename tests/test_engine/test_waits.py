"""For what a training step waits besides its loss, which other tests tell."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from project.engine import DETRRunner
from project.engine.hooks import OneTransfer
from project.engine.optim_wrappers import DETROptimWrapper
from tests.helpers.training import toy_config
from tests.helpers.waiting_ops import DeviceTensor, WaitingOps, on_device


class Device(Hook):
    """Has a training compute on what passes for a device.

    Attributes:
        found: For what each step has waited, its hooks included.
    """

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.found: list[Counter] = []
        self._ops = WaitingOps()

    def before_train(self, runner: Runner) -> None:
        preprocess = runner.model.data_preprocessor.forward
        runner.model.data_preprocessor.forward = lambda *args: on_device(
            preprocess(*args)
        )
        wrapper = runner.optim_wrapper
        clip = wrapper.clip_func
        wrapper.clip_func = lambda *args, **kwargs: on_device(
            clip(*args, **kwargs)
        )

    def before_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        self._note()

    def before_train_epoch(self, runner: Runner) -> None:
        self._ops.__enter__()

    def after_train_epoch(self, runner: Runner) -> None:
        self._ops.__exit__(None, None, None)
        self._note()

    def _note(self) -> None:
        """What was seen of values on the device, since the last time."""
        reads = [x for x in self._ops.found if x not in WaitingOps.WAITING]
        self._ops.found.clear()
        self.found.append(Counter(reads))


def train(toy_data: Path, work_dir: Path, **options: Any) -> Device:
    """Four steps, of which the third and the fourth are logged."""
    cfg = toy_config(
        toy_data,
        work_dir,
        train_dataloader__batch_size=2,
        train_cfg__max_epochs=1,
        default_hooks__logger__interval=3,
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
        **options,
    )
    device = Device()
    with DefaultScope.overwrite_default_scope('mmdet'):
        runner = DETRRunner.from_cfg(cfg)
        runner.register_hook(device)
        runner.train()
    device.found.pop(0)  # what came before the first step
    device.norms = runner.message_hub.get_scalar('train/grad_norm')
    return device


def test_a_step_waits_for_matching_and_losses(
    toy_data: Path, tmp_path: Path
) -> None:
    """And, where it is logged, for the norm of its gradients.

    That of the step before is read when the losses of this one are there.
    """
    found = train(toy_data, tmp_path).found
    assert found == [{'cpu': n} for n in (2, 2 + 1, 2 + 2, 2 + 1)]


def test_every_norm_is_logged(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its order, the last one included, as mmengine logs them."""
    norms, _ = train(toy_data, tmp_path / 'ours').norms.data
    monkeypatch.setattr(
        DETROptimWrapper, '_clip_grad', OptimWrapper._clip_grad
    )
    expected, _ = train(toy_data, tmp_path / 'mmengine').norms.data
    assert len(norms) == 4
    assert norms.tolist() == pytest.approx(expected.tolist())


def test_losses_of_other_models_travel_together() -> None:
    """As many as HPR-DINO has."""
    values = torch.rand(111)
    outputs = {f'loss_{i}': v for i, v in enumerate(on_device(values))}
    outputs['count'] = torch.tensor(3)
    with WaitingOps() as ops:
        OneTransfer().after_train_iter(None, 0, outputs=outputs)
        assert ops.found == ['cpu']
    losses = [outputs[f'loss_{i}'] for i in range(111)]
    assert not any(isinstance(loss, DeviceTensor) for loss in losses)
    assert torch.stack(losses).equal(values)
    assert outputs['count'].dtype == torch.int64
    OneTransfer().after_train_iter(None, 0, outputs=None)
