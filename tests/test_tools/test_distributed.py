"""Two processes compute what one computes."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.registry import RUNNERS

import project  # noqa: F401  registers the runner
from tests.helpers.hooks import read_losses
from tests.helpers.training import WATCHED_CONFIG, run_tool, toy_config

# Adam makes a whole step of a gradient that is nothing but rounding; with this
# it does not, and what is left to compare are the gradients of both.
EPS = 1e-4


@pytest.fixture(scope='module')
def trained(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training in one process: 3 epochs, 2 batches of 4."""
    work_dir = tmp_path_factory.mktemp('one_process')
    cfg = toy_config(
        toy_data,
        work_dir,
        WATCHED_CONFIG,
        optim_wrapper__optimizer__eps=EPS,
    )
    RUNNERS.build(cfg).train()
    return work_dir


def test_training(toy_data: Path, trained: Path, tmp_path: Path) -> None:
    result = run_tool(
        'dist_train.sh',
        WATCHED_CONFIG,
        '2',
        tmp_path,
        '--cfg-options',
        f'data_root={toy_data}',
        'train_dataloader.batch_size=2',
        f'optim_wrapper.optimizer.eps={EPS}',
    )
    assert result.returncode == 0, result.stderr
    expected = read_losses(trained, rank=0)
    assert len(expected) == 6
    pairs = zip(*(read_losses(tmp_path, rank) for rank in (0, 1)), strict=True)
    for one, (first, second) in zip(expected, pairs, strict=True):
        mean = {name: (first[name] + second[name]) / 2 for name in one}
        assert mean == pytest.approx(one, rel=1e-5)
        # Each process has images of its own.
        assert first['loss'] != pytest.approx(second['loss'], rel=1e-3)
    expected_weights, weights = (
        torch.load(folder / 'epoch_3.pth')['state_dict']
        for folder in (trained, tmp_path)
    )
    torch.testing.assert_close(weights, expected_weights, rtol=0, atol=1e-5)


@pytest.fixture(scope='module')
def detectable(
    toy_data: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A dataset of which the trained model detects some.

    Its objects are detections of that model, each a little moved.
    """
    root = tmp_path_factory.mktemp('detectable') / 'data'
    shutil.copytree(toy_data, root)
    detections = root / 'detections.pkl'
    cfg = toy_config(
        toy_data,
        trained,
        load_from=str(trained / 'epoch_3.pth'),
        test_evaluator=dict(
            type='DumpDetResults',
            out_file_path=str(detections),
            _delete_=True,
        ),
    )
    RUNNERS.build(cfg).test()
    path = root / 'annotations' / 'val.json'
    content = json.loads(path.read_text())
    content['annotations'] = [
        dict(
            id=5 * image['img_id'] + i,
            image_id=image['img_id'],
            category_id=label + 1,
            bbox=[x1 + i, y1, x2 - x1, y2 - y1],
            area=(x2 - x1) * (y2 - y1),
            iscrowd=0,
        )
        for image in pickle.loads(detections.read_bytes())
        for i, ((x1, y1, x2, y2), label) in enumerate(
            zip(
                image['pred_instances']['bboxes'][:3].tolist(),
                image['pred_instances']['labels'].tolist(),
                strict=False,
            )
        )
    ]
    path.write_text(json.dumps(content))
    return root


def test_testing(detectable: Path, trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / 'epoch_3.pth'
    cfg = toy_config(detectable, tmp_path, load_from=str(checkpoint))
    expected = RUNNERS.build(cfg).test()
    assert 0.1 < expected['coco/bbox_mAP'] < 0.9

    work_dir = tmp_path / 'two'
    result = run_tool(
        'dist_test.sh',
        WATCHED_CONFIG,
        checkpoint,
        '2',
        '--work-dir',
        work_dir,
        '--out',
        tmp_path / 'detections.pkl',
        '--cfg-options',
        f'data_root={detectable}',
    )
    assert result.returncode == 0, result.stderr
    (metrics_file,) = work_dir.glob('*/*.json')
    metrics = json.loads(metrics_file.read_text())
    for name, value in expected.items():
        assert metrics[name] == value
    # The sampler gave one image to both processes; it counts once.
    images = pickle.loads((tmp_path / 'detections.pkl').read_bytes())
    assert [image['img_id'] for image in images] == [1, 2, 3, 4, 5]
