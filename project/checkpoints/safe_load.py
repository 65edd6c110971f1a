# Copyright (c) mmdetr authors. All rights reserved.
"""Loads checkpoints without running code from them.

All reading of this package goes through here. ``torch.load`` always gets
``weights_only=True``, which the environment variable
``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` does not override.
"""

import os
import pickle
import re
import shlex
import threading
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from project.checkpoints.check_sums import check_intact
from project.checkpoints.safe_types import mmengine_types
from project.utils.errors import UserError

# Start of files of torch.save before it wrote zip archives.
_OLD_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_ZIP = b'PK\x03\x04'
_GIT_LFS = b'version https://git-lfs'
_NUM_CHARACTERS_SHOWN = 40
_NUM_BYTES_LOOKED_AT = 1024
_AGAIN = 'get it again and compare its size'
_DAMAGED = f'is damaged or cut off: {_AGAIN}'
# Error messages of torch, and of the replacement of getattr.
_ASKED_FOR = re.compile(
    r'(?:GLOBAL|Unsupported class) (?P<kind>\S+)'
    r'|(?P<lookup>looks up .+?), which'
)
# torch's list of safe types is shared by all threads.
_LOCK = threading.Lock()
_OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)
_RESAVE = (
    'if you trust where the file comes from, save its weights alone once, '
    'with: python -c "import {modules}; s, d = sys.argv[1:]; '
    "c = {load}; m = c.get('model', c.get('state_dict', c)); "
    "torch.save({{'model': {{k: torch.as_tensor(v) for k, v in m.items()}}}}, "
    'd)" {source} {target} '
    '(and go on with {target})'
)


def safe_load(
    path: str | os.PathLike, *, map_location: Any = 'cpu', mmap: bool = False
) -> Any:
    """Load a file of ``torch.save`` without running code from it.

    Supported are tensors, plain containers, number arrays, mmengine's history
    of logged values, ``argparse.Namespace`` (for the command lines in official
    checkpoints), and types that this process has declared safe with
    ``torch.serialization.add_safe_globals``.

    Args:
        path (str | PathLike): A local file.
        map_location (Any): As in ``torch.load``. Defaults to ``'cpu'``.
        mmap (bool): Whether to memory-map the tensors, so that they are read
            on access. The file must not be written to while they are in use.
            Defaults to False.

    Raises:
        UserError: If there is no such file, it cannot be read, is damaged,
            has another format, or holds other objects.
    """
    path = Path(path)
    start = _first_bytes(path)
    kind = unreadable_kind(path)
    if kind:
        raise _unreadable(path, kind)
    check_intact(path)
    if start[:1] == b'\x80' and not start.startswith(_OLD_TORCH):
        # A pickle without torch, such as detectron2's .pkl files.
        raise _unsafe(
            path,
            'is a plain pickle',
            modules='pickle, sys, torch',
            load="pickle.load(open(s, 'rb'), encoding='latin1')",
        )
    try:
        with _known_types():
            return torch.load(
                path,
                map_location=map_location,
                weights_only=True,
                mmap=mmap and start.startswith(_ZIP),
            )
    except _OUT_OF_MEMORY:
        raise
    except Exception as error:  # damage causes errors of any kind
        found = _ASKED_FOR.search(str(error))
        if found:
            finding = found['lookup'] or f'holds {found["kind"]}'
            raise _unsafe(path, finding) from error
        if map_location != 'cpu':
            safe_load(path, mmap=True)
            raise  # the file is fine, the device is not
        raise _unreadable(path, _DAMAGED) from error


def _first_bytes(path: Path) -> bytes:
    """Read the first bytes of a file, which show its format."""
    if not path.exists():
        raise UserError(f'The checkpoint {path} does not exist.')
    if path.is_dir():
        raise UserError(f'{path} is a folder; expected a checkpoint in it.')
    try:
        with path.open('rb') as file:
            return file.read(_NUM_BYTES_LOOKED_AT)
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}.') from error


@contextmanager
def _known_types() -> Iterator[None]:
    """Let ``torch.load`` accept the types in our checkpoints.

    Types that the process has declared safe are kept, except for the real
    ``getattr``, which a fork of mmengine declares: with it a file could reach
    any object of the interpreter.
    """
    registry = torch.serialization
    with _LOCK:
        before = registry.get_safe_globals()
        theirs = [kind for kind in before if not _is_getattr(kind)]
        registry.clear_safe_globals()
        registry.add_safe_globals([*theirs, Namespace, *mmengine_types()])
        try:
            yield
        finally:
            registry.clear_safe_globals()
            registry.add_safe_globals(before)


def _is_getattr(kind: Any) -> bool:
    """Whether an entry of torch's list is ``getattr``, by any name."""
    return (kind[0] if isinstance(kind, tuple) else kind) is getattr


def _unreadable(path: Path, kind: str) -> UserError:
    """Error for a file that is damaged or has another format."""
    size = path.stat().st_size
    return UserError(
        f'{path} ({size} bytes) {kind}; expected a checkpoint that PyTorch '
        'wrote.'
    )


def unreadable_kind(path: Path) -> str:
    """Describe a file, unless ``torch.load`` may be able to read it.

    Returns:
        str: A predicate such as ``is empty``, or ''.
    """
    size = path.stat().st_size
    with path.open('rb') as file:
        start = file.read(_NUM_BYTES_LOOKED_AT)
    if not size:
        return f'is empty: {_AGAIN}'
    if start.startswith(_GIT_LFS):
        return 'stands for a file in Git LFS: fetch it with git lfs pull'
    if start.startswith(_ZIP):
        return _kind_of_zip(path)
    text = _as_text(start)
    if text:
        return f'is text that begins with {text!r}'
    if start[8:9] == b'{' and int.from_bytes(start[:8], 'little') < size:
        return (
            'is in the safetensors format: read it with safetensors.torch.'
            'load_file and write it with torch.save'
        )
    return ''


def _kind_of_zip(path: Path) -> str:
    """Describe a zip archive, unless it is a checkpoint."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {Path(name).name for name in archive.namelist()}
    except zipfile.BadZipFile:
        return _DAMAGED
    if 'constants.pkl' in names:
        return 'is a TorchScript program'
    return '' if 'data.pkl' in names else 'is a zip archive of other things'


def _as_text(start: bytes) -> str:
    """First characters of a text file; '' for other files."""
    text = start.decode('utf-8', errors='ignore')
    if b'\0' in start or not text.replace('\n', '').isprintable():
        return ''
    return ' '.join(text.split())[:_NUM_CHARACTERS_SHOWN]


def _unsafe(
    path: Path,
    finding: str,
    modules: str = 'sys, torch',
    load: str = "torch.load(s, 'cpu', weights_only=False)",
) -> UserError:
    """Error for a file with Python objects, with a way to remove them."""
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
