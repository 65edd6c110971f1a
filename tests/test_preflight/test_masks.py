"""Masks that pycocotools could not draw are found before it crashes."""

import json
from pathlib import Path

import pytest

from project.preflight.annotations import AnnotationFile
from project.preflight.masks import BROKEN_MASK, MASK, NO_MASK, mask_states

RLE = dict(size=[48, 64], counts=[48 * 64])
STATES = [
    (NO_MASK, [[], None, '', {}]),
    (MASK, [[[]], [[1, 2], [3, 4]], [[1.5, -2e0]], RLE]),
    (MASK, [dict(RLE, counts='abc')]),
    (BROKEN_MASK, [[1, 2, 3, 4], [[1, 2], 3, [4]], [[[1, 2]]], [['1', 2]]]),
    (BROKEN_MASK, [[[None]], [[1e400]], 'text', 5]),
    (BROKEN_MASK, [dict(RLE, size=[64, 48]), dict(RLE, counts=[1])]),
    (BROKEN_MASK, [dict(counts=[1])]),
]
CASES = [(state, mask) for state, masks in STATES for mask in masks]


def written(path: Path, masks: list, **extra: object) -> AnnotationFile:
    annotations = [
        dict(
            id=index + 1,
            image_id=7,
            category_id=2,
            bbox=[0, 0, 9, 9],
            area=81,
            **({} if mask is ... else dict(segmentation=mask)),
        )
        for index, mask in enumerate(masks)
    ]
    content = dict(
        images=[dict(id=7, file_name='a.jpg', width=64, height=48)],
        annotations=annotations,
        categories=[dict(id=2, name='cat')],
        **extra,
    )
    path.write_text(json.dumps(content).replace('Infinity', '1e400'))
    return AnnotationFile.read(str(path))


# Only Python's json reads NaN.
@pytest.mark.parametrize('extra', [{}, dict(info=float('nan'))], ids=str)
def test_states(extra: dict, tmp_path: Path) -> None:
    masks = [..., *(mask for _, mask in CASES)]
    file = written(tmp_path / 'a.json', masks, **extra)
    expected = [NO_MASK, *(state for state, _ in CASES)]
    assert mask_states(file).tolist() == expected


def test_a_coordinate_that_is_no_number(tmp_path: Path) -> None:
    file = written(tmp_path / 'a.json', [[[1, float('nan')]], RLE])
    assert mask_states(file).tolist() == [BROKEN_MASK, MASK]


def test_states_of_one_file_are_not_those_of_another(tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    large = [[[1.5, 2] * 2**20]]  # such as are cached
    first = written(path, large)
    assert mask_states(first).tolist() == [MASK]
    assert mask_states(first).tolist() == [MASK]
    second = written(path, [*large, None])
    assert mask_states(second).tolist() == [MASK, NO_MASK]
