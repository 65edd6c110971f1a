# Copyright (c) mmdetr authors. All rights reserved.
"""Tensors that depend on the number of classes."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from project.checkpoints.layouts.rules import ClassTensor, match, rename

# Ids from 1 to 90 that COCO's 2017 annotations do not use.
_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED_IDS)
NUM_COCO_IDS = 91
NUM_COCO_CLASSES = len(COCO_IDS)

Table = Iterable[ClassTensor]
Weights = Mapping[str, Tensor]


def linear_weight(shape: torch.Size) -> Tensor:
    """Initialize the weight of a classifier as ``nn.Linear``.

    The values are the same in every call, as in the published initialization
    the classifiers of all layers are copies of one.

    Args:
        shape (torch.Size): (num_classes, dim).

    Returns:
        Tensor: float32 of that shape.
    """
    generator = torch.Generator().manual_seed(0)
    bound = 1 / math.sqrt(shape[1])
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def prior_bias(shape: torch.Size) -> Tensor:
    """Bias of a classifier for a prior probability of 0.01.

    Args:
        shape (torch.Size): (num_classes, ).

    Returns:
        Tensor: float32 of that shape.
    """
    return torch.full(shape, -math.log((1 - 0.01) / 0.01))


def normal_rows(shape: torch.Size) -> Tensor:
    """Initialize an embedding as ``nn.Embedding``.

    Args:
        shape (torch.Size): (num_rows, dim).

    Returns:
        Tensor: float32 of that shape, the same in every call.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator)


def count_classes(weights: Weights, table: Table) -> int | None:
    """Number of classes; None if no tensor depends on it.

    The majority decides, so that a single tensor of a wrong shape is found.
    """
    counts = Counter(
        tensor.shape[entry.axis] - entry.num_extra
        for name, tensor in weights.items()
        if (entry := _entry_of(name, table)) and tensor.ndim > entry.axis
    )
    return counts.most_common(1)[0][0] if counts else None


def contiguous_coco(weights: Weights, table: Table) -> dict[str, Tensor]:
    """Reduce 91 COCO category ids to the 80 classes, in order of the ids.

    The classifier of the first stage keeps its first 80 rows instead, since
    its row 0 is the objectness and no category.

    Returns:
        dict[str, Tensor]: The weights, with 80 instead of 91 classes.
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
    """Reinitialize the class-dependent tensors for other classes.

    The classifier of the first stage keeps its rows: it separates objects
    from background, and its row 0 is the score of a proposal.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The weights, and a line for each
        changed tensor.
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
    """Find the entry of the table for a name."""
    entries = (e for e in table if match(e.target, name) is not None)
    return next(entries, None)


def _counts(tensor: Tensor, entry: ClassTensor, num_classes: int) -> bool:
    """Whether the tensor has the given number of classes."""
    total = num_classes + entry.num_extra
    return tensor.ndim > entry.axis and tensor.shape[entry.axis] == total


def _of_first_stage(name: str, entry: ClassTensor, weights: Weights) -> bool:
    """Whether the classifier belongs to no decoder layer."""
    if entry.decoder is None:
        return False
    layer = rename(name, entry.target, entry.decoder)
    return layer is not None and not any(
        other.startswith(layer) for other in weights
    )


def _select(tensor: Tensor, entry: ClassTensor, kept: Tensor) -> Tensor:
    """Select classes; keep the extra entries after them."""
    size = tensor.shape[entry.axis]
    extra = torch.arange(size - entry.num_extra, size)
    return tensor.index_select(entry.axis, torch.cat([kept, extra]))


def _renewed(
    tensor: Tensor, entry: ClassTensor, kept: int, num_classes: int
) -> Tensor:
    """Keep the first classes and the extra entries; reinitialize the rest."""
    shape = list(tensor.shape)
    shape[entry.axis] = num_classes + entry.num_extra
    fresh = entry.fresh(torch.Size(shape)).to(tensor)
    old = tensor.shape[entry.axis] - entry.num_extra
    fresh.narrow(entry.axis, 0, kept).copy_(tensor.narrow(entry.axis, 0, kept))
    fresh.narrow(entry.axis, num_classes, entry.num_extra).copy_(
        tensor.narrow(entry.axis, old, entry.num_extra)
    )
    return fresh
