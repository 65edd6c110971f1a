"""What is published: weights, classes, preprocessing, and nothing else."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import RUNNERS

from project.apis import load_detector
from project.apis.publishing import publish
from project.datasets.shapes_scene import SHAPE_CLASSES
from project.utils.errors import UserError
from tests.helpers.training import load_tool, run_tool, toy_config

READ = """
import sys, torch
file = torch.load(sys.argv[1], weights_only=True)
print(file['meta']['dataset_meta']['classes'][0])
print(file['meta']['preprocessing']['scale'])
print(file['meta']['preprocessing']['channel_order'])
print(sorted(file))
print([name for name in sys.modules if name in ('project', 'mmengine')])
"""


@pytest.fixture(scope='module')
def trained(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with an average of the weights."""
    work_dir = tmp_path_factory.mktemp('trained')
    cfg = toy_config(
        toy_data,
        work_dir,
        train_cfg__max_epochs=1,
        optim_wrapper__optimizer__lr=1e-2,
        custom_hooks=[dict(type='EMAHook', momentum=0.5)],
    )
    RUNNERS.build(cfg).train()
    return work_dir / 'epoch_1.pth'


@pytest.fixture(scope='module')
def published(trained: Path) -> Path:
    out = trained.with_name('published') / 'mine.pth'
    load_tool('publish').main([str(trained), '--out', str(out)])
    return out


def test_python_and_torch_read_it(published: Path) -> None:
    result = subprocess.run(
        [sys.executable, '-I', '-c', READ, str(published)],
        capture_output=True,
        text=True,
    )
    assert result.stdout.splitlines() == [
        SHAPE_CLASSES[0],
        '(64, 64)',
        'rgb',
        "['meta', 'state_dict']",
        '[]',
    ], result.stderr


def test_it_holds_the_averages_alone(trained: Path, published: Path) -> None:
    before = torch.load(trained)
    weights = torch.load(published)['state_dict']
    raw = before['ema_state_dict']
    differing = 0
    for name, value in before['state_dict'].items():
        assert torch.equal(weights[name], value)
        other = raw.get(f'module.{name}')
        differing += other is not None and not torch.equal(other, value)
    assert differing > 50
    assert published.stat().st_size < trained.stat().st_size / 2


def test_it_detects_without_any_other_file(
    trained: Path, published: Path, toy_data: Path, tmp_path: Path
) -> None:
    moved = tmp_path / 'moved.pth'
    moved.write_bytes(published.read_bytes())
    image = str(sorted((toy_data / 'val').iterdir())[0])
    one, other = (
        load_detector(path, device='cpu')(image, score_thr=0)
        for path in (trained, moved)
    )
    np.testing.assert_array_equal(one.boxes, other.boxes)
    assert load_detector(moved, device='cpu').classes == SHAPE_CLASSES


def test_nothing_is_overwritten(trained: Path, published: Path) -> None:
    size = published.stat().st_size
    with pytest.raises(UserError, match='exists already'):
        publish(trained, published)
    assert published.stat().st_size == size


def test_another_model_is_refused(
    trained: Path, toy_data: Path, tmp_path: Path
) -> None:
    cfg = toy_config(toy_data, tmp_path, model__num_queries=9)
    cfg.dump(tmp_path / 'other.py')
    out = tmp_path / 'out.pth'
    with pytest.raises(UserError, match='no checkpoint of this HDETR'):
        publish(trained, out, tmp_path / 'other.py')
    assert not out.exists()


@pytest.mark.slow
def test_the_tools_take_it(
    published: Path, toy_data: Path, tmp_path: Path
) -> None:
    config = tmp_path / 'mine.py'
    toy_config(toy_data, tmp_path / 'work').dump(config)
    words = ['dist_test.sh', config, published, '1', '--work-dir', tmp_path]
    tested = run_tool(*words)
    assert tested.returncode == 0, tested.stderr[-2000:]
    words = [published, toy_data / 'val', '--out', tmp_path / 'found']
    found = run_tool('tools/detect.py', *words)
    assert found.returncode == 0, found.stderr[-2000:]
