# Copyright (c) mmdetr authors. All rights reserved.
"""Training with weights and optimizer split among the processes."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils import apply_to
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

_PARTS = ('backbone', 'encoder', 'decoder')
_MIN_SHARE = 1 / 400


class ShardedTraining(Hook):
    """Splits a training among its processes by torch's ``fully_shard``.

    Each process holds its part of every weight, gradient and moment of the
    optimizer, and collects the weights of a block while it computes with
    them. The model is split when its weights and the state of the optimizer
    have been loaded, and put together when they are saved: checkpoints are
    the same as without splitting. ``DETRRunner`` adds this hook for
    ``fully_shard = True``.
    """

    priority = 'VERY_HIGH'  # others read the whole checkpoint

    def __init__(self) -> None:
        self._whole: dict[str, Any] = {}

    def split(self, runner: Runner) -> None:
        """Split model and optimizer of a training that is about to start."""
        if not isinstance(runner.model, FSDPModule):
            shard_training(runner.model, runner.optim_wrapper.optimizer)

    def put_together(self, runner: Runner) -> None:
        """Collect what is to be saved; all processes have to call it."""
        state = runner.model.state_dict()
        self._whole = dict(state_dict=whole(state))
        self._whole['state_dict']._metadata = state._metadata
        self._whole['optimizer'] = whole(runner.optim_wrapper.state_dict())

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Save what has been put together."""
        for name in self._whole.keys() & checkpoint.keys():
            checkpoint[name] = self._whole.pop(name)


def shard_training(model: nn.Module, optimizer: Optimizer) -> None:
    """Split a model and its optimizer among all processes.

    Args:
        model (nn.Module): A detector on its device, the same in each process;
            changed in place.
        optimizer (Optimizer): Of its parameters, which are replaced in it,
            together with their state.
    """
    # Nothing here writes into the losses, of which it warns.
    warnings.filterwarnings('ignore', r'FSDP2-wrapped module .* a view tensor')
    device = torch.device(get_device()).type
    mesh = init_device_mesh(device, (get_world_size(),))
    before = dict(model.named_parameters())
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    after = dict(model.named_parameters())
    replaced: dict[Tensor, Any] = {
        parameter: after[name] for name, parameter in before.items()
    }
    for group in optimizer.param_groups:
        group['params'] = [replaced[old] for old in group['params']]
    for old in list(optimizer.state):
        state = optimizer.state.pop(old)
        optimizer.state[replaced[old]] = {
            key: _like(replaced[old], value, mesh)
            for key, value in state.items()
        }


def _like(parameter: DTensor, value: Any, mesh: DeviceMesh) -> Any:
    """Split a part of an optimizer's state as its parameter is split."""
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value, mesh, parameter.placements)
    return value


def blocks(model: nn.Module) -> list[nn.Module]:
    """Find the blocks whose weights are collected at once.

    These are the entries of lists of modules within the backbone, the encoder
    and the decoder that hold at least 1/400 of the parameters. What no block
    holds is collected at the beginning of a step.

    Returns:
        list[nn.Module]: Inner ones before outer ones.
    """
    smallest = _MIN_SHARE * _size(model)
    found = [
        entry
        for name in _PARTS
        for entry in _entries(getattr(model, name, None))
        if _size(entry) >= smallest
    ]
    return found[::-1]


def _entries(part: nn.Module | None) -> Iterator[nn.Module]:
    """Yield entries of lists of modules, without lists and single layers."""
    lists = (nn.ModuleList, nn.Sequential)
    for module in part.modules() if part is not None else ():
        if isinstance(module, lists):
            for entry in module:
                if not isinstance(entry, lists) and any(entry.children()):
                    yield entry


def _size(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def whole(state: dict) -> dict:
    """Collect the tensors of a state dict; all processes have to call it.

    Returns:
        dict: With whole tensors on the CPU in the main process, and None for
        them in the others.
    """

    def collect(tensor: DTensor) -> Tensor | None:
        full = tensor.full_tensor()
        return full.cpu() if is_main_process() else None

    return apply_to(state, lambda value: isinstance(value, DTensor), collect)
