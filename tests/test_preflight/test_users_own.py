"""Classes of the user's own, and rare ones of mmdet's, are not refused."""

import json
from pathlib import Path
from typing import Any

import cv2
import mmdet
import numpy as np
import pytest
from mmdet.datasets import CocoDataset, XMLDataset
from mmdet.models.detectors import DeformableDETR
from mmengine.config import Config

from project.models.detectors import HDETR
from project.preflight import check_data
from project.preflight.image_depth import check_image_depth
from project.preflight.misspellings import check_parts
from project.preflight.model_dimensions import check_seams
from project.preflight.settings import check_settings
from project.utils.errors import UserError
from tests.helpers.configs import CONFIGS

MMDET_CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'


@pytest.fixture(autouse=True)
def scope(mmdet_scope: None) -> None:
    """As a runner looks names up."""


class MaskDETR(DeformableDETR):
    """Has masks as well."""


class ProjectingDETR(HDETR):
    """Brings what the neck gives to the transformer's width itself."""

    def pre_transformer(self, *args: Any, **kwargs: Any) -> tuple:
        return super().pre_transformer(*args, **kwargs)


class OtherKeys(CocoDataset):
    """Has keys that only its own transforms know."""

    def load_data_list(self) -> list[dict]:
        return [dict(path=d['img_path']) for d in super().load_data_list()]


class OtherLayout(XMLDataset):
    """Lists whole paths of images."""

    def load_data_list(self) -> list[dict]:
        return []


def read(name: str) -> Config:
    return Config.fromfile(MMDET_CONFIGS / name)


def test_transforms_of_albumentations_pass() -> None:
    check_parts(read('albu_example/mask-rcnn_r50_fpn_albu-1x_coco.py'))


def test_evaluators_of_several_datasets_are_looked_into() -> None:
    cfg = read(
        'grounding_dino/odinw/grounding_dino_swin-t_pretrain_odinw13.py'
    )
    check_parts(cfg)
    cfg.val_evaluator.metrics[0].type = 'CocoMetrik'
    with pytest.raises(UserError, match=r'val_evaluator.metrics\[0\].type'):
        check_parts(cfg)
    cfg.val_evaluator = dict(metrics=dict(type='CocoMetric'))
    check_parts(cfg)


def test_one_of_several_variables_is_not_misspelt() -> None:
    cfg = read('dsdl/voc0712.py')  # data_root_07 and data_root_12
    assert check_settings(cfg) == []
    cfg.data_rooot = 'data'
    (sentence,) = check_settings(cfg)
    assert 'did you mean data_root' in sentence


def test_a_start_with_an_override_passes() -> None:
    start = dict(type='Normal', layer='Conv2d', std=0.01)
    start['override'] = dict(type='Normal', name='conv_cls', bias_prob=0.01)
    check_parts(Config(dict(model=dict(type='FPN', init_cfg=start))))


def test_masks_of_detectors_of_the_users_own_are_evaluated() -> None:
    def config(kind: type) -> Config:
        metric = dict(type='CocoMetric', metric=['bbox', 'segm'])
        return Config(dict(model=dict(type=kind), val_evaluator=metric))

    check_settings(config(MaskDETR))
    with pytest.raises(UserError, match='segm'):
        check_settings(config(DeformableDETR))


def test_features_that_a_detector_projects_itself() -> None:
    cfg = Config.fromfile(CONFIGS / 'h_detr/h-detr_r50_8xb2-12e_coco.py')
    cfg.model.neck.out_channels = 128
    with pytest.raises(UserError, match='128'):
        check_seams(cfg)
    cfg.model.type = ProjectingDETR
    check_seams(cfg)


@pytest.mark.parametrize('channels', [[512, 1024, 2048], [8, 8, 8]])
def test_a_neck_of_several_parts(channels: list[int]) -> None:
    """What it takes cannot be read from the config."""
    cfg = Config.fromfile(CONFIGS / 'h_detr/h-detr_r50_8xb2-12e_coco.py')
    cfg.model.neck = [dict(cfg.model.neck, in_channels=channels)]
    check_seams(cfg)


def test_a_dataset_with_keys_of_its_own(tmp_path: Path) -> None:
    content = dict(
        images=[dict(id=1, file_name='1.png', width=8, height=8)],
        annotations=[
            dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 4, 4], area=16)
        ],
        categories=[dict(id=1, name='cat')],
    )
    (tmp_path / 'a.json').write_text(json.dumps(content))
    cfg = config(tmp_path, type=OtherKeys, ann_file='a.json')
    cfg.train_dataloader.dataset.data_prefix = dict(img='')
    check_data(cfg, ['train'])


def test_a_dataset_of_several_files(tmp_path: Path) -> None:
    """Only classes of the user's own take those."""

    class Several:
        pass

    cfg = config(tmp_path, type=Several, ann_file=['a.txt', 'b.txt'])
    cfg.train_dataloader.dataset.data_prefix = 'images'
    check_data(cfg, ['train'])


def config(root: Path, **dataset: Any) -> Config:
    dataset = dict(
        data_root=str(root), metainfo=dict(classes=('cat',)), **dataset
    )
    loader = dict(dataset=dataset)
    return Config(dict(model=dict(type='HDETR'), train_dataloader=loader))


def voc(root: Path, **dataset: Any) -> Config:
    """An image with a cat, a dog is listed among the classes."""
    for name in ('Annotations', 'JPEGImages'):
        (root / name).mkdir()
    cv2.imwrite(str(root / 'JPEGImages/1.jpg'), np.zeros((8, 8, 3), np.uint8))
    box = ''.join(
        f'<{key}>{value}</{key}>'
        for key, value in dict(xmin=1, ymin=1, xmax=5, ymax=5).items()
    )
    objects = ''.join(
        f'<object><name>{name}</name><bndbox>{box}</bndbox></object>'
        for name in ('dog', 'cat')
    )
    (root / 'Annotations/1.xml').write_text(
        f'<annotation>{objects}</annotation>'
    )
    (root / 'list.txt').write_text('1\n')
    cfg = config(
        root,
        **dict(type='XMLDataset', ann_file='list.txt') | dataset,
        data_prefix=dict(sub_data_root=''),
    )
    cfg.train_dataloader.dataset.metainfo.classes = ('dog', 'car')
    return cfg


def test_a_class_without_objects_beside_another_that_is_unused(
    tmp_path: Path,
) -> None:
    """'cat' is no misspelt 'car'."""
    cfg = voc(tmp_path)
    check_data(cfg, ['train'])
    cfg.train_dataloader.dataset.metainfo.classes = ('cat', 'dogg')
    with pytest.raises(UserError, match="did you mean 'dog' for 'dogg'"):
        check_data(cfg, ['train'])


def test_a_layout_of_xml_files_of_the_users_own(tmp_path: Path) -> None:
    cfg = voc(tmp_path, type=OtherLayout)
    (tmp_path / 'JPEGImages/1.jpg').unlink()
    check_data(cfg, ['train'])


def pipeline(*between: Any) -> Config:
    """A resize with Pillow after an image of floats and what comes then."""
    resize = dict(type='Resize', scale=(8, 8), backend='pillow')
    load = dict(type='LoadImageFromFile', to_float32=True)
    dataset = dict(type='CocoDataset', pipeline=[load, *between, resize])
    return Config(dict(train_dataloader=dict(dataset=dataset)))


class To8Bits:
    """Gives 8 bits again."""


def test_floats_that_become_8_bits_again() -> None:
    with pytest.raises(UserError, match='LoadImageFromFile'):
        check_image_depth(pipeline(), 'train')
    check_image_depth(pipeline(dict(type=To8Bits)), 'train')


def test_floats_of_an_alternative() -> None:
    """They never meet the resize of the other one."""
    cfg = pipeline()
    transforms = cfg.train_dataloader.dataset.pipeline
    resize = transforms.pop()
    transforms[0].to_float32 = False
    choices = [[dict(type='PhotoMetricDistortion')], [resize]]
    transforms.append(dict(type='RandomChoice', transforms=choices))
    check_image_depth(cfg, 'train')
    transforms.append(resize)
    with pytest.raises(UserError, match='PhotoMetricDistortion'):
        check_image_depth(cfg, 'train')


@pytest.mark.parametrize('step', [9, 0.75 * 12])
def test_milestones_may_be_computed(step: float) -> None:
    """mmengine compares them as numbers."""

    def config(step: float) -> Config:
        scheduler = dict(type='MultiStepLR', milestones=[step])
        return Config(
            dict(model=dict(type='HDETR'), param_scheduler=[scheduler])
        )

    check_settings(config(step))
    with pytest.raises(UserError, match='whole number'):
        check_settings(config(step + 0.5))


def test_a_root_may_be_a_path(tmp_path: Path) -> None:
    class Several:
        pass

    cfg = config(tmp_path, type=Several)
    cfg.train_dataloader.dataset.data_root = tmp_path
    check_data(cfg, ['train'])
