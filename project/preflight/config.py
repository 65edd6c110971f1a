# Copyright (c) mmdetr authors. All rights reserved.
"""Checks of a config before anything is built from it."""

from numbers import Real

from mmdet.registry import RUNNERS
from mmengine.config import Config

from project.preflight.config_tree import registered
from project.preflight.misspellings import check_parts, names_of
from project.preflight.model import check_model
from project.preflight.settings import bare_model, check_settings
from project.utils.errors import UserError, did_you_mean

_GROUPS = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)


def check_config(cfg: Config) -> list[str]:
    """Check a config before a runner is built from it.

    Args:
        cfg (Config): A config after ``resolve_config``.

    Returns:
        list[str]: Warnings about what may be a mistake.

    Raises:
        UserError: If it cannot work.
    """
    _check_complete(cfg)
    check_parts(cfg)
    sentences = check_settings(cfg)
    check_model(cfg)
    return sentences


def check_runner_type(cfg: Config) -> None:
    """Refuse a runner type that is not registered.

    Raises:
        UserError: If it is not registered; suggests similar names.
    """
    kind = cfg.get('runner_type')
    if isinstance(kind, str) and registered(kind, RUNNERS) is None:
        raise UserError(
            f'runner_type={kind!r} is not registered'
            f'{did_you_mean(kind, names_of(RUNNERS))}'
        )


def _check_complete(cfg: Config) -> None:
    """Refuse a config without a model, or with an incomplete loop."""
    if not cfg.get('model'):
        raise UserError(
            'The config has no model; expected model = dict(type=..., ...).'
        )
    model = bare_model(cfg)
    if 'backbone' in model and not model.backbone:
        raise UserError('model.backbone is None; expected a dict with a type.')
    for group in _GROUPS:
        for key in group:
            if isinstance(cfg.get(key), (str, Real)):
                raise UserError(f'{key} is {cfg[key]!r}; expected a dict.')
        missing = [key for key in group if cfg.get(key) is None]
        if 0 < len(missing) < len(group):
            there = [key for key in group if key not in missing]
            raise UserError(
                f'The config has {" and ".join(there)}, but no '
                f'{" and ".join(missing)}: they need each other, or set all '
                'of them to None.'
            )
