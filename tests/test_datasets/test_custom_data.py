"""A user's own data goes under every method as docs/data.md says."""

import re
from pathlib import Path

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict

from project.datasets.shapes import ShapesSpec, make_shapes
from project.datasets.shapes_scene import SHAPE_CLASSES
from project.preflight.config_tree import SPLITS, leaf_datasets, model_configs
from tests.helpers.configs import CONFIGS, ROOT, read_config

pytestmark = pytest.mark.usefixtures('mmdet_scope')

# One of every method and augmentation.
NAMES = (
    'align_detr/align-detr_r50_8xb2-12e_coco.py',
    'anchor_detr/anchor-detr_r50_8xb1-50e_coco.py',
    'deta/deta_r50_5scale_8xb2-12e_coco.py',
    'dn_detr/dn-deformable-detr_r50_8xb2-12e_coco.py',
    'dn_detr/dn-detr_r50_8xb2-50e_coco-detrex.py',
    'h_detr/h-detr_r50_8xb2-12e_coco.py',
    'hpr/hpr-align-detr_r50_8xb2-12e_coco.py',
    'hpr/hpr-ddq_r50_8xb2-88k_coco.py',
    'hpr/hpr-dino_r50_8xb2-12e_coco.py',
    'hpr/hpr-h-detr_r50_8xb2-12e_coco.py',
    'rank_detr/rank-detr_r50_8xb2-12e_coco.py',
)
LSJ = 'hpr/hpr-ddq_r50_lsj_16xb1-88k_coco.py'
DOCUMENTED = (ROOT / 'docs' / 'data.md').read_text()


@pytest.fixture(scope='module')
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'mine'
    make_shapes(root, ShapesSpec(train=2, val=1, seed=0))
    return root


def users_config(name: str, root: Path, folder: Path) -> Config:
    """The config of docs/data.md over one of ours, with other values."""
    blocks = re.findall(r'```python\n(.+?)```', DOCUMENTED, re.DOTALL)
    (text,) = (block for block in blocks if 'datasets/custom.py' in block)
    for pattern, value in (
        (r"'configs/(?!_base_).+'", repr(str(CONFIGS / name))),
        (r"'configs/_base_", f"'{CONFIGS}/_base_"),
        (r"'data/mine/'", repr(f'{root}/')),
        (r"\('cat', 'dog'\)", repr(SHAPE_CLASSES)),
    ):
        text, count = re.subn(pattern, lambda _, value=value: value, text)
        assert count == 1, pattern
    if name == LSJ:
        (line,) = re.findall(r'`(train_dataloader = .+)`', DOCUMENTED)
        text = re.sub(r'(?m)^train_dataloader = .+$', line, text)
    path = folder / 'mine.py'
    path.write_text(text)
    return Config.fromfile(path)


def test_every_method_is_tried() -> None:
    ours = {path.parent.name for path in CONFIGS.glob('*/metafile.yml')}
    assert {name.partition('/')[0] for name in NAMES} == ours


@pytest.mark.parametrize('name', [*NAMES, LSJ])
def test_custom_data_under_any_config(
    name: str, data_root: Path, tmp_path: Path
) -> None:
    config = users_config(name, data_root, tmp_path)
    published = read_config(name)

    for split in SPLITS:
        file = 'train' if split == 'train' else 'val'
        ((place, dataset),) = leaf_datasets(config, split)
        ((expected_place, expected),) = leaf_datasets(published, split)
        assert place == expected_place
        assert dataset.metainfo.classes == SHAPE_CLASSES
        assert dataset.data_root == f'{data_root}/'
        assert dataset.ann_file == f'annotations/{file}.json'
        assert dataset.data_prefix == dict(img=f'{file}/')
        assert dataset.type == expected.type
        assert dataset.pipeline == expected.pipeline
    for evaluator in (config.val_evaluator, config.test_evaluator):
        assert evaluator.ann_file == f'{data_root}/annotations/val.json'
    numbers = [
        part.num_classes
        for part in model_configs(config)
        if 'num_classes' in part
    ]
    assert numbers
    assert set(numbers) == {len(SHAPE_CLASSES)}

    loader = config.train_dataloader
    assert loader.sampler == dict(type='DefaultSampler', shuffle=True)
    if name == LSJ:  # shapes have no masks
        return
    assert not loader.drop_last
    samples = DATASETS.build(loader.dataset)[0]['data_samples']
    for sample in samples.values() if is_re_aug(loader) else [samples]:
        assert Path(sample.img_path).parent == data_root / 'train'


def is_re_aug(loader: ConfigDict) -> bool:
    return loader.dataset.pipeline[-1].type == 'MultiBranch'
