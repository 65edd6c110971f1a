# Copyright (c) mmdetr authors. All rights reserved.
"""Recognises the repository that weights come from, by their names."""

from collections.abc import Mapping

from torch import Tensor

from project.checkpoints.layouts import (
    anchor_detr,
    deta,
    dn_detr,
    h_detr,
    own_names,
    rank_detr,
)
from project.checkpoints.layouts.rules import Layout
from project.utils.errors import UserError, some_of

LAYOUTS: tuple[Layout, ...] = (
    h_detr.AUTHORS,
    h_detr.DETREX,
    rank_detr.AUTHORS,
    anchor_detr.DETREX,
    deta.AUTHORS,
    deta.DETREX,
    *dn_detr.LAYOUTS,
)
OWN_LAYOUTS = (own_names.as_converted(LAYOUTS), own_names.DINO)
"""Layouts of weights that have this project's names already."""


def recognise(state_dict: Mapping[str, Tensor]) -> Layout:
    """Recognise the layout of weights by their names.

    Among layouts that know equally many names, the one with the fewest unused
    rules wins, since a method that extends another has a longer table.

    Returns:
        Layout: The layout that knows most of the names.

    Raises:
        UserError: If no layout knows more than half of the names.
    """
    if own_names.has_our_names(state_dict):
        raise UserError(
            "the checkpoint has this project's names already: load it as it is"
        )
    merits = {layout.name: _merit(layout, state_dict) for layout in LAYOUTS}
    best = max(LAYOUTS, key=lambda layout: merits[layout.name])
    if 2 * merits[best.name][0] <= len(state_dict):
        known = '; '.join(f'{x.name} ({x.title})' for x in LAYOUTS)
        raise UserError(
            'the checkpoint has none of the known layouts: its names are '
            f'{some_of(state_dict, 10)}; known are {known}'
        )
    return best


def _merit(
    layout: Layout, state_dict: Mapping[str, Tensor]
) -> tuple[int, int]:
    """Number of known names, and the negative number of unused rules."""
    found = {name: layout.rule_of(name) for name in state_dict}
    used = {rule.source for rule, _ in filter(None, found.values())}
    known = sum(
        pair is not None or layout.is_alias(name)
        for name, pair in found.items()
    )
    return known, len(used) - len(layout.rules)


def layout_named(name: str) -> Layout:
    """Find a layout by its name.

    Raises:
        UserError: If there is none.
    """
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    known = ', '.join(layout.name for layout in LAYOUTS)
    raise UserError(f'layout is {name!r}; expected one of {known}')
