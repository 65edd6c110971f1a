# Copyright (c) mmdetr authors. All rights reserved.
"""Reads config files and explains why one cannot be read."""

import traceback
from pathlib import Path
from typing import Any

import mmengine
from mmengine.config import Config

from project.utils.errors import UserError

_MMENGINE = str(Path(mmengine.__file__).parent)


def read_config_file(
    path: str | Path, options: dict[str, Any] | None = None
) -> Config:
    """Read a config and apply the options of a command line.

    Args:
        path (str | Path): Path of the config, or one of an installed package
            (``mmdet::...``).
        options (dict, optional): The ``--cfg-options``.

    Raises:
        UserError: If the file cannot be read, or the options do not fit it.
    """
    if '::' not in str(path) and not Path(path).is_file():
        raise UserError(f'The config {path} does not exist.')
    try:
        cfg = Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:  # a config is code and may raise anything
        raise UserError(
            f'The config {path} cannot be read: {_reason(error)}'
        ) from error
    try:
        cfg.merge_from_dict(options or {})
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f'--cfg-options does not fit the config {path}: {error}'
        ) from error
    return cfg


def _reason(error: Exception) -> str:
    """Describe what failed in a config, and where."""
    if isinstance(error, ImportError) and 'custom modules' in str(error):
        missing = error.__cause__ or error
        # The message of mmengine lists all of sys.path.
        names = str(error).partition("'imports': ")[2].partition(']')[0]
        return f'custom_imports of {names.strip("[")} fails: {missing}.'
    text = ' '.join(str(error).split())
    if isinstance(error, (OSError, SyntaxError)):
        return text
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.name == '<module>'
        and Path(frame.filename).is_file()
        and not frame.filename.startswith(_MMENGINE)  # runs them
    ]
    place = ''
    if frames:
        place = f', in line {frames[-1].lineno} of {frames[-1].filename}'
    return f'{type(error).__name__}: {text}{place}'
