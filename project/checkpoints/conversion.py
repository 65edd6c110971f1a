# Copyright (c) mmdetr authors. All rights reserved.
"""Conversion of the weights of other repositories to this project's names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from project.checkpoints.class_tensors import (
    NUM_COCO_IDS,
    contiguous_coco,
    count_classes,
    with_fresh_classes,
)
from project.checkpoints.description import describe
from project.checkpoints.layouts import own_names
from project.checkpoints.layouts.backbones import derived_buffers
from project.checkpoints.layouts.rules import Layout, Rule
from project.checkpoints.recognition import (
    OWN_LAYOUTS,
    layout_named,
    recognise,
)
from project.utils.errors import UserError, some_of

# Buffers that a profiler may have left among the weights.
_COUNTERS = ('total_ops', 'total_params')


@dataclass(frozen=True)
class ConvertedCheckpoint:
    """Weights under this project's names, and their origin.

    Args:
        state_dict (dict[str, Tensor]): The weights.
        layout (Layout): The recognised layout.
        origins (dict[str, str]): Name in the source of each renamed weight.
        aliases (tuple[str]): Dropped names of the source that repeat another
            tensor.
        filled (tuple[str]): Names of buffers that the source does not save.
        tied (frozenset[str]): Names of tensors that have several names here
            too.
        source_classes (int, optional): Number of classes of the source.
        num_classes (int, optional): Number of classes now.
        renewed (tuple[str]): For fine-tuning, a line for each changed tensor.
        num_queries (tuple[int, int], optional): Number of queries before and
            now, if some were left out.
    """

    state_dict: dict[str, Tensor]
    layout: Layout
    origins: dict[str, str]
    aliases: tuple[str, ...]
    filled: tuple[str, ...]
    tied: frozenset[str]
    source_classes: int | None
    num_classes: int | None
    renewed: tuple[str, ...] = ()
    num_queries: tuple[int, int] | None = None

    @property
    def architecture(self) -> str:
        """str: Description of the model, from names and shapes."""
        return describe(self.state_dict, shares_head=bool(self.tied))


def convert_state_dict(
    state_dict: Mapping[str, Tensor],
    layout: str | None = None,
    *,
    num_classes: int | None = None,
) -> ConvertedCheckpoint:
    """Rename the weights of an official or detrex model.

    Args:
        state_dict (Mapping[str, Tensor]): The source's weights, of any
            floating-point type.
        layout (str, optional): Name of the layout. By default it is
            recognised by the names.
        num_classes (int, optional): 91 keeps COCO's category ids as labels,
            for comparisons with the authors' code. By default 91 classes are
            reduced to 80, and other numbers are kept.

    Returns:
        ConvertedCheckpoint: The weights under this project's names. Their
        completeness and shapes are checked against a model by
        :func:`~project.checkpoints.verification.check_model`.

    Raises:
        UserError: If the layout or a name is unknown, or two names of one
            tensor differ.
    """
    found = layout_named(layout) if layout else recognise(state_dict)
    weights = _without_counters(state_dict)
    aliases, tied = _check_aliases(weights, found)
    mapped, origins = _rename(weights, found, dropped=set(aliases))
    filled = derived_buffers(mapped)
    table = found.class_tensors
    source_classes = count_classes(mapped, table)
    if source_classes == NUM_COCO_IDS and num_classes != NUM_COCO_IDS:
        mapped = contiguous_coco(mapped, table)
    classes = count_classes(mapped, table)
    if num_classes not in (None, classes):
        raise UserError(
            f'num_classes={num_classes}, but the weights have '
            f'{source_classes} classes; expected {classes}, or nothing'
        )
    return ConvertedCheckpoint(
        state_dict={**mapped, **filled},
        layout=found,
        origins=origins,
        aliases=aliases,
        filled=tuple(filled),
        tied=tied,
        source_classes=source_classes,
        num_classes=classes,
    )


def with_our_names(state_dict: Mapping[str, Tensor]) -> ConvertedCheckpoint:
    """Wrap weights that have this project's names, for fine-tuning.

    Args:
        state_dict (Mapping[str, Tensor]): Weights that were trained here,
            published by HPR's authors or converted before.

    Returns:
        ConvertedCheckpoint: The weights without second names, unchecked as
        in :func:`convert_state_dict`.

    Raises:
        UserError: If two names of one tensor differ, or no known tensor
            depends on the number of classes.
    """
    layout = OWN_LAYOUTS[own_names.is_dino(state_dict)]
    weights = _without_counters(state_dict)
    aliases, _ = _check_aliases(weights, layout)
    kept = {k: v for k, v in weights.items() if k not in set(aliases)}
    num_classes = count_classes(kept, layout.class_tensors)
    if num_classes is None:
        raise UserError(
            'the checkpoint is of no method of this project: none of its '
            'tensors is known to count classes'
        )
    return ConvertedCheckpoint(
        state_dict=kept,
        layout=layout,
        origins={name: name for name in kept},
        aliases=aliases,
        filled=(),
        tied=own_names.shared_branches(kept),
        source_classes=num_classes,
        num_classes=num_classes,
    )


def for_finetuning(
    converted: ConvertedCheckpoint, num_classes: int
) -> ConvertedCheckpoint:
    """Prepare weights for fine-tuning on other classes.

    Returns:
        ConvertedCheckpoint: Weights of the same names. Those that depend on
        the classes are reinitialized as in the method and listed in
        ``renewed``. With the same number of classes nothing changes.

    Raises:
        UserError: If the number of classes is not positive.
    """
    if num_classes < 1:
        raise UserError(
            f'num_classes={num_classes}; expected the number of classes of '
            'your dataset, at least 1'
        )
    if num_classes == converted.num_classes:
        return converted
    weights, renewed = with_fresh_classes(
        converted.state_dict, converted.layout.class_tensors, num_classes
    )
    return replace(
        converted,
        state_dict=weights,
        num_classes=num_classes,
        renewed=tuple(renewed),
    )


def _without_counters(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the buffers of a profiler."""
    return {
        name: tensor
        for name, tensor in state_dict.items()
        if name.rpartition('.')[2] not in _COUNTERS
    }


def _check_aliases(
    weights: Mapping[str, Tensor], layout: Layout
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Check that all names of a tensor have equal values.

    Returns:
        tuple[tuple[str], frozenset[str]]: The source's names to drop, and
        this project's names of tensors that keep several names.
    """
    dropped, tied, missing, differing = [], set(), [], []
    for name, first, keep in layout.aliases_in(weights):
        if first not in weights:
            missing.append(first)
        elif not torch.equal(weights[name], weights[first]):
            differing.append(f'{name} and {first}')
        elif keep:
            if found := layout.rule_of(name):
                tied.add(found[1])
        else:
            dropped.append(name)
    if missing:
        raise UserError(
            f'{len(missing)} names of the checkpoint are missing although '
            f'their second names are there: {some_of(missing, 10)}'
        )
    if differing:
        raise UserError(
            f'{len(differing)} pairs of names should hold one tensor each, '
            f'but differ: {some_of(differing, 10)}'
        )
    return tuple(dropped), frozenset(tied)


def _rename(
    weights: Mapping[str, Tensor], layout: Layout, dropped: set[str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Apply the rules to every name that is not dropped.

    Returns:
        tuple[dict[str, Tensor], dict[str, str]]: The weights under this
        project's names, and the source's name of each.
    """
    mapped, origins, unknown = {}, {}, []
    for name, tensor in weights.items():
        if name in dropped:
            continue
        found = layout.rule_of(name)
        if found is None:
            unknown.append(name)
            continue
        rule, target = found
        mapped[target] = _transformed(tensor, rule, name)
        origins[target] = name
    if unknown:
        raise UserError(
            f'{len(unknown)} names of the checkpoint are unknown in the '
            f'layout {layout.name}: {some_of(unknown, 10)}'
        )
    return mapped, origins


def _transformed(tensor: Tensor, rule: Rule, name: str) -> Tensor:
    """Apply a rule's transform, and name the tensor in its errors."""
    if rule.transform is None:
        return tensor
    try:
        return rule.transform(tensor)
    except UserError as error:
        raise UserError(f'{name}: {error}') from error
