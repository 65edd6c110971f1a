"""Annotations without ``iscrowd`` are evaluated as single objects."""

import json
import shutil
from pathlib import Path

import torch

from project.engine import DETRRunner
from tests.helpers.training import toy_config


def evaluate(data: Path, work_dir: Path) -> dict:
    torch.manual_seed(0)
    cfg = toy_config(data, work_dir, randomness__seed=0)
    return DETRRunner.from_cfg(cfg).val()


def test_missing_and_null(toy_data: Path, tmp_path: Path) -> None:
    expected = evaluate(toy_data, tmp_path / 'first')
    data = shutil.copytree(toy_data, tmp_path / 'data')
    path = data / 'annotations' / 'val.json'
    content = json.loads(path.read_text())
    for index, annotation in enumerate(content['annotations']):
        annotation['iscrowd'] = None
        if index % 2:
            annotation.pop('iscrowd')
    path.write_text(json.dumps(content))
    assert evaluate(data, tmp_path / 'second') == expected
    assert expected['coco/bbox_mAP'] >= 0
    log = next((tmp_path / 'second').glob('*/*.log')).read_text()
    told = f'{len(content["annotations"])} annotations of {path}'
    assert f"{told} of val_evaluator have no 'iscrowd'" in log
