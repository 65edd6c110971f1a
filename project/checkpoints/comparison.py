# Copyright (c) mmdetr authors. All rights reserved.
"""Comparison of the weights of a checkpoint with those of a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from project.utils.errors import some_of

OPTIONAL_SUFFIX = 'num_batches_tracked'
"""Counter of batch norm layers; other sources than mmdet leave it out, and
mmengine does not require it."""
_NUM_NAMES_SHOWN = 3

Shape = tuple[int, ...]


def named_tensors(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors by the names under which mmengine will load them.

    That is, without the ``module.`` of a wrapped model.
    """
    return {
        re.sub(r'^module\.', '', name): value
        for name, value in weights.items()
        if isinstance(value, Tensor)
    }


def shapes(weights: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Shapes of weights by name."""
    return {name: tuple(value.shape) for name, value in weights.items()}


@dataclass(frozen=True)
class Difference:
    """Differences between the weights of a checkpoint and of a model.

    Attributes:
        unexpected (list[str]): Names that the model does not have.
        missing (list[str]): Names that the checkpoint does not have.
        reshaped (dict): By name, the shapes in the checkpoint and the model.
    """

    unexpected: list[str]
    missing: list[str]
    reshaped: dict[str, tuple[Shape, Shape]]

    @classmethod
    def between(
        cls, found: Mapping[str, Shape], expected: Mapping[str, Shape]
    ) -> 'Difference':
        """Compare the shapes of a checkpoint with those of a model."""
        return cls(
            unexpected=[name for name in found if name not in expected],
            missing=[
                name
                for name in expected
                if name not in found and not name.endswith(OPTIONAL_SUFFIX)
            ],
            reshaped={
                name: (found[name], shape)
                for name, shape in expected.items()
                if found.get(name, shape) != shape
            },
        )

    def __len__(self) -> int:
        """Number of names that differ."""
        return len(self.unexpected) + len(self.missing) + len(self.reshaped)

    def other_num_classes(self, num_classes: int | None) -> int | None:
        """Number of classes of the checkpoint, if only that differs.

        Args:
            num_classes (int | None): Number of classes of the model.
        """
        steps = set()
        for theirs, ours in self.reshaped.values():
            differing = [
                (found, size)
                for found, size in zip(theirs, ours, strict=False)
                if found != size
            ]
            if len(theirs) != len(ours) or len(differing) != 1:
                return None
            found, size = differing[0]
            # Label embeddings and softmax have one more, for "no object".
            if num_classes not in (size, size - 1):
                return None
            steps.add(found - size)
        if num_classes is None or len(steps) != 1:
            return None
        return num_classes + steps.pop()

    def __str__(self) -> str:
        """Name the first few tensors."""
        parts = [
            *(f'{name} is not in the model' for name in self.unexpected),
            *(f'{name} is missing' for name in self.missing),
            *(
                f'{name} has shape {theirs} instead of {ours}'
                for name, (theirs, ours) in self.reshaped.items()
            ),
        ]
        suffix = ' differ' if len(parts) > _NUM_NAMES_SHOWN else ''
        return some_of(parts, _NUM_NAMES_SHOWN) + suffix
