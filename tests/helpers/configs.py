"""Where the shipped configs lie, and what they say."""

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from mmengine.config import Config
from mmengine.config import utils as config_utils

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
SHARED = ROOT.parent / 'shared'

# Without these each config reads all its bases anew, and mmdet's metafiles for
# each base that lies with mmdet.
_metainfo = functools.cache(config_utils._get_cfg_metainfo)
_parsed = functools.cache(Config._file2dict)


@functools.cache
def read_config(name: str) -> Config:
    """Read a shipped config once.

    All callers get the same object: copy it before you change it.

    Args:
        name (str): Path from ``configs/``.

    Returns:
        Config: The config.
    """
    with _files_read_once():
        return Config.fromfile(CONFIGS / name)


@contextmanager
def _files_read_once() -> Iterator[None]:
    """Keep what a file says when configs are read."""

    def file_to_dict(filename: str, *args: Any, **options: Any) -> tuple:
        return copy.deepcopy(_parsed(str(filename), *args, **options))

    with (
        mock.patch.object(config_utils, '_get_cfg_metainfo', _metainfo),
        mock.patch.object(Config, '_file2dict', staticmethod(file_to_dict)),
    ):
        yield
