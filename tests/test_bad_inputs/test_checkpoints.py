"""Each checkpoint of the corpus works, or ends in a sentence that helps.

A case's ``input`` says by which door it comes (``load``, ``resume``, ``part``
of a training; ``start`` of its backbone; ``mmengine``'s loader; ``convert``)
and what the file is: bytes (``hex``, ``text``, ``zip``), or what a training
has saved with some parts changed (``checkpoint``). Values that begin with a
dollar sign stand for what json cannot write.
"""

import json
import urllib.request
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from torch import nn

from project.checkpoints.pretrained import check_pretrained
from project.checkpoints.reading import read_weights
from project.checkpoints.start_checks import (
    check_checkpoint,
    check_resumable,
    check_start_in_part,
)
from project.utils.errors import UserError
from tests.helpers.hostile import Trap
from tests.helpers.toy import tiny_model_config

FOLDER = Path(__file__).parents[1] / 'data' / 'bad_inputs'
CASES = json.loads((FOLDER / 'checkpoints.json').read_text())
CONFIG = 'h_detr/h-detr_r50_8xb2-12e_coco.py'


def build(num_classes: int = 3, **changes: Any) -> nn.Module:
    config = tiny_model_config(CONFIG, **changes)
    config.bbox_head.num_classes = num_classes
    config.test_cfg.max_per_img = 5
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(config)


@pytest.fixture(scope='module')
def model() -> nn.Module:
    return build()


def value_of(value: Any, folder: Path) -> Any:
    """Replace what stands for something."""
    if isinstance(value, dict):
        made = {k: value_of(v, folder) for k, v in value.items()}
        return {k: v for k, v in made.items() if not is_absent(v)}
    if isinstance(value, list):
        return [value_of(v, folder) for v in value]
    if not isinstance(value, str):
        return value
    return {
        '$tensor': torch.zeros(3),
        '$counter': torch.tensor(3),
        '$trap': Trap(folder / 'sprung'),
        '$namespace': Namespace(lr=0.1),
        '$numbered': {0: torch.zeros(3)},
    }.get(value, value)


def is_absent(value: Any) -> bool:
    return isinstance(value, str) and value == '$absent'


def write(path: Path, case: dict, model: nn.Module) -> None:
    """Put the file of a case on the disk, if there is to be one."""
    if case.get('folder'):
        path.mkdir()
    elif 'hex' in case:
        path.write_bytes(bytes.fromhex(case['hex']))
    elif 'text' in case:
        path.write_text(case['text'])
    elif 'zip' in case:
        with zipfile.ZipFile(path, 'w') as archive:
            for name in case['zip']:
                archive.writestr(name, b'')
    elif case.get('whole'):
        torch.save(value_of(case['content'], path.parent), path)
    elif set(case) & {'checkpoint', 'classes', 'changes', 'only', 'bare'}:
        write_saved(path, case, model)


def write_saved(path: Path, case: dict, model: nn.Module) -> None:
    """Write what a training has saved, changed."""
    if 'classes' in case or 'changes' in case:
        model = build(case.get('classes', 3), **case.get('changes', {}))
    prefix, only = case.get('prefix', ''), case.get('only', '')
    weights = {
        prefix + name: value
        for name, value in model.state_dict().items()
        if name.startswith(only)
    }
    saved = dict(meta=dict(epoch=1, iter=4), message_hub={}, optimizer={})
    saved = weights if case.get('bare') else dict(saved, state_dict=weights)
    saved = value_of({**saved, **case.get('checkpoint', {})}, path.parent)
    torch.save(saved, path, _use_new_zipfile_serialization=not case.get('old'))
    content = bytearray(path.read_bytes())
    if 'zeroed' in case:
        middle = len(content) // 2
        content[middle : middle + case['zeroed']] = bytes(case['zeroed'])
    path.write_bytes(content[: int(len(content) * case.get('kept', 1))])


def enter(case: dict, path: str, model: nn.Module) -> None:
    """Go in by the door of a case."""
    door = case['door']
    if door in ('load', 'address'):
        check_checkpoint(path, model, fine_tuning=True)
    elif door == 'resume':
        check_resumable(path)
    elif door == 'part':
        check_start_in_part(path, model)
    elif door == 'mmengine':
        load_checkpoint(model, path)
    elif door == 'start':
        init_cfg = dict(type='Pretrained', checkpoint=path)
        backbone = dict(type='ResNet', depth=18, init_cfg=init_cfg)
        check_pretrained(Config(dict(model=dict(backbone=backbone))), model)
    else:
        read_weights(path)


@pytest.mark.parametrize('case', CASES, ids=lambda case: case['id'])
def test_case(
    case: dict,
    model: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    for name in ('http_proxy', 'https_proxy'):
        monkeypatch.setenv(name, 'http://127.0.0.1:1')  # no network
    urllib.request.install_opener(None)  # reads them anew
    path = tmp_path / 'checkpoint.pth'
    write(path, case['input'], model)
    place = case['input'].get('address', str(path))
    if case['outcome'] == 'works':
        enter(case['input'], place, model)
        return
    with pytest.raises(UserError) as caught:
        enter(case['input'], place, model)
    sentence = str(caught.value)
    assert '\n' not in sentence
    for word in case['words']:
        assert word in sentence
    if case['input']['door'] != 'mmengine':
        assert place in sentence
    assert not (tmp_path / 'sprung').exists()
