"""Machines with accelerators that this one does not have."""

from types import SimpleNamespace

import pytest
import torch


def pretend_accelerators(
    monkeypatch: pytest.MonkeyPatch, kind: str, *names: str
) -> None:
    """Let torch see accelerators of a kind under these names."""
    module = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: len(names),
        get_device_name=lambda i: names[i],
    )
    for name, value in (
        ('is_available', True),
        ('current_accelerator', torch.device(kind)),
        ('device_count', len(names)),
    ):
        monkeypatch.setattr(torch.accelerator, name, lambda value=value: value)
    monkeypatch.setattr(torch, 'get_device_module', lambda device: module)
    monkeypatch.setattr(torch, kind, module)
