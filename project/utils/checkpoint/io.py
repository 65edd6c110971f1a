# Copyright (c) mmdetr authors. All rights reserved.
"""Read foreign checkpoints without running their code; write our own."""

import os
import pickle
import re
import shlex
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from project.utils.checkpoint.archive import check_intact
from project.utils.compat import mmengine_types
from project.utils.errors import UserError

# Where the weights may lie inside a checkpoint.
_WRAPPERS = ('model', 'state_dict')
# How torch.save began its files before it wrote zip archives.
_OLD_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_RESAVE = (
    'if you trust where the file comes from, save its weights alone once, '
    'with: python -c "import {modules}; s, d = sys.argv[1:]; '
    "c = {load}; m = c.get('model', c.get('state_dict', c)); "
    "torch.save({{'model': {{k: torch.as_tensor(v) for k, v in m.items()}}}}, "
    'd)" {source} {target} '
    '(and convert {target})'
)


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the weights of a checkpoint from anywhere.

    Nothing but tensors, plain containers and ``argparse.Namespace`` (in which
    the authors keep their command line) is read, whatever else this process
    has declared safe for checkpoints of its own. What mmengine saves beside
    the weights it trains is read in its checkpoints alone.

    Args:
        path (str | PathLike): The file.

    Returns:
        dict[str, Tensor]: Name to tensor, on the CPU, without a ``module.``
        prefix.

    Raises:
        UserError: If there is no such file, it is damaged, holds anything
            else than the above, or no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'checkpoint {path} does not exist or is no file')
    checkpoint = _load(path)
    weights = checkpoint
    for key in _WRAPPERS:
        if isinstance(checkpoint, Mapping) and key in checkpoint:
            weights = checkpoint[key]
            break
    if not isinstance(weights, Mapping) or not weights:
        raise UserError(
            f'{path} holds no weights: expected a dictionary of tensors, '
            f'alone or under {" or ".join(map(repr, _WRAPPERS))}'
        )
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise UserError(
                f'{path} has a {kind} as {name!r} among its weights; '
                'expected tensors alone'
            )
    return _without_prefix(weights)


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, complete or not at all.

    Args:
        checkpoint (dict): What ``torch.save`` takes, with the weights under
            ``state_dict``.
        path (Path): The file; missing folders above it are made.
    """
    weights = {k: _own(v) for k, v in checkpoint['state_dict'].items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        torch.save({**checkpoint, 'state_dict': weights}, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _load(path: Path) -> Any:
    """Call ``torch.load`` and put its errors into words."""
    try:
        with path.open('rb') as file:
            start = file.read(len(_OLD_TORCH))
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    if start[:1] == b'\x80' and start != _OLD_TORCH:
        # Python wrote it without torch, as detectron2's .pkl files.
        raise _unsafe(
            path,
            'is a plain pickle',
            modules='pickle, sys, torch',
            load="pickle.load(open(s, 'rb'), encoding='latin1')",
        )
    check_intact(path)
    try:
        return _load_safely(path, Namespace)
    except Exception as error:  # damage shows as an error of any kind
        found = re.search(r'(?:GLOBAL|Unsupported class) (\S+)', str(error))
        if not found:
            raise _damaged(path) from error
        checkpoint = _load_of_mmengine(path)
        if checkpoint is None:
            raise _unsafe(path, f'holds {found.group(1)}') from error
        return checkpoint


def _load_of_mmengine(path: Path) -> Mapping | None:
    """Load what a training with mmengine saved; None if it is no such file."""
    try:
        checkpoint = _load_safely(path, *mmengine_types())
    except Exception:  # the first error has been told
        return None
    is_one = isinstance(checkpoint, Mapping) and 'message_hub' in checkpoint
    return checkpoint if is_one else None


def _load_safely(path: Path, *kinds: Any) -> Any:
    """Call ``torch.load``, accepting tensors and some other types."""
    with path.open('rb') as file:
        is_zip = file.read(4) == b'PK\x03\x04'
    with _nothing_safe_but(*kinds):
        # Mapped into memory, the optimizer's state is never read.
        return torch.load(
            path, map_location='cpu', weights_only=True, mmap=is_zip
        )


@contextmanager
def _nothing_safe_but(*kinds: Any) -> Iterator[None]:
    """Narrow what ``torch.load`` accepts to tensors and some other types.

    Before torch 2.4 nothing can be added to the tensors.
    """
    registry = torch.serialization
    if not hasattr(registry, 'add_safe_globals'):
        yield
        return
    before = registry.get_safe_globals()
    registry.clear_safe_globals()
    registry.add_safe_globals(list(kinds))
    try:
        yield
    finally:
        registry.clear_safe_globals()
        registry.add_safe_globals(before)


def _damaged(path: Path) -> UserError:
    """A file that ends early or never was a checkpoint."""
    return UserError(
        f'{path} ({path.stat().st_size} bytes) is damaged, cut off or no '
        'PyTorch checkpoint: get it again and compare its size'
    )


def _unsafe(
    path: Path,
    finding: str,
    modules: str = 'sys, torch',
    load: str = "torch.load(s, 'cpu', weights_only=False)",
) -> UserError:
    """A file that asks for Python objects, and the way to be rid of them."""
    resave = _RESAVE.format(
        modules=modules,
        load=load,
        source=shlex.quote(str(path)),
        target=shlex.quote(str(path.with_suffix('.safe.pth'))),
    )
    return UserError(
        f'{path} {finding}, not tensors alone, and loading it could run code '
        f'from the file; {resave}'
    )


def _without_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix that DistributedDataParallel puts on all names."""
    prefix = 'module.'
    if all(name.startswith(prefix) for name in weights):
        return {k.removeprefix(prefix): v for k, v in weights.items()}
    return dict(weights)


def _own(tensor: Tensor) -> Tensor:
    """Copy a tensor that is a part of a larger memory.

    ``torch.save`` would write all of that memory.
    """
    used = tensor.numel() * tensor.element_size()
    return (
        tensor.clone() if tensor.untyped_storage().nbytes() > used else tensor
    )
