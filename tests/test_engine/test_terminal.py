"""The terminal shows what a user looks at; the log file has everything."""

import json
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from project.engine import DETRRunner
from tests.helpers.training import toy_config


@pytest.fixture(scope='module')
def outputs(
    toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str, list[dict]]:
    """Terminal, log file and scalars of a training of two epochs."""
    work_dir = tmp_path_factory.mktemp('work_dir')
    cfg = toy_config(
        toy_data,
        work_dir,
        train_cfg__val_interval=1,
        model__backbone__frozen_stages=1,
        auto_scale_lr__base_batch_size=4,  # the learning rate is meant so
    )
    with pytest.MonkeyPatch.context() as patch:
        shown = patched_stdout(patch)
        DETRRunner.from_cfg(cfg).train()
        terminal = shown.getvalue()
    (log,) = work_dir.glob('*/*.log')
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    entries = map(json.loads, scalars.read_text().splitlines())
    return terminal, log.read_text(), list(entries)


def patched_stdout(patch: pytest.MonkeyPatch):
    import io
    import sys

    stream = io.StringIO()
    patch.setattr(sys, 'stdout', stream)
    return stream


def test_before_the_first_loss(outputs: tuple) -> None:
    head, found, _ = outputs[0].partition('Epoch(train)')
    assert found
    lines = head.splitlines()
    assert len(lines) <= 13, head
    assert max(map(len, lines)) < 200
    texts = [re.sub(r'^\S+ \S+  ', '', line) for line in lines]
    starts = [text.split()[0] for text in texts if text[:1].strip()]
    assert starts == [
        'Environment', 'Data', 'training', 'validation', 'Model', 'Training',
    ]  # fmt: skip
    rows = {text.split()[0]: text.split() for text in texts[:-1]}
    assert rows['training'][1:5] == ['8', count('train'), '4', '7:']
    assert 'HDETR on ResNet' in head
    assert '10 queries; 1 encoder layer; 2 decoder layers; 7 classes' in head
    assert '2 epochs of 2 iterations of 4 images, AdamW, lr 0.0002' in head


def count(split: str) -> str:
    """Objects of the toy data, which its file tells."""
    return str(len(ANNOTATIONS[split]))


ANNOTATIONS: dict[str, list] = {}


@pytest.fixture(scope='module', autouse=True)
def annotations(toy_data: Path) -> None:
    for split in ('train', 'val'):
        path = toy_data / 'annotations' / f'{split}.json'
        ANNOTATIONS[split] = json.loads(path.read_text())['annotations']


def test_a_loss_line_fits_on_a_screen(outputs: tuple) -> None:
    terminal, _, scalars = outputs
    lines = [x for x in terminal.splitlines() if 'Epoch(train)' in x]
    assert len(lines) == 4
    for line in lines:
        assert len(line) < 240
        names = set(re.findall(r'(\S+): ', line))
        assert {
            'loss', 'loss_cls', 'loss_bbox', 'loss_iou', 'lr', 'eta', 'time',
            'memory', 'grad_norm',
        } <= names  # fmt: skip
        assert not any('d0.' in n or 'one2many' in n for n in names)
    trained = [entry for entry in scalars if 'loss' in entry]
    assert len(trained) == 4
    for name in ('d0.loss_cls', 'enc_loss_iou', 'd0.one2many_loss_bbox'):
        assert all(name in entry for entry in trained)


def test_details_are_in_the_log_file(outputs: tuple) -> None:
    terminal, log, _ = outputs
    for detail in (
        'System environment:',
        'Hooks will be executed',
        'paramwise_options',
        'index created!',
        'Average Precision',
        'Evaluating bbox',
        'bbox_mAP_copypaste',
        'is skipped since its requires_grad=False',
    ):
        assert detail in log
        assert detail not in terminal
    assert terminal.count('coco/bbox_mAP: ') == 2  # one line an epoch
    assert 'WARNING' not in terminal


def test_a_test_shows_its_table(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = patched_stdout(monkeypatch)
    DETRRunner.from_cfg(toy_config(toy_data, tmp_path)).test()
    terminal = shown.getvalue()
    assert 'Average Precision  (AP) @[ IoU=0.50:0.95 |' in terminal
    assert 'coco/bbox_mAP: ' in terminal
    assert 'index created!' not in terminal


def test_debugging_shows_everything(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = patched_stdout(monkeypatch)
    cfg: Config = toy_config(toy_data, tmp_path, log_level='DEBUG')
    DETRRunner.from_cfg(cfg)
    assert 'Hooks will be executed' in shown.getvalue()
