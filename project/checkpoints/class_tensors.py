# Copyright (c) mmdetr authors. All rights reserved.
"""The tensors that depend on the number of classes."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from project.checkpoints.layouts.rules import ClassTensor, match, rename

# The ids between 1 and 90 that COCO's 2017 annotations never use.
_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED_IDS)
NUM_COCO_IDS = 91
NUM_COCO_CLASSES = len(COCO_IDS)

Table = Iterable[ClassTensor]
Weights = Mapping[str, Tensor]


def linear_weight(shape: torch.Size) -> Tensor:
    """Draw a classifier's weight as ``nn.Linear`` does before training.

    The draw is the same in every call: the published initialisation makes all
    layers' classifiers copies of one.

    Args:
        shape (torch.Size): (num_classes, dim).

    Returns:
        Tensor: float32 of that shape.
    """
    generator = torch.Generator().manual_seed(0)
    bound = 1 / math.sqrt(shape[1])
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def prior_bias(shape: torch.Size) -> Tensor:
    """Make a classifier's bias that predicts a probability of 0.01.

    Args:
        shape (torch.Size): (num_classes, ).

    Returns:
        Tensor: float32 of that shape.
    """
    return torch.full(shape, -math.log((1 - 0.01) / 0.01))


def normal_rows(shape: torch.Size) -> Tensor:
    """Draw a table of embeddings as ``nn.Embedding`` does before training.

    Args:
        shape (torch.Size): (num_rows, dim).

    Returns:
        Tensor: float32 of that shape, the same in every call.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator)


def count_classes(weights: Weights, table: Table) -> int | None:
    """Count the classes; None if no tensor tells.

    The majority decides, so that one tensor of a wrong shape is found to be
    wrong rather than believed.

    Args:
        weights (Mapping[str, Tensor]): Weights under this project's names.
        table (Iterable[ClassTensor]): The class-dependent tensors.

    Returns:
        int | None: The number of classes.
    """
    counts = Counter(
        tensor.shape[entry.axis] - entry.num_extra
        for name, tensor in weights.items()
        if (entry := _entry_of(name, table)) and tensor.ndim > entry.axis
    )
    return counts.most_common(1)[0][0] if counts else None


def contiguous_coco(weights: Weights, table: Table) -> dict[str, Tensor]:
    """Go from 91 COCO category ids to the 80 classes, in order of the ids.

    The first stage's classifier keeps its first 80 rows instead: its row 0
    means "object" and would be lost by taking the rows of the category ids.

    Args:
        weights (Mapping[str, Tensor]): Weights under this project's names.
        table (Iterable[ClassTensor]): The class-dependent tensors.

    Returns:
        dict[str, Tensor]: The weights, for 80 classes where it was 91.
    """
    ids = torch.tensor(COCO_IDS)
    result = dict(weights)
    for name, tensor in weights.items():
        entry = _entry_of(name, table)
        if not entry or not _counts(tensor, entry, NUM_COCO_IDS):
            continue
        if _of_first_stage(name, entry, weights):
            kept = torch.arange(NUM_COCO_CLASSES)
        else:
            kept = ids
        result[name] = _select(tensor, entry, kept)
    return result


def with_fresh_classes(
    weights: Weights, table: Table, num_classes: int
) -> tuple[dict[str, Tensor], list[str]]:
    """Start the class-dependent tensors anew for another set of classes.

    The first stage's classifier keeps what it has: it tells objects from
    background, and its row 0 is the score of a proposal.

    Args:
        weights (Mapping[str, Tensor]): Weights under this project's names.
        table (Iterable[ClassTensor]): The class-dependent tensors.
        num_classes (int): The new number of classes.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The weights, and a line for each
        tensor that changed.
    """
    old = count_classes(weights, table)
    result: dict[str, Tensor] = dict(weights)
    changes: list[str] = []
    if old is None:
        return result, changes
    for name, tensor in weights.items():
        entry = _entry_of(name, table)
        if not entry or not _counts(tensor, entry, old):
            continue
        kept = 0
        if _of_first_stage(name, entry, weights):
            kept = min(old, num_classes)
        result[name] = _renewed(tensor, entry, kept, num_classes)
        if kept == num_classes:
            changes.append(f'{name}: rows 0..{kept - 1} kept (first stage)')
        elif kept:
            changes.append(f'{name}: rows {kept}..{num_classes - 1} fresh')
        else:
            changes.append(f'{name}: fresh')
    return result, changes


def _entry_of(name: str, table: Table) -> ClassTensor | None:
    """Find the entry of the table for a name of this project."""
    entries = (e for e in table if match(e.target, name) is not None)
    return next(entries, None)


def _counts(tensor: Tensor, entry: ClassTensor, num_classes: int) -> bool:
    """Whether the tensor has the given number of classes."""
    total = num_classes + entry.num_extra
    return tensor.ndim > entry.axis and tensor.shape[entry.axis] == total


def _of_first_stage(name: str, entry: ClassTensor, weights: Weights) -> bool:
    """Whether there is no decoder layer that the classifier belongs to."""
    if entry.decoder is None:
        return False
    layer = rename(name, entry.target, entry.decoder)
    return layer is not None and not any(
        other.startswith(layer) for other in weights
    )


def _select(tensor: Tensor, entry: ClassTensor, kept: Tensor) -> Tensor:
    """Keep some classes and whatever follows the classes."""
    size = tensor.shape[entry.axis]
    extra = torch.arange(size - entry.num_extra, size)
    return tensor.index_select(entry.axis, torch.cat([kept, extra]))


def _renewed(
    tensor: Tensor, entry: ClassTensor, kept: int, num_classes: int
) -> Tensor:
    """Keep the first classes and what follows the classes, renew the rest."""
    shape = list(tensor.shape)
    shape[entry.axis] = num_classes + entry.num_extra
    fresh = entry.fresh(torch.Size(shape)).to(tensor)
    old = tensor.shape[entry.axis] - entry.num_extra
    fresh.narrow(entry.axis, 0, kept).copy_(tensor.narrow(entry.axis, 0, kept))
    fresh.narrow(entry.axis, num_classes, entry.num_extra).copy_(
        tensor.narrow(entry.axis, old, entry.num_extra)
    )
    return fresh
