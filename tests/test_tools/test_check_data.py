"""The table of all that is known of the data."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.training import TOY_CONFIG, load_tool

check_data = load_tool('check_data')


@pytest.fixture
def data(toy_data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(toy_data, tmp_path / 'data')


def run(data: Path, capsys: pytest.CaptureFixture) -> tuple[int, str]:
    """Exit status and what was printed, on one line a row."""
    with pytest.raises(SystemExit) as ended:
        check_data.main(
            [str(TOY_CONFIG), '--cfg-options', f'data_root={data}']
        )
    return ended.value.code, capsys.readouterr().out


def rows(printed: str) -> dict[str, list[str]]:
    """Cells of the tables by the name of their row."""
    cells = [line.strip('│┃').split('│') for line in printed.splitlines()]
    return {c[0].strip(): [x.strip() for x in c[1:]] for c in cells if c[1:]}


def change(data: Path, split: str, **values: object) -> dict:
    """Set values of the first annotation; return it as it was."""
    path = data / 'annotations' / f'{split}.json'
    content = json.loads(path.read_text())
    before = dict(content['annotations'][0])
    content['annotations'][0].update(values)
    path.write_text(json.dumps(content))
    return before


def test_counts_are_those_of_the_files(data: Path, capsys) -> None:
    status, printed = run(data, capsys)
    assert status == 0
    assert 'Nothing is wrong with the data.' in printed
    contents = [
        json.loads((data / 'annotations' / f'{split}.json').read_text())
        for split in ('train', 'val')
    ]
    table = rows(printed)
    assert table['images'] == [str(len(c['images'])) for c in contents]
    assert table['boxes'] == [str(len(c['annotations'])) for c in contents]
    for category in contents[0]['categories']:
        assert table[category['name']] == [
            str(
                sum(
                    a['category_id'] == category['id']
                    for a in content['annotations']
                )
            )
            for content in contents
        ]


def test_what_is_left_out_and_shared(data: Path, capsys) -> None:
    change(data, 'train', bbox=[900, 0, 5, 5])
    shutil.copy(data / 'train/000003.png', data / 'val/000002.png')
    status, printed = run(data, capsys)
    assert status == 0
    assert rows(printed)['left out'][0] == '1 outside their image'
    assert 'warning: 1 of' in printed
    shared = 'train and val: 1 images with the same content'
    assert shared in printed
    assert f'{data}/train/000003.png and {data}/val/000002.png' in printed


def test_what_training_refuses_is_an_error(data: Path, capsys) -> None:
    (data / 'train/000003.png').write_bytes(b'')
    cv2.imwrite(str(data / 'val/000001.png'), np.zeros((7, 9, 3), np.uint8))
    change(data, 'train', bbox=[0, 0, float('nan'), 5])
    status, printed = run(data, capsys)
    assert status == 1
    assert rows(printed)['broken images'] == ['1 empty', '0']
    assert f'error: The image {data}/train/000003.png' in printed
    assert '1 NaN' in printed
    assert 'loaded as 9 x 7' in printed


def test_files_that_are_missing_hide_nothing_else(data: Path, capsys) -> None:
    (data / 'annotations/train.json').unlink()
    status, printed = run(data, capsys)
    assert status == 1
    assert 'train.json of train_dataloader.dataset does not exist' in printed
    assert rows(printed)['images'] == ['?', '5']
