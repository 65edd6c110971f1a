"""Accelerators of every kind are seen, not those of CUDA alone."""

import argparse
from types import SimpleNamespace

import pytest
import torch

from project.utils.accelerators import accelerators, device_generator
from project.utils.environment import inspect_environment
from tests.helpers.accelerators import pretend_accelerators
from tools._types import device


def test_none() -> None:
    if torch.accelerator.is_available():
        pytest.skip('there is one')
    assert accelerators() == ('CPU', [])


def test_another_kind_than_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_accelerators(monkeypatch, 'xpu', 'Max 1550', 'Max 1550')
    assert accelerators() == ('XPU', ['Max 1550', 'Max 1550'])
    findings = {finding.name: finding for finding in inspect_environment()}
    assert findings['device'].value == 'XPU, 2 x Max 1550'


def test_devices_that_a_user_names(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_accelerators(monkeypatch, 'xpu', 'Max 1550', 'Max 1550')
    assert device('xpu:1') == 'xpu:1'
    for name in ('xpu:2', 'npu'):
        with pytest.raises(argparse.ArgumentTypeError, match='torch sees'):
            device(name)


@pytest.mark.parametrize(
    ('device', 'arguments'),
    [
        ('cuda:1', [torch.device('cuda:1')]),
        ('xpu:0', [torch.device('xpu:0')]),
        ('mps', []),
    ],
)
def test_noise_of_any_device_is_drawn_again(
    device: str, arguments: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a step is run once more, by the state of its generator."""
    calls = []
    module = SimpleNamespace(
        get_rng_state=lambda *args: calls.append(args) or 'state',
        set_rng_state=lambda *args: calls.append(args),
    )
    monkeypatch.setattr(torch, 'get_device_module', lambda device: module)
    state = device_generator(torch.device(device), 'get_rng_state')
    device_generator(torch.device(device), 'set_rng_state', state)
    assert calls == [(*arguments,), ('state', *arguments)]
