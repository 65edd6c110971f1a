"""tools/test.py, without a process of its own."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS

from tests.helpers.training import TOY_CONFIG, load_tool, toy_config


@pytest.fixture(scope='module')
def checkpoint(
    toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Weights of the toy model."""
    work_dir = tmp_path_factory.mktemp('weights')
    runner = RUNNERS.build(toy_config(toy_data, work_dir))
    path = work_dir / 'weights.pth'
    torch.save(dict(state_dict=runner.model.state_dict()), path)
    return path


@pytest.fixture
def run(
    toy_data: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Runs the tool and returns the config it wrote."""

    def run(*options: str) -> Config:
        command = ['test.py', str(TOY_CONFIG), str(checkpoint), *options]
        command += ['--work-dir', str(tmp_path), '--cfg-options']
        command += [
            f'data_root={toy_data}',
            f'experiment_name={tmp_path.name}',
            f'visualizer.name={tmp_path.name}',
        ]
        monkeypatch.setattr('sys.argv', command)
        monkeypatch.setenv('LOCAL_RANK', '0')
        load_tool('test').main()
        return Config.fromfile(tmp_path / TOY_CONFIG.name)

    return run


def metrics(work_dir: Path) -> dict[str, float]:
    (path,) = work_dir.glob('2*/*.json')
    return json.loads(path.read_text())


def test_metrics_and_detections_are_written(run: Any, tmp_path: Path) -> None:
    detections = tmp_path / 'detections.pkl'
    run('--out', str(detections))
    assert 'coco/bbox_mAP' in metrics(tmp_path)
    images = pickle.loads(detections.read_bytes())
    assert [image['img_id'] for image in images] == [1, 2, 3, 4, 5]
    assert all(len(i['pred_instances']['scores']) == 20 for i in images)


def test_a_report_is_written(run: Any, tmp_path: Path) -> None:
    pytest.importorskip('hotcoco')
    page = tmp_path / 'report.html'
    run('--report', str(page))
    mean = metrics(tmp_path)['coco/bbox_mAP']
    row = f'<tr><td>AP</td><td>{mean:.3f}</td></tr>'
    assert row in page.read_text(encoding='utf-8')


def test_images_are_drawn(run: Any, tmp_path: Path) -> None:
    run('--show-dir', 'drawn')
    names = sorted(path.name for path in tmp_path.glob('2*/drawn/*'))
    assert len(names) == 5


def test_augmentation_mirrors_each_image(run: Any, tmp_path: Path) -> None:
    cfg = run('--tta')
    assert cfg.model.type == 'DetTTAModel'
    augmentation = cfg.test_dataloader.dataset.pipeline[-1]
    assert augmentation.type == 'TestTimeAug'
    assert 'flip_direction' in augmentation.transforms[1][0].meta_keys
    assert 'coco/bbox_mAP' in metrics(tmp_path)
