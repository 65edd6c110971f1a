# Copyright (c) mmdetr authors. All rights reserved.
"""Counts parameters and operations of a detector."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from _benchmarking import build_detector, random_image
from mmcv.ops import RoIAlign
from mmdet.models import BaseDetector
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import project.ops  # noqa: F401  registers mmdetr::deformable_attention

# A bilinear sample of a channel takes four multiplications with an addition;
# in deformable attention its weight takes a fifth.
_SAMPLE = 4
Add = Callable[[int], None]


@dataclass
class Complexity:
    """Parameters, and multiplications with an addition for one image."""

    parameters: int
    operations: int
    parts: dict[str, 'Complexity'] = field(default_factory=dict)


def count(config: Config, shape: tuple[int, int]) -> Complexity:
    """Count what a detector has and does.

    Args:
        config: A config with a model.
        shape: (h, w) of the image in pixels.

    Returns:
        Complexity: Of the detector, and of its children. Parameters include
        those of auxiliary parts, which run in trainings only.
    """
    model = build_detector(config, 'cpu')
    operations = _operations(model, shape)
    parts = {
        name: Complexity(_num_parameters(child), operations[name])
        for name, child in model.named_children()
    }
    parts = {k: v for k, v in parts.items() if v.parameters or v.operations}
    return Complexity(_num_parameters(model), operations.total(), parts)


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def _operations(model: BaseDetector, shape: tuple[int, int]) -> Counter[str]:
    """Count by child of the model; the rest is under an empty name."""
    found: Counter[str] = Counter()
    running: list[str] = []

    def add(number: int) -> None:
        found[running[0] if running else ''] += number

    with _followed(model, running, add), _Counting(add):
        image, samples = random_image(shape, 'cpu')
        model.predict(image, samples)
    return found


@contextmanager
def _followed(
    model: nn.Module, running: list[str], add: Add
) -> Iterator[None]:
    """Note which children of the model run, and add what RoIAlign does."""

    def enter(module: nn.Module, args: Any) -> None:
        running.append(owners[module])

    def leave(module: nn.Module, args: Any, output: Tensor) -> None:
        if isinstance(module, RoIAlign):
            add(output.numel() * module.sampling_ratio**2 * _SAMPLE)
        running.pop()

    owners = {m: name.partition('.')[0] for name, m in model.named_modules()}
    hooks = [m.register_forward_pre_hook(enter) for m in owners]
    hooks += [m.register_forward_hook(leave) for m in owners]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Counting(TorchDispatchMode):
    """Counts what the operators of torch do.

    Args:
        add: Is called with the multiplications of each.
    """

    def __init__(self, add: Add) -> None:
        super().__init__()
        self.add = add

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operator and count."""
        output = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func.overloadpacket)
        if formula:
            # torch counts the addition as a second operation.
            flops = formula(*args, **(kwargs or {}), out_val=output)
            self.add(flops // 2)
        return output


def _attention(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> int:
    """Scores of all pairs, and values by them."""
    pairs = query.shape[:-1].numel() * key.shape[-2]
    return 2 * pairs * (query.shape[-1] + value.shape[-1])


def _deformable_attention(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor, **_: Any
) -> int:
    return 2 * weights.numel() * value.shape[-1] * (_SAMPLE + 1)


def _grid_sampler(*args: Any, out_val: Tensor) -> int:
    return 2 * out_val.numel() * (_SAMPLE + 1)


_ATEN = torch.ops.aten
_FORMULAS = {
    **flop_registry,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN.grid_sampler_2d: _grid_sampler,
    torch.ops.mmdetr.deformable_attention: _deformable_attention,
}
