# Copyright (c) mmdetr authors. All rights reserved.
"""Checks of converted weights against a model."""

from project.checkpoints.comparison import Difference, shapes
from project.checkpoints.conversion import ConvertedCheckpoint
from project.checkpoints.model_layout import ModelLayout
from project.utils.errors import UserError, some_of


def check_model(converted: ConvertedCheckpoint, model: ModelLayout) -> None:
    """Raise unless weights fit a model exactly.

    Raises:
        UserError: If a name is missing, unknown or of another shape, or only
            one of the two shares its head between decoder layers.
    """
    if model.num_classes != converted.num_classes:
        raise UserError(
            f'{model.config} has {model.num_classes} classes, the checkpoint '
            f'{converted.num_classes}: give --num-classes '
            f'{model.num_classes} to start the classifiers anew'
        )
    faults = [
        f'{len(names)} {fault}: {some_of(names, 10)}'
        for fault, names in compare_names(converted, model).items()
        if names
    ]
    if faults:
        raise UserError(
            f'the checkpoint ({converted.layout.title}; '
            f'{converted.architecture}) does not fit {model.config}; names '
            f'{"; ".join(faults)}'
        )
    if model.tied != converted.tied:
        words = ('a head for each decoder layer', 'one head for all layers')
        raise UserError(
            f'{model.config} has {words[bool(model.tied)]}, the checkpoint '
            f'{words[bool(converted.tied)]}'
        )


def compare_names(
    converted: ConvertedCheckpoint, model: ModelLayout
) -> dict[str, list[str]]:
    """List the names in which weights and model differ.

    Returns:
        dict[str, list[str]]: Names in the source by fault: missing, unknown
        or of another shape.
    """
    difference = Difference.between(shapes(converted.state_dict), model.shapes)
    origins = converted.origins
    return {
        'missing': [
            converted.layout.source_name(name) for name in difference.missing
        ],
        'unknown': [origins.get(name, name) for name in difference.unexpected],
        'of another shape': [
            f'{origins.get(name, name)} {list(found)} instead of '
            f'{list(expected)}'
            for name, (found, expected) in difference.reshaped.items()
        ],
    }
