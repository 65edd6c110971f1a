# Copyright (c) mmdetr authors. All rights reserved.
"""Makes mmengine load checkpoints safely.

Everything that loads through mmengine (``Runner``, ``init_cfg`` of modules,
mmdet's ``DetInferencer`` and ``init_detector``) uses its ``CheckpointLoader``,
in which loaders are registered by the prefix of an address.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.runner.checkpoint import (
    CheckpointLoader,
    _process_mmcls_checkpoint,
)

from project.checkpoints.addresses import local_file
from project.checkpoints.logged_history import restore_history
from project.checkpoints.plain_config import is_plain_config
from project.checkpoints.safe_load import safe_load

# Where mmengine and mmdet 2 keep the text of a config in a checkpoint.
_CONFIGS = (
    ('meta', 'cfg'),
    ('meta', 'config'),
    ('message_hub', 'runtime_info', 'cfg'),
)


def use_safe_loaders() -> None:
    """Replace mmengine's own loaders by :func:`load_from_anywhere`.

    Loaders of others are kept. Idempotent.
    """
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        if loader.__module__ == CheckpointLoader.__module__:
            CheckpointLoader.register_scheme(
                prefix, load_from_anywhere, force=True
            )


def load_from_anywhere(filename: str, map_location: Any = None) -> Any:
    """Load a checkpoint without running code from it.

    Args:
        filename (str): A path or address, see
            :func:`~project.checkpoints.addresses.local_file`.
        map_location (Any, optional): As in ``torch.load``.

    Returns:
        Any: Its content, without configs that are more than plain values,
        since mmengine would run them.

    Raises:
        FileNotFoundError: If there is no such file, as in mmengine.
        UserError: If it cannot be downloaded or read safely.
    """
    path = local_file(filename)
    if not path.exists():
        raise FileNotFoundError(f'{filename} can not be found.')
    return _prepared(safe_load(path, map_location=map_location), filename)


def read_from_anywhere(path: str | os.PathLike) -> Any:
    """Open a checkpoint as mmengine will load it, memory-mapped.

    Returns:
        Any: Its content; tensors are read on access.

    Raises:
        UserError: If it does not exist, cannot be downloaded or read safely.
    """
    path = str(path)
    loader = CheckpointLoader._get_checkpoint_loader(path)
    if loader is not load_from_anywhere:  # one that the user has registered
        return CheckpointLoader.load_checkpoint(path, map_location='cpu')
    return _prepared(safe_load(local_file(path), mmap=True), path)


def _prepared(checkpoint: Any, filename: str) -> Any:
    """Convert a checkpoint to the form that mmengine expects."""
    if not isinstance(checkpoint, dict):
        return checkpoint
    if filename.startswith('mmcls://'):
        checkpoint = _process_mmcls_checkpoint(checkpoint)
    _leave_out_code(checkpoint, filename)
    restore_history(checkpoint)
    return checkpoint


def _leave_out_code(checkpoint: dict, filename: str) -> None:
    """Remove configs that are programs, in place."""
    for *places, key in _CONFIGS:
        node: Any = checkpoint
        for place in places:
            node = node.get(place) if isinstance(node, Mapping) else None
        if not isinstance(node, dict) or key not in node:
            continue
        if not is_plain_config(node[key]):
            del node[key]
            print_log(
                f'The config in {filename} is more than plain values and is '
                'left out, since whoever reads it would run it.',
                logger='current',
                level=logging.WARNING,
            )
