"""python -m project new-method: a folder under another name."""

from pathlib import Path

import pytest
from mmengine.config import Config

from tests.helpers.training import load_tool

tool = load_tool('new_method')


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_everything_has_the_name(capsys: pytest.CaptureFixture) -> None:
    tool.main(['size-detr'])
    root = Path('size_detr')
    assert {str(p.relative_to(root)) for p in root.rglob('*.*')} == {
        'README.md',
        'configs/size-detr_r50_8xb2-12e_coco.py',
        'size_detr/__init__.py',
        'size_detr/detector.py',
        'size_detr/head.py',
        'size_detr/loss.py',
        'tests/test_size_detr.py',
    }
    for path in root.rglob('*.*'):
        text = path.read_text().lower().replace('-', '_')
        assert 'my_method' not in text
        assert 'mymethod' not in text
    assert (
        'class SizeDETRHead(HDETRHead)'
        in Path('size_detr/size_detr/head.py').read_text()
    )
    assert 'cd size_detr' in capsys.readouterr().out


def test_its_config_inherits_a_shipped_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tool.main(['size_detr', '--out', 'mine'])
    monkeypatch.syspath_prepend('mine')
    config = Config.fromfile('mine/configs/size-detr_r50_8xb2-12e_coco.py')
    assert config.model.type == 'SizeDETR'
    assert config.model.one2many.num_queries == 1500
    assert config.model.bbox_head.loss_bbox.type == 'SizeDETRLoss'


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('Size', 'expected small letters'),
        ('2fast', 'a letter first'),
        ('class', 'class is a word of Python'),
        ('mmdet', 'a package that is installed'),
    ],
)
def test_names_that_cannot_be(
    name: str, words: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        tool.main([name])
    assert words in capsys.readouterr().err


def test_nothing_is_overwritten() -> None:
    Path('other_detr').mkdir()
    with pytest.raises(SystemExit, match='other_detr exists; name another'):
        tool.main(['other-detr'])


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('detr', r'class DETR, which mmdet\.models\.detectors\.detr has'),
        ('rank-detr', r'class RankDETR, which project\.'),
        ('focal', r'class FocalLoss, which mmdet\.'),
    ],
)
def test_names_of_classes_that_are_there(name: str, words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        tool.main([name])
    assert not list(Path().iterdir())


def test_a_file_in_the_way() -> None:
    Path('file').touch()
    with pytest.raises(SystemExit, match='file/new cannot be made: Not a dir'):
        tool.main(['other-detr', '--out', 'file/new'])
