"""Damage that torch.load does not notice."""

from pathlib import Path

import pytest
import torch

from project.checkpoints.check_sums import check_intact
from project.checkpoints.reading import read_checkpoint, read_weights
from project.utils.errors import UserError


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / 'epoch_1.pth'
    weights = {f'layer{i}.weight': torch.randn(100, 50) for i in range(5)}
    torch.save(dict(state_dict=weights), path)
    return path


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open('r+b') as file:
        file.seek(start)
        file.write(content)


@pytest.mark.parametrize('reader', [check_intact, read_checkpoint])
def test_zeroed_bytes_among_the_weights(
    checkpoint: Path, reader: object
) -> None:
    reader(str(checkpoint))
    overwrite(checkpoint, 50_000, bytes(1000))
    torch.load(checkpoint)  # says nothing
    with pytest.raises(
        UserError, match=r'epoch_1\.pth .*is damaged .*: Bad CRC'
    ):
        reader(str(checkpoint))


def test_converting_compares_check_sums(checkpoint: Path) -> None:
    read_weights(checkpoint)
    overwrite(checkpoint, 50_000, bytes(1000))
    with pytest.raises(UserError, match=r'epoch_1\.pth .*is damaged'):
        read_weights(checkpoint)


@pytest.mark.parametrize('kept', [0.1, 0.5, 0.99])
def test_a_file_that_was_cut_off(checkpoint: Path, kept: float) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match=r'epoch_1\.pth .*is damaged'):
        check_intact(checkpoint)


def test_an_empty_file(checkpoint: Path) -> None:
    checkpoint.write_bytes(b'')
    with pytest.raises(
        UserError, match=r'\(0 bytes\) is damaged .*: it is em'
    ):
        check_intact(checkpoint)


def test_a_file_without_check_sums_is_taken(checkpoint: Path) -> None:
    if not hasattr(torch.serialization, 'set_crc32_options'):
        pytest.skip('this torch always computes them')
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(dict(a=torch.randn(10)), checkpoint)
    finally:
        torch.serialization.set_crc32_options(True)
    check_intact(checkpoint)


def test_a_file_older_than_the_zip_format_is_taken(checkpoint: Path) -> None:
    torch.save(
        dict(a=torch.randn(10)),
        checkpoint,
        _use_new_zipfile_serialization=False,
    )
    check_intact(checkpoint)


def test_a_file_that_stays_is_read_once(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_intact(checkpoint)
    monkeypatch.setattr('zipfile.ZipFile', pytest.fail)
    check_intact(checkpoint)
