# Copyright (c) mmdetr authors. All rights reserved.
"""Files are read without running code, or refused in one sentence."""

import pickle
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from project.checkpoints.safe_load import safe_load
from project.utils.errors import UserError
from tests.helpers.hostile import Trap


def sentence(path: Path, **kwargs: Any) -> str:
    with pytest.raises(UserError) as caught:
        safe_load(path, **kwargs)
    message = str(caught.value)
    assert '\n' not in message
    assert str(path) in message
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'c.pth'


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('mmap', [True, False])
def test_what_checkpoints_hold_is_read(
    path: Path, zipped: bool, mmap: bool
) -> None:
    content = dict(
        weights={'a': torch.arange(3.0)},
        args=Namespace(lr=0.1),
        best=np.float64(0.5),
        counts=np.arange(3),
    )
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = safe_load(path, mmap=mmap)
    assert torch.equal(found['weights']['a'], torch.arange(3.0))
    assert found['args'] == content['args']
    assert found['best'] == 0.5
    np.testing.assert_array_equal(found['counts'], np.arange(3))


@pytest.mark.parametrize('zipped', [True, False])
def test_no_variable_of_the_environment_lets_code_run(
    path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    trap = Trap(path.with_name('sprung'))
    torch.save(dict(a=trap), path, _use_new_zipfile_serialization=zipped)
    assert 'mkdir, not tensors alone' in sentence(path)
    assert not trap.path.exists()


def test_the_real_getattr_is_never_safe(path: Path) -> None:
    """A fork of mmengine declares it, and with it a file gets anywhere."""

    class LooksUp:
        def __reduce__(self) -> tuple:
            return getattr, (np.ndarray, 'tofile')

    torch.save(dict(a=LooksUp()), path)
    with torch.serialization.safe_globals([getattr, (getattr, 'a.b')]):
        assert "looks up 'tofile'" in sentence(path)
        assert getattr in torch.serialization.get_safe_globals()


def test_types_that_the_process_declared_safe_are_read(path: Path) -> None:
    torch.save(dict(a=Path('b')), path)
    assert 'holds pathlib.PosixPath' in sentence(path)
    with torch.serialization.safe_globals([type(Path('b'))]):
        assert safe_load(path)['a'] == Path('b')


SAFETENSORS = (8).to_bytes(8, 'little') + b'{"a": 1}' + bytes(1)


def write_torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('c/data.pkl', b'')
        archive.writestr('c/constants.pkl', b'')


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', b'')


@pytest.mark.parametrize(
    ('write', 'words'),
    [
        (lambda path: path.write_bytes(b''), '(0 bytes) is empty: get it'),
        (lambda path: path.write_text('<html>\n no'), "with '<html> no'; exp"),
        (lambda path: path.write_text('version https://git-lfs.g'), 'Git LFS'),
        (lambda path: path.write_bytes(bytes(range(99))), 'damaged or'),
        (lambda path: path.write_bytes(b'PK\x03\x04 cut'), 'damaged or cut o'),
        (lambda path: path.write_bytes(SAFETENSORS), 'safetensors'),
        (lambda path: path.write_bytes(pickle.dumps([1])), 'a plain pickle'),
        (write_torchscript, 'TorchScript'),
        (write_zip, 'a zip archive of other things; expected a checkpoint'),
        (lambda path: path.mkdir(), 'is a folder; expected a checkpoint in'),
        (lambda path: None, 'does not exist'),
    ],
)  # fmt: skip
def test_other_files_are_told_what_they_are(
    path: Path, write: Callable, words: str
) -> None:
    write(path)
    assert words in sentence(path)


def test_a_file_that_may_not_be_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, 'Permission denied')

    path.write_bytes(b'a')
    monkeypatch.setattr(Path, 'open', refuse)  # root may read everything
    assert 'cannot be read: Permission denied' in sentence(path)


def test_a_device_that_is_not_there_is_no_fault_of_the_file(
    path: Path,
) -> None:
    torch.save(dict(a=torch.ones(1)), path)
    with pytest.raises(RuntimeError, match='nowhere'):
        safe_load(path, map_location='nowhere')
    path.write_bytes(path.read_bytes()[:-50])
    assert 'damaged' in sentence(path, map_location='nowhere')
