"""The config of a checkpoint: where it is found, and that it is data."""

from pathlib import Path

import pytest
import torch

from project.apis import load_detector
from project.preflight.config_files import read_config_file
from project.preflight.trained_config import trained_config
from project.utils.errors import UserError
from tests.helpers.configs import ROOT
from tests.helpers.trained import write_trained


@pytest.fixture
def bare(toy_data, tmp_path) -> Path:
    """A checkpoint without a config."""
    path = tmp_path / 'bare.pth'
    write_trained(path, toy_data, with_config=False)
    return path


def test_it_lies_in_the_work_dir(bare, toy_data, tmp_path, image):
    with pytest.raises(UserError, match=r'holds no config, .*--config'):
        load_detector(bare)
    (tmp_path / 'notes.py').write_text('import os\nmodel = dict()')
    config = write_trained(tmp_path / 'other.pth', toy_data)
    config.dump(tmp_path / 'mine.py')
    found = load_detector(bare, device='cpu')(image)
    given = load_detector(bare, tmp_path / 'mine.py', 'cpu')(image)
    assert found.scores.tolist() == given.scores.tolist()

    config.dump(tmp_path / 'other.py')
    with pytest.raises(UserError, match=r'several lie .*mine.py, .*other.py'):
        load_detector(bare)


def test_a_converted_checkpoint_names_a_shipped_one(tmp_path):
    name = 'h_detr/h-detr_r50_8xb2-12e_coco.py'
    path = tmp_path / 'converted.pth'
    configs = ['configs/../../evil.py', '/etc/evil.py', 'configs/gone.py']
    meta = dict(configs=[*configs, f'configs/{name}'])
    torch.save(dict(state_dict={}, meta=meta), path)
    assert trained_config(str(path)).model.type == 'HDETR'


@pytest.mark.parametrize(
    'name',
    [
        'deta/deta_r50_5scale_8xb2-12e_coco.py',
        'hpr/hpr-ddq_r50_8xb2-88k_coco.py',
        'hpr/hpr-dino_r50_8xb2-12e_coco.py',
        'dn_detr/dn-detr_r50-dc5_16xb1-50e_coco.py',
    ],
)
def test_a_method_is_read_from_what_its_training_saved(name, tmp_path):
    """Operators of mmcv have a type as well, which is in no registry."""
    config = read_config_file(ROOT / 'configs' / name)
    path = tmp_path / 'trained.pth'
    torch.save(dict(state_dict={}, meta=dict(cfg=config.pretty_text)), path)
    assert trained_config(str(path)).model == config.model


@pytest.mark.parametrize(
    'kind', ['os.system', 'mmdet.apis.os.system', 'mmengine.mkdir', 'evil']
)
@pytest.mark.parametrize('place', ['checkpoint', 'work dir'])
def test_nothing_runs_that_is_not_registered(
    kind, place, bare, toy_data, tmp_path
):
    config = write_trained(tmp_path / 'other.pth', toy_data)
    config.model.neck = dict(type=kind, command='touch sprung')
    if place == 'checkpoint':
        saved = torch.load(bare)
        saved['meta']['cfg'] = config.pretty_text
        torch.save(saved, bare)
    else:
        config.dump(tmp_path / 'mine.py')
    words = rf"has model.neck.type='{kind}', which is not registered"
    with pytest.raises(UserError, match=words):
        load_detector(bare)


def test_a_program_in_a_checkpoint_is_not_run(bare, tmp_path):
    sprung = tmp_path / 'sprung'
    program = f'import os\nos.mkdir({str(sprung)!r})\nmodel = dict()'
    (tmp_path / 'mine.py').write_text(program)
    saved = torch.load(bare)
    saved['meta']['cfg'] = program
    torch.save(saved, bare)
    with pytest.raises(UserError, match='holds no config'):
        load_detector(bare)
    assert not sprung.exists()
