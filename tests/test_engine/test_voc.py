"""The lines of docs/data.md train and evaluate on Pascal VOC's format."""

import json
import re
from pathlib import Path

import cv2
import pytest
from mmengine.config import Config

from project.datasets.shapes_scene import SHAPE_CLASSES
from project.engine import DETRRunner
from tests.helpers.configs import ROOT
from tests.helpers.training import TOY_CONFIG

ANNOTATION = """<annotation><size><width>{width}</width>
<height>{height}</height><depth>3</depth></size>{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>0</difficult><bndbox>
<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
</object>"""


@pytest.fixture
def voc(toy_data: Path, tmp_path: Path) -> Path:
    """The shapes dataset in the other format."""
    root = tmp_path / 'voc'
    for name in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / name).mkdir(parents=True)
    for split, listed in (('train', 'trainval'), ('val', 'test')):
        path = toy_data / 'annotations' / f'{split}.json'
        content = json.loads(path.read_text())
        stems = [write(root, toy_data / split, content, image)
                 for image in content['images']]  # fmt: skip
        names = '\n'.join(stems) + '\n'
        (root / 'ImageSets/Main' / f'{listed}.txt').write_text(names)
    return root


def write(root: Path, folder: Path, content: dict, image: dict) -> str:
    """Write an image and its annotations; return its name."""
    stem = f'{folder.name}_{image["id"]}'
    pixels = cv2.imread(str(folder / image['file_name']))
    cv2.imwrite(str(root / 'JPEGImages' / f'{stem}.jpg'), pixels)
    names = {c['id']: c['name'] for c in content['categories']}
    objects = ''
    for a in content['annotations']:
        if a['image_id'] == image['id']:
            x, y, w, h = map(round, a['bbox'])
            corners = (x + 1, y + 1, x + w + 1, y + h + 1)
            objects += OBJECT.format(*corners, name=names[a['category_id']])
    text = ANNOTATION.format(**image, objects=objects)
    (root / 'Annotations' / f'{stem}.xml').write_text(text)
    return stem


def test_documented_lines(voc: Path, tmp_path: Path) -> None:
    text = (ROOT / 'docs' / 'data.md').read_text()
    section = text.partition('## Pascal VOC')[2].partition('\n## ')[0]
    (lines,) = re.findall(r'```python\n(.*?)```', section, re.DOTALL)
    lines = re.sub(r"(?m)^_base_ = '[^']*'", f"_base_ = '{TOY_CONFIG}'", lines)
    lines = lines.replace("'data/VOC2007/'", repr(f'{voc}/'))
    lines = re.sub(r'(?m)^classes = .*', f'classes = {SHAPE_CLASSES}', lines)
    config = tmp_path / 'voc.py'
    config.write_text(lines)
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(
        {
            'work_dir': str(tmp_path / 'work'),
            'train_cfg.max_epochs': 1,
            'experiment_name': tmp_path.name,
        }
    )
    runner = DETRRunner.from_cfg(cfg)
    runner.train()
    first = runner.train_dataloader.dataset[0]
    assert 'gt_instances' in first['data_samples']
    assert 'pascal_voc/mAP' in runner.val()
