# Copyright (c) mmdetr authors. All rights reserved.
"""Downloads files by address, once, into a cache of this machine."""

import difflib
import fcntl
import hashlib
import http.client
import os
import re
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import mmengine
import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmengine.runner import checkpoint as mmengine_checkpoint
from tqdm import tqdm

from project.checkpoints.safe_load import unreadable_kind
from project.utils.errors import UserError

TIMEOUT = 30
"""Seconds without data after which a download is given up."""
_CHUNK = 2**20
_NUM_DIGITS = 16
_LONGEST_NAME = 100
# The start of the content's SHA-256, as in torch.hub.
_HASH_IN_NAME = re.compile(r'-([a-f0-9]{8,})\.')


def is_address(path: str | os.PathLike) -> bool:
    """Whether this is an address, not a local path."""
    return '://' in str(path)


def local_file(path: str | os.PathLike) -> Path:
    """Return the local file of a path or address, downloading it if needed.

    Downloads by http are cached in the folder of ``torch.hub``, under a name
    that is unique to the address. Files of other storage backends of mmengine
    (``s3://``) may change and are fetched once by each process. With several
    processes, one downloads and the others wait.

    Args:
        path (str | PathLike): A path, which is returned as it is, or an
            address: ``http(s)://``, ``file://``, a name of mmengine's model
            zoo (``torchvision://``, ``open-mmlab://``, ``mmcls://``), or an
            address of a storage backend.

    Returns:
        Path: The file; paths are not checked for existence.

    Raises:
        UserError: If the address is unknown or cannot be reached, the file is
            no checkpoint, or the cache cannot be written.
    """
    if not is_address(path):
        return Path(path).expanduser()
    url = _in_tables(str(path))
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError(f'{url} is no address: {error}.') from error
    if parts.scheme in ('http', 'https'):
        return _kept(url)
    if parts.scheme == 'file':
        return Path(unquote(parts.path))
    return _stored(url) if is_address(url) else Path(url)


def _in_tables(address: str) -> str:
    """Resolve names of mmengine's model zoo; return other addresses as is."""
    scheme, _, name = address.partition('://')
    if scheme in ('modelzoo', 'torchvision'):
        table = _torchvision_addresses(name)
    elif scheme in ('open-mmlab', 'openmmlab'):
        table = mmengine_checkpoint.get_external_models()
        renamed = mmengine_checkpoint.get_deprecated_model_names()
        name = renamed.get(name, name)
    elif scheme == 'mmcls':
        table = mmengine_checkpoint.get_mmcls_models()
    else:
        return address
    if name not in table:
        alike = difflib.get_close_matches(name, table, n=3)
        hint = f': did you mean {" or ".join(alike)}?' if alike else '.'
        raise UserError(f'{address} is no weights that mmengine knows{hint}')
    url = table[name]
    if is_address(url):
        return url
    return os.path.join(mmengine_checkpoint._get_mmengine_home(), url)


def _torchvision_addresses(name: str) -> Mapping[str, str]:
    """Read mmengine's table; only other names need torchvision."""
    file = Path(mmengine.__file__).parent / 'hub' / 'torchvision_0.12.json'
    table = mmengine.load(file)
    if name not in table:
        with suppress(ImportError):
            return mmengine_checkpoint.get_torchvision_models()
    return table


def _kept(url: str) -> Path:
    """Return the cached download of an address."""
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    name = PurePosixPath(unquote(urlsplit(url).path)).name or 'checkpoint'
    other = folder / name
    if _has_content_of_its_name(other):
        return other
    target = folder / _name_of(url, name)
    with _alone(target):
        if not target.is_file():
            print_log(f'Downloading {url} to {target}', 'current')
            try:
                with _new_file(target, url) as file:
                    _download(url, file)
            except UserError as error:
                hint = f'; if {other} is the same file, name that'
                raise UserError(f'{error}{hint * other.is_file()}.') from error
    return target


@cache
def _stored(uri: str) -> Path:
    """Fetch a file by a storage backend of mmengine."""
    try:
        # As in mmengine's loader, petrel reads s3.
        kind = re.fullmatch(r'(?:\S+:)?(?:s3|petrel)://.*', uri)
        backend = get_file_backend(
            uri, backend_args=dict(backend='petrel') if kind else None
        )
    except (ImportError, KeyError, ValueError, TypeError) as error:
        raise UserError(
            f'{uri} cannot be read, since no storage backend of mmengine '
            f'takes it here ({_reason(error)}); name a file or an http '
            'address.'
        ) from error
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    target = folder / _name_of(uri, PurePosixPath(uri).name)
    with _alone(target), _new_file(target, uri) as file:
        file.write(backend.get(uri))
    return target


def _name_of(url: str, name: str) -> str:
    """Make a file name that is unique to the address."""
    digits = hashlib.sha256(url.encode()).hexdigest()[:_NUM_DIGITS]
    suffix = PurePosixPath(name).suffix[:_NUM_DIGITS]
    return f'{name.removesuffix(suffix)[:_LONGEST_NAME]}.{digits}{suffix}'


def _has_content_of_its_name(path: Path) -> bool:
    """Whether a file matches the hash in its name.

    Then its address does not matter, and downloads of torch.hub are reused,
    also without network.
    """
    promised = _HASH_IN_NAME.search(path.name)
    if promised is None or not path.is_file():
        return False
    found = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest().startswith(promised[1])


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Lock a download; the lock of a killed process is released."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f'.{target.name}.lock').open('w')
    except OSError as error:
        raise UserError(
            f'{target.parent}, where downloads are kept, cannot be written: '
            f'{_reason(error)}; set TORCH_HOME to a folder of your own.'
        ) from error
    with lock:
        with suppress(OSError):  # some network file systems lack locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _new_file(target: Path, url: str) -> Iterator[BinaryIO]:
    """Write a file atomically, if it is a checkpoint."""
    handle, name = tempfile.mkstemp(
        prefix=f'.{target.name}.', dir=target.parent
    )
    unfinished = Path(name)
    try:
        with open(handle, 'wb') as file:
            yield file
        kind = unreadable_kind(unfinished)
        if kind:
            raise UserError(
                f'What lies at {url} is no checkpoint of PyTorch: it {kind}'
            )
        unfinished.chmod(0o644)  # temporary files are private
        os.replace(unfinished, target)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f'{url} cannot be downloaded to {target.parent}: {_reason(error)}'
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _download(url: str, file: BinaryIO) -> None:
    """Download to a file, with a progress bar on a terminal."""
    request = urllib.request.Request(url, headers={'User-Agent': 'mmdetr'})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        size = int(answer.headers.get('Content-Length') or 0)
        received = 0
        with tqdm(
            total=size or None,
            disable=not sys.stderr.isatty(),
            unit='B',
            unit_scale=True,
            unit_divisor=1024,
        ) as progress:
            while chunk := answer.read(_CHUNK):
                received += file.write(chunk)
                progress.update(len(chunk))
    if size and received != size:
        raise OSError(f'it broke off after {received} of {size} bytes')


def _reason(error: BaseException) -> str:
    """Short description of a network or disk error."""
    if isinstance(error, TimeoutError):
        return f'no answer within {TIMEOUT} s'
    reason = getattr(error, 'reason', None)  # of urllib
    if isinstance(reason, BaseException):
        return _reason(reason)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return ' '.join(str(error).split()) or type(error).__name__
