"""``data_root`` and ``classes`` reach the whole config."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from mmengine.config import Config

from project.preflight.config_tree import evaluators, leaf_datasets
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from tests.helpers.configs import CONFIGS

SPLITS = ('train', 'val', 'test')


def coco(root: str = 'data/coco/', **kwargs: Any) -> dict:
    return dict(
        type='CocoDataset', data_root=root, ann_file='a.json', **kwargs
    )


def config(dataset: dict | None = None, **kwargs: Any) -> Config:
    loader = dict(dataset=dataset or coco())
    return Config(
        dict(
            data_root='data/coco/',
            train_dataloader=loader,
            # The same object twice, as `test_dataloader = val_dataloader`
            # of a config may leave it.
            val_dataloader=loader,
            test_dataloader=loader,
            val_evaluator=dict(type='CocoMetric', ann_file='data/coco/a.json'),
            test_evaluator=[
                dict(type='CocoMetric', ann_file='data/coco/a.json'),
                dict(type='DumpDetResults', out_file_path='data/out.pkl'),
            ],
            **kwargs,
        )
    )


def strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for child in node.values():
            yield from strings(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from strings(child)


def roots(cfg: Config) -> set[str]:
    return {
        dataset.data_root
        for split in SPLITS
        for _, dataset in leaf_datasets(cfg, split)
    }


def test_a_config_in_order_is_unchanged() -> None:
    cfg = config()
    assert resolve_config(cfg).to_dict() == cfg.to_dict()


def test_data_root_moves_datasets_and_evaluators() -> None:
    cfg = config()
    before = copy.deepcopy(cfg.to_dict())
    cfg.merge_from_dict(dict(data_root='/other/place'))
    resolved = resolve_config(cfg)
    assert roots(resolved) == {'/other/place'}
    assert resolved.val_evaluator.ann_file == '/other/place/a.json'
    assert resolved.test_evaluator[0].ann_file == '/other/place/a.json'
    assert resolved.test_evaluator[1].out_file_path == 'data/out.pkl'
    cfg.data_root = 'data/coco/'
    assert cfg.to_dict() == before  # the config given is left alone


@pytest.mark.parametrize(
    'name',
    [
        'h_detr/h-detr_r50_8xb2-12e_coco.py',
        'demo/h-detr_r18_2xb2-10e_shapes.py',
    ],
)
def test_data_root_moves_every_path_of_a_shipped_config(name: str) -> None:
    cfg = Config.fromfile(CONFIGS / name)
    old_root = cfg.data_root
    cfg.merge_from_dict(dict(data_root='elsewhere'))
    resolved = resolve_config(cfg)
    for split in SPLITS:
        for key in (f'{split}_dataloader', f'{split}_evaluator'):
            found = list(strings(resolved.get(key)))
            assert not [text for text in found if text.startswith(old_root)]
    assert resolved.val_evaluator.ann_file.startswith('elsewhere/')


def test_moving_twice_is_moving_once() -> None:
    # The new root begins with the old one, and the loaders are one object.
    cfg = config()
    cfg.data_root = 'data/coco/mini'
    once = resolve_config(cfg)
    assert once.val_evaluator.ann_file == 'data/coco/mini/a.json'
    assert resolve_config(once).to_dict() == once.to_dict()


def test_data_root_reaches_wrapped_datasets() -> None:
    repeated = dict(type='RepeatDataset', times=2, dataset=coco())
    mixed = dict(type='MultiImageMixDataset', pipeline=[], dataset=coco())
    cfg = config(dict(type='ConcatDataset', datasets=[repeated, mixed]))
    cfg.data_root = 'x'
    assert roots(resolve_config(cfg)) == {'x'}
    names = [name for name, _ in leaf_datasets(cfg, 'train')]
    assert names == [
        'train_dataloader.dataset.datasets[0].dataset',
        'train_dataloader.dataset.datasets[1].dataset',
    ]


def test_a_folder_with_a_similar_name_is_not_under_the_root() -> None:
    cfg = config()
    cfg.val_evaluator.ann_file = 'data/coco2/a.json'
    cfg.data_root = 'x'
    assert resolve_config(cfg).val_evaluator.ann_file == 'data/coco2/a.json'


def test_remote_roots_keep_their_slashes() -> None:
    cfg = config(coco('s3://bucket/coco/'))
    cfg.data_root = 's3://other/coco'
    assert roots(resolve_config(cfg)) == {'s3://other/coco'}


def test_empty_paths_stay_empty() -> None:
    cfg = config(coco(data_prefix=dict(img='')))
    cfg.data_root = 'x'
    dataset = resolve_config(cfg).train_dataloader.dataset
    assert dataset.data_prefix.img == ''


def test_a_second_root_beside_data_root_stays() -> None:
    two = dict(type='ConcatDataset', datasets=[coco(), coco('data/more')])
    assert roots(resolve_config(config(two))) == {'data/coco/', 'data/more'}


def test_it_is_not_guessed_which_of_two_roots_moves() -> None:
    two = dict(type='ConcatDataset', datasets=[coco(), coco('data/more')])
    cfg = config(two)
    cfg.data_root = 'x'
    with pytest.raises(UserError, match="'data/coco', 'data/more'"):
        resolve_config(cfg)


def test_classes_reach_datasets_and_model() -> None:
    repeated = dict(
        type='RepeatDataset', times=2, dataset=coco(metainfo=dict(palette=[1]))
    )
    cfg = config(
        repeated,
        classes=['cat', 'dog'],
        model=dict(
            backbone=dict(type='ResNet', num_classes=1000),
            bbox_head=dict(num_classes=80, losses=[dict(num_classes=80)]),
            denoising=dict(num_classes=80),
        ),
    )
    resolved = resolve_config(cfg)
    dataset = resolved.train_dataloader.dataset.dataset
    assert dataset.metainfo == dict(classes=('cat', 'dog'), palette=[1])
    assert resolved.classes == ('cat', 'dog')
    assert resolved.model.bbox_head.num_classes == 2
    assert resolved.model.bbox_head.losses[0].num_classes == 2
    assert resolved.model.denoising.num_classes == 2
    assert resolved.model.backbone.num_classes == 1000


def test_more_classes_than_the_palette_of_coco_can_be_drawn() -> None:
    from mmdet.visualization.palette import get_palette

    cfg = config(classes=[f'class {i}' for i in range(100)], model=dict())
    metainfo = resolve_config(cfg).train_dataloader.dataset.metainfo
    assert len(get_palette(metainfo.palette, 100)) == 100


def test_without_classes_datasets_and_model_keep_theirs() -> None:
    cfg = config(classes=None, model=dict(bbox_head=dict(num_classes=80)))
    resolved = resolve_config(cfg)
    assert 'metainfo' not in resolved.train_dataloader.dataset
    assert resolved.model.bbox_head.num_classes == 80


@pytest.mark.parametrize(
    ('given', 'expected'),
    [('cat', ('cat',)), (7, ('7',)), ([1, 2], ('1', '2'))],
)
def test_classes_as_the_command_line_leaves_them(
    given: Any, expected: tuple[str, ...]
) -> None:
    resolved = resolve_config(config(classes=given, model=dict()))
    assert resolved.classes == expected


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        ((), 'expected the names'),
        ((None,), 'expected the names'),
        (('cat', 'dog', 'cat'), "'cat' more than once"),
    ],
)
def test_classes_that_are_none(classes: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_config(config(classes=classes, model=dict()))


def test_evaluators_are_named() -> None:
    names = [name for name, _ in evaluators(config(), 'test')]
    assert names == ['test_evaluator[0]', 'test_evaluator[1]']
    assert list(evaluators(config(), 'train')) == []
