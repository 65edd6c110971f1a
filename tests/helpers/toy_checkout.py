"""A folder laid out as pages of the documentation take it for granted."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from torch import Tensor, nn

import tests.helpers.unformatted_configs  # noqa: F401
from project.datasets.shapes import ShapesSpec, make_shapes
from tests.helpers.checkpoints import read_keys
from tests.helpers.configs import ROOT, read_config
from tests.helpers.data_formats import as_voc, as_yolo
from tests.helpers.toy import build_model
from tests.helpers.trained import write_trained
from tests.helpers.training import TOY_CONFIG

LINKED = ('tools', 'project', 'tests')
# Copied, they take the first `python` of PATH.
SCRIPTS = ('dist_train.sh', 'dist_test.sh', 'dist_detect.sh')
SPEC = ShapesSpec(train=4, val=2, size=64)
MINE = ('cat', 'dog')
# Whose weights SRC.pth holds, by the page.
OFFICIAL = {
    'configs/anchor_detr/README.md': 'anchor_detr/anchor_detr_r50_50ep',
    'configs/deta/README.md': 'deta/deta',
    'configs/dn_detr/README.md': 'dn_detr/dn_detr_r50',
    'configs/rank_detr/README.md': 'rank_detr/r50_12ep',
    'docs/finetune.md': 'rank_detr/r50_12ep',
}
H_DETR = 'h_detr/authors_r50_hybrid_tricks'


def make_checkout(
    root: Path, page: str = '', text: str = '', with_data: bool = True
) -> None:
    """Lay out a folder, with what a block of a page reads.

    Args:
        root: The folder.
        page: Path of the page.
        text: The block.
        with_data: Whether to make more than the configs.
    """
    for name in LINKED:
        (root / name).symlink_to(ROOT / name)
    for name in SCRIPTS:
        shutil.copy(ROOT / name, root)
    (root / 'configs').mkdir()
    for folder in (ROOT / 'configs').iterdir():
        (root / 'configs' / folder.name).symlink_to(folder)
    if not with_data:
        return
    shapes = root / 'toy'
    make_shapes(shapes, SPEC)
    is_yolo = 'yolo' in text or 'images/train' in text
    write_data(root / 'data', shapes, is_yolo)
    (root / 'my_config.py').write_text(
        "_base_ = 'configs/custom/h-detr_r50_8xb2-12e_custom.py'\n"
        f"data_root = 'data/mine/'\nclasses = {MINE}\n"
    )
    (root / 'toy_config.py').write_text(
        f"_base_ = '{TOY_CONFIG}'\ndata_root = 'toy/'\n"
    )
    shutil.copy(next((shapes / 'val').iterdir()), root / 'photo.jpg')
    (root / 'photos').mkdir()
    shutil.copy(root / 'photo.jpg', root / 'photos/photo.jpg')
    (root / 'broken.jpg').write_text('broken')
    write_trained(root / 'checkpoint.pth', shapes)
    (root / 'work_dirs').mkdir()
    trained = root / 'work_dirs/mine/epoch_12.pth'
    if 'mine/epoch_12.pth' in text:  # a training would refuse such a folder
        trained.parent.mkdir()
        shutil.copy(root / 'checkpoint.pth', trained)
    write_weights(root, page, text)


def write_weights(root: Path, page: str, text: str) -> None:
    """Write the large files that a block reads, if it does."""
    is_finetuning = 'finetune.py data' in text
    page = 'docs/finetune.md' if is_finetuning else page
    makers: dict[str, Callable[[], dict]] = {
        'SRC.pth': lambda: dict(
            model=official_weights(OFFICIAL.get(page, H_DETR))
        ),
        'SOCO.pth': lambda: dict(
            model={
                f'module.encoder.{name}': value
                for name, value in resnet(18).state_dict().items()
            }
        ),
        **dict.fromkeys(
            ('work_dirs/coco/epoch_12.pth', 'h-detr.pth'),
            lambda: dict(state_dict=published_model().state_dict()),
        ),
        'backbone_pth/backbone.pth': lambda: dict(
            state_dict=resnet(50 if 'load_from' in text else 18).state_dict()
        ),
    }
    words = {
        'SRC.pth': ('SRC', 'FILE', 'O365'),
        'h-detr.pth': ('DetInferencer',),
        'backbone_pth/backbone.pth': (
            'dist_train.sh',
            'project train',
            '_base_',
        ),
    }
    for name, make in makers.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if any(word in text for word in words.get(name, (name,))):
            torch.save(make(), root / name)


def write_data(root: Path, shapes: Path, is_yolo: bool) -> None:
    """Write COCO in its own layout, and one of cats and dogs."""
    mine = root / 'mine'
    shutil.copytree(shapes, root / 'of_mine')
    relabel(root / 'of_mine', MINE)
    as_voc(root / 'of_mine', root / 'VOC2007')
    lists = root / 'VOC2007/ImageSets/Main'
    shutil.copy(lists / 'train.txt', lists / 'trainval.txt')
    shutil.copy(lists / 'val.txt', lists / 'test.txt')
    for path in (root / 'VOC2007/JPEGImages').iterdir():
        path.rename(path.with_suffix('.jpg'))
    if is_yolo:
        as_yolo(root / 'of_mine', mine)
    else:
        (root / 'of_mine').rename(mine)
    shutil.copytree(shapes, root / 'coco')
    relabel(root / 'coco', CocoDataset.METAINFO['classes'])
    for split in ('train', 'val'):
        (root / 'coco' / split).rename(root / 'coco' / f'{split}2017')
        annotations = root / 'coco/annotations'
        (annotations / f'{split}.json').rename(
            annotations / f'instances_{split}2017.json'
        )


def relabel(root: Path, names: tuple[str, ...]) -> None:
    """Give a dataset other classes."""
    for path in (root / 'annotations').iterdir():
        content = json.loads(path.read_text())
        content['categories'] = [
            dict(id=number, name=name) for number, name in enumerate(names, 1)
        ]
        for annotation in content['annotations']:
            annotation['category_id'] %= len(names)
            annotation['category_id'] += 1
        path.write_text(json.dumps(content))


def official_weights(listing: str) -> dict[str, Tensor]:
    """Small random weights under the names of an official checkpoint."""
    keys = read_keys(listing)
    weights: dict[str, Tensor] = {}
    for name, shape in keys['state_dict'].items():
        first = keys.get('aliases', {}).get(name, name)
        if first not in weights:
            is_scale = len(shape) == 1 and not name.endswith('bias')
            fill = torch.ones if is_scale else torch.zeros
            weights[first] = (
                torch.randn(shape) * 0.01 if len(shape) > 1 else fill(shape)
            )
        weights[name] = weights[first]
    return weights


def published_model() -> nn.Module:
    """The H-DETR of the pages."""
    config = read_config('h_detr/h-detr_r50_8xb2-12e_coco.py')
    model = copy.deepcopy(config.model)
    model.backbone.init_cfg = None
    return build_model(model)


def resnet(depth: int) -> nn.Module:
    """A backbone with random weights."""
    torch.manual_seed(0)
    return MODELS.build(dict(type='ResNet', depth=depth, _scope_='mmdet'))
