"""What is read fast is what Python's json reads."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from project.preflight import annotations, json_pieces
from project.preflight.annotations import AnnotationFile
from project.utils.errors import UserError

POLYGON = [[1.5, 2, -3, 4, 5, 6]]
RLE = dict(size=[48, 64], counts=[48 * 64])


def content() -> dict:
    return dict(
        info=dict(year=2017),
        images=[
            dict(id=7, file_name='ä.jpg', width=64, height=48, license=1),
            dict(id=3, file_name='b/2.jpg', width=50.0, height=40),
        ],
        annotations=[
            dict(annotation(1), segmentation=POLYGON, iscrowd=0),
            dict(annotation(5), segmentation=RLE, iscrowd=1),
            dict(annotation(6), bbox=[1, 2.5, 3, 4e0], ignore=1),
            dict(annotation(2), category_id=4, iscrowd=None),
        ],
        categories=[dict(id=2, name='cat', supercategory='animal')],
    )


def annotation(number: int) -> dict:
    return dict(
        id=number, image_id=7, category_id=2, bbox=[0, 0, 9, 9], area=81
    )


def columns(file: AnnotationFile) -> dict:
    return {
        field.name: value.tolist() if isinstance(value, np.ndarray) else value
        for field in fields(file)
        for value in [getattr(file, field.name)]
    }


def read_slowly(path: str, monkeypatch: pytest.MonkeyPatch) -> AnnotationFile:
    with monkeypatch.context() as patch:
        patch.setattr(annotations, 'read_sound', lambda *args: None)
        return AnnotationFile.read(path)


def test_a_sound_file_needs_no_second_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'a.json'
    for indent in (None, 1):
        path.write_text(json.dumps(content(), indent=indent))
        slow = read_slowly(str(path), monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr(annotations, 'load_coco_json', None)  # would fail
            assert columns(AnnotationFile.read(str(path))) == columns(slow)
    assert slow.image_ids == [7, 3]
    assert slow.unlisted == dict(image_id='', category_id='4')
    assert slow.crowds.tolist() == [0, 1, 2, 2]


def many(**values: object) -> dict:
    boxes = [dict(annotation(i), iscrowd=i % 2) for i in range(40)]
    boxes[11].update(image_id=3, category_id=9)
    boxes[25].update(values)
    return dict(content(), annotations=boxes)


IN_PIECES = dict(
    as_usual=many(),
    annotations_first=dict(reversed(many().items())),
    not_listed=many(image_id=12),
)
NOT_IN_PIECES = dict(
    like_an_end_in_a_text=many(comment='"}, {"'),
    list_of_objects=many(keypoints=[{'x': 1}] * 90),
    key_in_images=dict(many(), images=[content()['images'][0] | many()]),
)


@pytest.mark.parametrize('kind', IN_PIECES | NOT_IN_PIECES)
@pytest.mark.parametrize('indent', [None, 1])
def test_a_large_file_is_read_in_pieces(
    kind: str,
    indent: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / 'a.json'
    data = (IN_PIECES | NOT_IN_PIECES)[kind]
    path.write_text(json.dumps(data, indent=indent, ensure_ascii=False))
    slow = read_slowly(str(path), monkeypatch)
    sizes = [500, 501, 502, 503, 504]
    with monkeypatch.context() as patch:
        patch.setattr(annotations, 'load_coco_json', None)  # would fail
        for size in sizes:
            patch.setattr(json_pieces, '_PIECE', size)
            text = path.read_bytes()
            assert len(json_pieces.cuts(text, 'annotations')) > 5
            fast = AnnotationFile.read(str(path))
            assert columns(replace(fast, sample=slow.sample)) == columns(slow)


def test_pieces_are_read_where_no_process_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(many()))
    slow = read_slowly(str(path), monkeypatch)
    monkeypatch.setattr(json_pieces, '_PIECE', 500)
    monkeypatch.setattr(json_pieces.sys, 'platform', 'darwin')
    monkeypatch.setattr(json_pieces, 'ProcessPoolExecutor', None)
    fast = AnnotationFile.read(str(path))
    assert fast.boxes.tolist() == slow.boxes.tolist()
    assert len(fast.sample['annotations']) < 10  # of the last piece
    assert fast.sample['images'] == slow.sample['images'][:1]


def change(key: str, **values: object) -> Callable[[dict], object]:
    return lambda data: data[key][0].update(values)


UNSOUND = dict(
    id_is_text=change('annotations', id='1'),
    no_area=lambda data: data['annotations'][0].pop('area'),
    no_number=change('annotations', bbox=[0, 0, 'x', 1]),
    five_numbers=change('annotations', bbox=[0, 0, 1, 1, 1]),
    nan=change('annotations', bbox=[0, 0, float('nan'), 1]),
    endless=change('annotations', bbox=[0, 0, float('inf'), 1]),
    flag=change('annotations', iscrowd='0'),
    same_ids=change('annotations', id=5),
    same_images=change('images', id=3),
    no_width=lambda data: data['images'][0].pop('width'),
    width_of_zero=change('images', width=0),
    no_image=lambda data: data['images'].clear(),
    no_category=lambda data: data['categories'].clear(),
    no_annotations=lambda data: data.pop('annotations'),
    strange_name=change('images', file_name='a\0'),
    name_is_number=change('categories', name=3),
    list_of_numbers=lambda data: data.update(images=[1]),
)


@pytest.mark.parametrize('kind', UNSOUND)
def test_other_files_are_judged_alike(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content()
    UNSOUND[kind](data)
    path = str(tmp_path / 'a.json')
    Path(path).write_text(json.dumps(data))

    def outcome(read: Callable[[], AnnotationFile]) -> object:
        try:
            # Equal although NaN is not.
            return repr(columns(read()))
        except UserError as error:
            return str(error)

    assert outcome(lambda: AnnotationFile.read(path)) == outcome(
        lambda: read_slowly(path, monkeypatch)
    )


@pytest.mark.parametrize('text', [b'{"images": [', b'\xef\xbb\xbf{}', b'\xff'])
def test_no_json(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    path.write_bytes(text)
    with pytest.raises(UserError, match='is not a COCO json'):
        AnnotationFile.read(str(path))


def test_text_that_is_no_utf8_where_nobody_looks(tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    text = json.dumps(content(), ensure_ascii=False)
    path.write_bytes(text.replace('animal', 'Tür').encode('latin-1'))
    with pytest.raises(UserError, match='is not a COCO json'):
        AnnotationFile.read(str(path))


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='cannot be read: Is a directory'):
        AnnotationFile.read(str(tmp_path))
