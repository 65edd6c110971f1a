"""A YOLO folder becomes annotations that mmdet trains on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset

from tests.helpers.training import load_tool

yolo_to_coco = load_tool('dataset_converters/yolo_to_coco')


def write(root: Path, layout: str, label: str) -> None:
    """A dataset of two images, one without objects."""
    images = root / layout.format('images')
    labels = root / layout.format('labels')
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    (root / 'data.yaml').write_text('names: {0: cat, 1: dog}\n')
    for name in ('a', 'b'):
        cv2.imwrite(
            str(images / f'{name}.png'), np.zeros((50, 100, 3), np.uint8)
        )
    (labels / 'a.txt').write_text(label)


@pytest.mark.parametrize('layout', ['{}/train', 'train/{}'])
def test_boxes_and_polygons(tmp_path, layout, capsys) -> None:
    label = '1 0.5 0.5 0.2 0.4\n0 0.1 0.2 0.3 0.2 0.3 0.6\n'
    write(tmp_path, layout, label)
    yolo_to_coco.main([str(tmp_path), '--splits', 'train'])
    printed = capsys.readouterr().out
    assert "classes = ('cat', 'dog')" in printed
    assert '2 images, 2 boxes' in printed
    dataset = CocoDataset(
        data_root=str(tmp_path),
        ann_file='annotations/train.json',
        data_prefix=dict(img=layout.format('images')),
        metainfo=dict(classes=('cat', 'dog')),
        pipeline=[],
    )
    boxes = [i['bbox'] for i in dataset[0]['instances']]
    # cx, cy, w, h of 100 x 50 pixels, by hand.
    np.testing.assert_allclose(boxes, [[40, 15, 60, 35], [10, 10, 30, 30]])
    labels = [i['bbox_label'] for i in dataset[0]['instances']]
    assert labels == [1, 0]
    assert dataset[1]['instances'] == []
    assert Path(dataset[1]['img_path']).is_file()


@pytest.mark.parametrize(
    ('label', 'words'),
    [
        ('2 0.5 0.5 0.1 0.1', 'from 0 to 1'),
        ('0 50 20 10 10', 'between 0 and 1'),
        ('0 0.5 0.5', 'cx cy w h'),
        ('cat 0.5 0.5 0.1 0.1', 'Line 1 of'),
        ('0.5 0.5 0.5 0.1 0.1', 'Line 1 of'),
        ('0 nan 0.5 0.1 0.1', 'Line 1 of'),
    ],
)
def test_labels_of_another_kind(tmp_path, label, words) -> None:
    write(tmp_path, '{}/train', label)
    with pytest.raises(SystemExit, match=words):
        yolo_to_coco.main([str(tmp_path), '--splits', 'train'])
    assert not (tmp_path / 'annotations/train.json').exists()


def test_nothing_is_overwritten(tmp_path) -> None:
    write(tmp_path, '{}/train', '0 0.5 0.5 0.1 0.1')
    there = tmp_path / 'annotations/train.json'
    there.parent.mkdir()
    there.write_text('mine')
    with pytest.raises(SystemExit, match='left as it is'):
        yolo_to_coco.main([str(tmp_path), '--splits', 'train'])
    assert there.read_text() == 'mine'
