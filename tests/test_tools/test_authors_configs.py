"""dist_train.sh and dist_test.sh take the configs of HPR's authors."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from project.datasets.shapes_scene import SHAPE_CLASSES
from tests.helpers.authors_tree import write_tree
from tests.helpers.training import assert_one_sentence, run_tool

SIZE = '(96,96)'
# Of the two ways of the augmentation.
RESIZE = 'train_dataloader.dataset.pipeline.3.transforms'
LSJ = 'train_dataloader.dataset.dataset.pipeline'
SMALL = {
    'classes': ','.join(SHAPE_CLASSES),
    'model.num_queries': 20,
    'model.encoder.num_layers': 1,
    'model.decoder.num_layers': 2,
    'model.test_cfg.max_per_img': 20,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
    'val_dataloader.dataset.pipeline.1.scale': SIZE,
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
    'test_dataloader.dataset.pipeline.1.scale': SIZE,
    'train_cfg.val_interval': 1,
    'default_hooks.checkpoint.interval': 1,
}
RESNET = {
    'model.backbone.depth': 18,
    'model.neck.in_channels': '[128,256,512]',
    f'{RESIZE}.0.0.scales': f'[{SIZE}]',
    f'{RESIZE}.1.0.scales': f'[{SIZE}]',
    f'{RESIZE}.1.1.crop_size': '(48,64)',
    f'{RESIZE}.1.2.scales': f'[{SIZE}]',
    'train_dataloader.dataset.indices': 2,
}
BASELINE = 'deformable_detr-900q_4scale_1x_r50'
OPTIONS = {
    BASELINE: {
        **RESNET,
        'train_cfg.max_epochs': 1,
    },
    'ddq_300q_4scale_1x_r50': {
        **RESNET,
        'model.encoder.num_cp': 1,
        'train_cfg.max_iters': 1,
    },
    'align_detr-lsj_900q_4scale_1x_swinL': {
        'model.encoder.num_cp': 1,
        # Of seven stages three are left.
        'model.bbox_head.all_layers_num_gt_repeat': '[2,1,2]',
        'model.backbone.init_cfg': None,
        'model.backbone.depths': '[1,1,1,1]',
        'model.backbone.embed_dims': 24,
        'model.backbone.num_heads': '[1,2,4,8]',
        'model.neck.in_channels': '[24,48,96,192]',
        f'{LSJ}.2.scale': SIZE,
        f'{LSJ}.3.crop_size': SIZE,
        f'{LSJ}.6.size': SIZE,
        'val_dataloader.dataset.pipeline.2.size': SIZE,
        'test_dataloader.dataset.pipeline.2.size': SIZE,
        'train_cfg.max_iters': 1,
    },
}


@pytest.fixture(scope='module')
def coco(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy data under the names that COCO has."""
    root = tmp_path_factory.mktemp('coco')
    (root / 'annotations').mkdir()
    for split in ('train', 'val'):
        (root / f'{split}2017').symlink_to(toy_data / split)
        (root / f'annotations/instances_{split}2017.json').symlink_to(
            toy_data / 'annotations' / f'{split}.json'
        )
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a user has the authors' configs, outside of this repository."""
    return write_tree(tmp_path / 'configs').parent


def save_backbone(path: Path) -> None:
    from mmdet.models import ResNet

    path.parent.mkdir()
    torch.save(ResNet(18).state_dict(), path)


@pytest.fixture
def run(
    folder: Path, warm_env: dict[str, str]
) -> Callable[..., subprocess.CompletedProcess]:
    """Runs a script in ``folder`` with the Python of the tests."""

    def run(
        script: str, *arguments: str, **options: object
    ) -> subprocess.CompletedProcess:
        settings = [f'{key}={value}' for key, value in options.items()]
        words = [script, *arguments, '--cfg-options', *settings]
        return run_tool(*words, cwd=folder, env=dict(warm_env))

    return run


def slow_but(name: str) -> list:
    """All configs, of which one is run with every change."""
    return [
        pytest.param(x, marks=() if x == name else pytest.mark.slow)
        for x in OPTIONS
    ]


@pytest.mark.parametrize('name', slow_but(BASELINE))
def test_they_train_and_test(
    run: Callable[..., subprocess.CompletedProcess],
    name: str,
    coco: Path,
    folder: Path,
) -> None:
    save_backbone(folder / 'backbone_pth' / 'backbone.pth')
    config = f'configs/{name}.py'
    options = {**SMALL, **OPTIONS[name], 'data_root': str(coco)}
    result = run('dist_train.sh', config, '1', 'work', **options)
    assert result.returncode == 0, result.stderr
    is_by_epoch = 'train_cfg.max_epochs' in options
    checkpoint = 'epoch_1.pth' if is_by_epoch else 'iter_1.pth'
    told = 'taking backbone_pth/backbone.pth instead' in result.stdout
    assert told == name.startswith('ddq')

    result = run(
        'dist_test.sh',
        config,
        f'work/{checkpoint}',
        '1',
        **{**options, 'work_dir': 'tested'},
    )
    assert result.returncode == 0, result.stderr
    (path,) = (folder / 'tested').glob('*/*.json')
    assert 'coco/bbox_mAP' in json.loads(path.read_text())


def test_a_missing_backbone_is_told(
    run: Callable[..., subprocess.CompletedProcess], coco: Path
) -> None:
    options = {**SMALL, **OPTIONS[BASELINE], 'data_root': str(coco)}
    config = f'configs/{BASELINE}.py'
    result = run('dist_train.sh', config, '1', 'work', **options)
    assert_one_sentence(
        result,
        'backbone_pth/backbone.pth, from which model.backbone is to start',
        'init_cfg.checkpoint=https://download.pytorch.org/models/resnet18',
    )
