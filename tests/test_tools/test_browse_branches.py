"""Weak and strong images beside each other."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from project.datasets.shapes_scene import SHAPE_CLASSES
from tests.helpers.configs import CONFIGS
from tests.helpers.training import TOY_CONFIG, load_tool

browse_branches = load_tool('analysis_tools/browse_branches')
HPR = CONFIGS / 'custom' / 'hpr-dino_r50_8xb2-12e_custom.py'


def options(data: Path) -> list[str]:
    classes = ','.join(SHAPE_CLASSES)
    return ['--cfg-options', f'data_root={data}', f'classes=[{classes}]']


def test_both_branches_are_drawn(toy_data: Path, tmp_path: Path) -> None:
    out = tmp_path / 'pictures'
    given = [str(HPR), '--out', str(out), '--num-images', '2']
    browse_branches.main([*given, *options(toy_data)])
    pictures = sorted(out.iterdir())
    assert len(pictures) == 2
    weak, strong = np.split(cv2.imread(str(pictures[0])), 2, axis=1)
    assert weak.shape == strong.shape
    # The panels show different pixels, and both show an image.
    inner = slice(80, -80), slice(60, -60)
    assert np.abs(weak[inner].astype(int) - strong[inner]).mean() > 3
    assert min(weak[inner].std(), strong[inner].std()) > 10


def test_the_same_seed_draws_the_same(toy_data: Path, tmp_path: Path) -> None:
    contents = []
    for name in ('a', 'b'):
        given = [str(HPR), '--out', str(tmp_path / name), '--num-images', '1']
        browse_branches.main([*given, *options(toy_data)])
        (path,) = (tmp_path / name).iterdir()
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_a_pipeline_without_branches(toy_data: Path, tmp_path: Path) -> None:
    given = [
        str(TOY_CONFIG),
        '--out',
        str(tmp_path / 'a'),
        '--num-images',
        '2',
    ]
    browse_branches.main([*given, '--cfg-options', f'data_root={toy_data}'])
    assert len(list((tmp_path / 'a').iterdir())) == 2


def test_nothing_is_overwritten(toy_data: Path, tmp_path: Path) -> None:
    (tmp_path / 'mine.txt').write_text('mine')
    given = [str(HPR), '--out', str(tmp_path), *options(toy_data)]
    with pytest.raises(SystemExit, match='not an empty folder'):
        browse_branches.main(given)
