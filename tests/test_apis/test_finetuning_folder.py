"""A folder in any format gives the same training data, and stays as it is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from mmdet.datasets import CocoDataset

from project.apis.finetuning import folder
from project.apis.finetuning.folder import (
    DataFolder,
    _read_json,
    read_folder,
)
from project.utils.errors import UserError
from tests.helpers.configs import SHARED
from tests.helpers.data_formats import FORMATS, as_voc, as_yolo
from tests.helpers.training import toy_data

__all__ = ['toy_data']

COCO_MINI = SHARED / 'data' / 'coco_mini'


def files(root: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in root.rglob('*') if p.is_file()}


def contents(data: DataFolder, split: str) -> list:
    """Pixels of the images by their digest, with boxes by class name."""
    part = data.splits[split]
    dataset = CocoDataset(
        ann_file=str(part.annotations),
        data_prefix=dict(img=str(part.images)),
        metainfo=dict(classes=data.classes),
        pipeline=[],
    )
    found = []
    for info in dataset:
        boxes = [
            (data.classes[i['bbox_label']], *np.round(i['bbox'], 3))
            for i in info['instances']
        ]
        pixels = Path(info['img_path']).read_bytes()
        found.append((hash(pixels), sorted(boxes)))
    return sorted(found)


@pytest.mark.parametrize('name', FORMATS)
def test_every_format_gives_the_same(toy_data, tmp_path, name) -> None:
    root = tmp_path / 'mine'
    FORMATS[name](toy_data, root)
    before = files(root)
    expected = read_folder(toy_data, tmp_path / 'a')
    data = read_folder(root, tmp_path / 'b')
    assert data.kind == ('COCO' if name == 'Roboflow' else name)
    assert (data.num_images, data.is_split) == (8, False)
    assert set(data.classes) == set(expected.classes)
    for split in ('train', 'val'):
        assert contents(data, split) == contents(expected, split)
    assert sum(len(boxes) for _, boxes in contents(data, 'train')) > 8
    assert files(root) == before


@pytest.mark.parametrize('name', FORMATS)
def test_without_a_split_one_is_made(toy_data, tmp_path, name) -> None:
    root = tmp_path / 'mine'
    FORMATS[name](toy_data, root)
    for part in (
        'annotations/val.json', 'valid/_annotations.coco.json',
        'ImageSets/Main/val.txt',
    ):  # fmt: skip
        (root / part).unlink(missing_ok=True)
    if name == 'YOLO':
        (root / 'images' / 'val').rename(root / 'unlabelled')
    data = read_folder(root, tmp_path / 'a', seed=1)
    assert data.is_split
    parts = {split: contents(data, split) for split in ('train', 'val')}
    assert [len(part) for part in parts.values()] == [6, 2]
    whole = contents(read_folder(toy_data, tmp_path / 'b'), 'train')
    assert sorted(parts['train'] + parts['val']) == whole
    again = read_folder(root, tmp_path / 'c', seed=1)
    assert contents(again, 'val') == parts['val']


@pytest.mark.skipif(
    not COCO_MINI.is_dir(), reason='needs ../shared/data/coco_mini'
)
@pytest.mark.parametrize('name', ['VOC', 'YOLO'])
def test_photographs(tmp_path, name) -> None:
    """The first 10 of each split, without crowds."""
    root = tmp_path / 'coco'
    (root / 'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        file = f'annotations/instances_{split}2017.json'
        content = json.loads((COCO_MINI / file).read_text())
        content['images'] = content['images'][:10]
        kept = {image['id'] for image in content['images']}
        content['annotations'] = [
            box
            for box in content['annotations']
            if not box['iscrowd'] and box['image_id'] in kept
        ]
        (root / 'annotations' / f'{split}.json').write_text(
            json.dumps(content)
        )
        (root / split).mkdir()
        for image in content['images']:
            path = COCO_MINI / f'{split}2017' / image['file_name']
            (root / split / path.name).symlink_to(path)
    FORMATS[name](root, tmp_path / 'other')
    expected = read_folder(root, tmp_path / 'a')
    data = read_folder(tmp_path / 'other', tmp_path / 'b')
    assert data.kind == name
    assert len(expected.classes) == 80
    for split in ('train', 'val'):
        assert contents(data, split) == contents(expected, split)


def test_coco_by_its_own_names(toy_data, tmp_path) -> None:
    (tmp_path / 'annotations').mkdir()
    for split in ('train', 'val'):
        (tmp_path / f'{split}2017').symlink_to(toy_data / split)
        name = f'annotations/instances_{split}2017.json'
        (tmp_path / name).symlink_to(toy_data / f'annotations/{split}.json')
    data = read_folder(tmp_path, tmp_path / 'out')
    assert data.splits['val'].images == tmp_path / 'val2017'
    assert not (tmp_path / 'out').exists()


def test_one_annotation_file_of_any_name(toy_data, tmp_path) -> None:
    (tmp_path / 'images').symlink_to(toy_data / 'train')
    (tmp_path / 'labels.json').symlink_to(toy_data / 'annotations/train.json')
    (tmp_path / 'other.json').write_text('[]')
    data = read_folder(tmp_path, tmp_path / 'out')
    assert data.is_split
    assert data.num_images == 6


def test_voc_of_one_year_without_lists(toy_data, tmp_path) -> None:
    as_voc(toy_data, tmp_path / 'VOCdevkit' / 'VOC2012')
    for file in tmp_path.rglob('*.txt'):
        file.unlink()
    data = read_folder(tmp_path, tmp_path / 'out')
    assert data.num_images == 10  # of 13
    as_voc(toy_data, tmp_path / 'VOCdevkit' / 'VOC2007')
    with pytest.raises(UserError, match='several Pascal VOC'):
        read_folder(tmp_path, tmp_path / 'out')


def test_difficult_objects_are_marked(toy_data, tmp_path) -> None:
    as_voc(toy_data, tmp_path / 'mine')
    file = tmp_path / 'mine/Annotations/train_000001.xml'
    text = file.read_text()
    marked = '<difficult>1</difficult></object>'
    file.write_text(text.replace('</object>', marked, 1))
    data = read_folder(tmp_path / 'mine', tmp_path / 'out')
    content = json.loads(data.splits['train'].annotations.read_text())
    (image,) = [
        i['id']
        for i in content['images']
        if i['file_name'] == 'train_000001.png'
    ]
    boxes = [b for b in content['annotations'] if b['image_id'] == image]
    count = text.count('</object>')
    assert [box['ignore'] for box in boxes] == [1] + [0] * (count - 1)
    assert count > 1


def test_a_test_split_has_boxes(toy_data, tmp_path) -> None:
    root = tmp_path / 'mine'
    as_yolo(toy_data, root)
    shutil.copytree(root / 'images' / 'val', root / 'images' / 'test')
    assert set(read_folder(root, tmp_path / 'a').splits) == {'train', 'val'}
    shutil.copytree(root / 'labels' / 'val', root / 'labels' / 'test')
    data = read_folder(root, tmp_path / 'b')
    assert contents(data, 'test') == contents(data, 'val')


@pytest.mark.parametrize(
    'base', ['', 'path: /of/another/machine\n', 'path: ../datasets/mine\n']
)
@pytest.mark.parametrize('kind', ['folders', 'lists', 'beside'])
def test_what_data_yaml_names_goes_first(
    toy_data, tmp_path, base, kind
) -> None:
    """Not what folders are called, which hold other splits here."""
    root = tmp_path / 'mine'
    as_yolo(toy_data, root)
    as_called = read_folder(root, tmp_path / 'as_called')
    train, val = (contents(as_called, split) for split in ('train', 'val'))
    names = yaml.safe_load((root / 'data.yaml').read_text())['names']
    if kind == 'beside':
        for part in ('labels', 'images'):
            for path in list((root / part).rglob('*.*')):
                place = root / 'images/all' / path.parent.name / path.name
                place.parent.mkdir(parents=True, exist_ok=True)
                path.rename(place)
    entries = dict(train='../images/val', val='images/train')
    if kind != 'folders':
        for split, other in (('train', 'val'), ('val', 'train')):
            found = sorted((root / 'images').rglob(f'{other}/*.png'))
            lines = [f'./{path.relative_to(root)}\n' for path in found]
            entries[split] = f'{split}.txt'
            (root / entries[split]).write_text(''.join(lines))
    text = yaml.safe_dump(dict(**entries, names=dict(enumerate(names))))
    (root / 'data.yaml').write_text(f'{base}{text}')
    (root / 'labels').mkdir(exist_ok=True)
    data = read_folder(root, tmp_path / 'out')
    assert contents(data, 'train') == val
    assert contents(data, 'val') == train
    assert data.classes == as_called.classes


def test_a_split_that_data_yaml_names_exists(toy_data, tmp_path) -> None:
    """Or no fifth of the training images is taken in its place."""
    root = tmp_path / 'mine'
    as_yolo(toy_data, root)
    shutil.rmtree(root / 'images/val')
    content = yaml.safe_load((root / 'data.yaml').read_text())
    content['val'] = 'images/validaton'
    (root / 'data.yaml').write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match='names images/validaton as val, whi'):
        read_folder(root, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    # Roboflow names all three, whatever it exports.
    del content['val']
    content['test'] = '../test/images'
    (root / 'data.yaml').write_text(yaml.safe_dump(content))
    data = read_folder(root, tmp_path / 'out')
    assert data.is_split
    assert 'test' not in data.splits


def test_several_folders_of_a_split(toy_data, tmp_path) -> None:
    root = tmp_path / 'mine'
    as_yolo(toy_data, root)
    expected = read_folder(root, tmp_path / 'as_called')
    content = yaml.safe_load((root / 'data.yaml').read_text())
    content['train'] = ['images/train', 'images/val']
    (root / 'data.yaml').write_text(yaml.safe_dump(content))
    data = read_folder(root, tmp_path / 'out')
    count = sum(len(contents(expected, x)) for x in ('train', 'val'))
    assert data.num_images == count
    (root / 'data.yaml').write_text(
        yaml.safe_dump(content | dict(train=['images/train', 'images/more']))
    )
    with pytest.raises(UserError, match='names images/more as train, which'):
        read_folder(root, tmp_path / 'out')


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('names: [a, b', r'data\.yaml cannot be read as YAML'),
        ('nc: 3\nnames: [a, b]', r'data\.yaml has nc: 3 and names 2'),
        ('names: {0: a, 2: b}', r'data\.yaml numbers its names \[0, 2\]'),
    ],
)
def test_names_that_contradict_themselves(
    toy_data, tmp_path, text, words
) -> None:
    root = tmp_path / 'mine'
    as_yolo(toy_data, root)
    (root / 'data.yaml').write_text(text)
    with pytest.raises(UserError, match=words):
        read_folder(root, tmp_path / 'out')


def test_one_image_is_not_split(toy_data, tmp_path) -> None:
    root = tmp_path / 'mine'
    as_yolo(toy_data, root)
    shutil.rmtree(root / 'images/val')
    for path in sorted((root / 'images/train').iterdir())[1:]:
        path.unlink()
    with pytest.raises(UserError, match='mine has one image'):
        read_folder(root, tmp_path / 'out')


def test_what_is_no_dataset(tmp_path) -> None:
    file = tmp_path / 'data.yaml'
    file.write_text('names: [a]')
    with pytest.raises(UserError, match=r'data\.yaml is a file; expected'):
        read_folder(file, tmp_path / 'out')
    with pytest.raises(UserError, match='does not exist'):
        read_folder(tmp_path / 'nothing', tmp_path / 'out')
    with pytest.raises(UserError, match='no dataset that is recognised'):
        read_folder(tmp_path, tmp_path / 'out')


def test_faults_are_told(toy_data, tmp_path) -> None:
    root = tmp_path / 'voc'
    as_voc(toy_data, root)
    file = root / 'Annotations/train_000001.xml'
    text = file.read_text()
    file.write_text(text.replace('xmin', 'left'))
    with pytest.raises(UserError, match='not in the format of Pascal VOC'):
        read_folder(root, tmp_path / 'out')
    file.write_text(text)
    (root / 'JPEGImages/train_000001.png').unlink()
    with pytest.raises(UserError, match='has no image for'):
        read_folder(root, tmp_path / 'out')
    file.unlink()
    with pytest.raises(UserError, match=r'train\.txt lists, does not exist'):
        read_folder(root, tmp_path / 'out')
    as_yolo(toy_data, tmp_path / 'yolo')
    (tmp_path / 'yolo/data.yaml').write_text('nc: 3')
    with pytest.raises(UserError, match=r'no data\.yaml'):
        read_folder(tmp_path / 'yolo', tmp_path / 'out')


def test_each_file_is_read_once(toy_data, tmp_path, monkeypatch) -> None:
    names: list[str] = []

    def read(file: Path) -> dict:
        names.append(file.name)
        return _read_json(file)

    monkeypatch.setattr(folder, '_read_json', read)
    read_folder(toy_data, tmp_path / 'a')
    assert sorted(names) == ['train.json', 'val.json']
    root = shutil.copytree(toy_data, tmp_path / 'mine')
    (root / 'annotations/val.json').unlink()
    names.clear()
    assert read_folder(root, tmp_path / 'b').is_split
    assert sorted(names) == ['train.json', 'train_part.json']
