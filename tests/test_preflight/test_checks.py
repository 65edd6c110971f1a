"""Mistakes in config and data are told in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

import project  # noqa: F401  registers the datasets
from project.datasets.shapes_scene import SHAPE_CLASSES
from project.preflight import annotations, check_data, check_model
from project.preflight.data import look_at_data
from project.preflight.image_files import look_at_images
from project.preflight.model import check_trainable
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from tests.helpers.configs import CONFIGS

CATEGORIES = [dict(id=3, name='cat'), dict(id=1, name='dog')]
SPLITS = ('train', 'val', 'test')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of one image."""
    content = dict(
        images=[dict(id=1, file_name='1.png', width=8, height=8)],
        annotations=[
            dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 4, 4], area=16)
        ],
        categories=CATEGORIES,
    )
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / '1.png'), np.zeros((8, 8, 3)))
    (tmp_path / 'a.json').write_text(json.dumps(content))
    return tmp_path


def config(root: Path | str, **options: Any) -> Config:
    dataset = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='a.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('cat', 'dog')),
    )
    cfg = Config(
        dict(
            data_root=str(root),
            model=dict(
                num_queries=5,
                bbox_head=dict(type='HDETRHead', num_classes=2),
                data_preprocessor=dict(type='DetDataPreprocessor'),
                train_cfg=dict(assigner=dict(type='HungarianAssigner')),
                test_cfg=dict(max_per_img=10),
            ),
            val_evaluator=dict(type='CocoMetric', ann_file=f'{root}/a.json'),
            test_evaluator=[
                dict(type='CocoMetric', ann_file=f'{root}/a.json')
            ],
            **{
                f'{split}_dataloader': dict(dataset=dataset)
                for split in SPLITS
            },
        )
    )
    cfg.merge_from_dict(
        {key.replace('__', '.'): value for key, value in options.items()}
    )
    return resolve_config(cfg)


def rewrite(root: Path, change: Callable[[dict], Any]) -> None:
    """Change the annotation file in place."""
    content = json.loads((root / 'a.json').read_text())
    change(content)
    (root / 'a.json').write_text(json.dumps(content))


def check(cfg: Config, *splits: str) -> None:
    check_model(cfg)
    check_data(cfg, splits)


def sentence(cfg: Config, *splits: str) -> str:
    """The message of the error that the checks raise."""
    with pytest.raises(UserError) as caught:
        check(cfg, *splits or SPLITS)
    message = str(caught.value)
    assert '\n' not in message
    return message


def test_a_config_in_order_passes(root: Path) -> None:
    check(config(root), *SPLITS)


def test_missing_root(tmp_path: Path) -> None:
    message = sentence(config(tmp_path / 'no'))
    assert (
        f'The data root {tmp_path}/no of train_dataloader.dataset' in message
    )
    assert '--cfg-options data_root=FOLDER' in message


def test_a_split_that_is_not_used_may_be_missing(root: Path) -> None:
    cfg = config(root, train_dataloader__dataset__ann_file='no.json')
    check_data(cfg, ('test',))
    assert f'{root}/no.json of train_dataloader' in sentence(cfg, 'train')


def test_missing_annotations_of_a_metric(root: Path) -> None:
    cfg = config(root, val_evaluator__ann_file=f'{root}/no.json')
    assert f'{root}/no.json of val_evaluator' in sentence(cfg)


def test_missing_annotations_of_a_wrapped_dataset(root: Path) -> None:
    cfg = config(root)
    missing = dict(cfg.train_dataloader.dataset, ann_file='no.json')
    both = [cfg.train_dataloader.dataset, missing]
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    assert 'train_dataloader.dataset.datasets[1]' in sentence(cfg)


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        (b'{"images": [', 'is not a COCO json: Expecting value'),
        (b'\x89PNG\xff', 'is not a COCO json'),
        (b'[]', "expected an object with 'images'"),
        (b'{"shapes": []}', "expected an object with 'images'"),
        (b'{"images": []}', "has no 'categories'"),
        (b'{"images": [], "categories": []}', "has no 'categories'"),
    ],
)
def test_annotations_of_another_kind(
    root: Path, content: bytes, expected: str
) -> None:
    (root / 'a.json').write_bytes(content)
    message = sentence(config(root))
    assert expected in message
    assert f'{root}/a.json' in message


@pytest.mark.parametrize(
    'key', ['id', 'image_id', 'category_id', 'bbox', 'area']
)
def test_an_annotation_lacks_a_key(root: Path, key: str) -> None:
    rewrite(root, lambda content: content['annotations'][0].pop(key))
    with pytest.raises(UserError, match=rf"a\.json has no '{key}': .* are "):
        check_data(config(root), ['test'])


@pytest.mark.parametrize(
    'wrong', [dict(bbox=[]), dict(bbox=None), dict(bbox='1'), dict(area=None)]
)
def test_an_annotation_without_numbers(root: Path, wrong: dict) -> None:
    rewrite(root, lambda content: content['annotations'][0].update(wrong))
    with pytest.raises(UserError, match=r'expected \[x, y, width, height\]'):
        check_data(config(root), ['test'])


def test_training_needs_annotations_and_testing_does_not(root: Path) -> None:
    rewrite(root, lambda content: content.pop('annotations'))
    check_data(config(root), ('test',))
    assert 'no annotations to train on' in sentence(config(root), 'train')


def test_missing_image_folder(root: Path) -> None:
    cfg = config(root, val_dataloader__dataset__data_prefix__img='no')
    assert f'{root}/no of val_dataloader.dataset does not exist' in sentence(
        cfg
    )


def test_missing_image(root: Path) -> None:
    (root / 'images' / '1.png').unlink()
    assert f'1.png, which {root}/a.json names, is not' in sentence(
        config(root)
    )


def test_a_class_that_the_annotations_do_not_have(root: Path) -> None:
    message = sentence(config(root, classes=('cat', 'bird')))
    assert "has 1 of the 2 classes of the config ('bird' missing)" in message
    assert "its categories: 'cat', 'dog'" in message


def test_classes_of_coco_on_other_data(root: Path) -> None:
    cfg = config(root)
    del cfg.train_dataloader.dataset['metainfo']
    cfg.model.bbox_head.num_classes = 80
    with pytest.raises(UserError, match='has 2 of the 80 classes') as caught:
        check_data(cfg, ('train',))
    assert 'and 73 more missing' in str(caught.value)


def test_classes_in_another_order_than_the_labels(root: Path) -> None:
    message = sentence(config(root, classes=('dog', 'cat')))
    assert "write classes=('cat', 'dog')" in message


def test_a_part_of_the_categories_in_their_order_passes(root: Path) -> None:
    rewrite(
        root,
        lambda content: content['categories'].insert(1, dict(id=9, name='x')),
    )
    check_data(config(root), SPLITS)


def test_labels_really_follow_the_file(root: Path) -> None:
    # The behaviour of mmdet that the check of the order is there for.
    from mmdet.datasets import CocoDataset

    cfg = config(root, classes=('dog', 'cat'))
    dataset = dict(cfg.train_dataloader.dataset, pipeline=[])
    dataset.pop('type')
    instances = CocoDataset(**dataset)[0]['instances']
    assert [instance['bbox_label'] for instance in instances] == [1]


def test_other_count_of_classes_in_the_model(root: Path) -> None:
    message = sentence(config(root, model__bbox_head__num_classes=80))
    assert 'HDETRHead has num_classes=80' in message
    assert 'train_dataloader.dataset has 2 classes' in message


def test_more_detections_than_queries_times_classes(root: Path) -> None:
    message = sentence(config(root, model__test_cfg__max_per_img=11))
    assert 'max_per_img=11' in message
    assert '5 queries times 2 classes' in message


def test_no_queries_are_not_cured_by_fewer_detections(root: Path) -> None:
    message = sentence(config(root, model__num_queries=-5))
    assert 'model.num_queries=-5 should be' in message
    assert 'max_per_img' not in message


def test_more_detections_behind_test_time_augmentation(root: Path) -> None:
    cfg = config(root, model__test_cfg__max_per_img=11)
    cfg.model = dict(type='DetTTAModel', module=cfg.model)
    assert 'max_per_img=11' in sentence(cfg)


@pytest.mark.parametrize(
    'options',
    [
        dict(train_dataloader__dataset__data_root='s3://bucket/coco'),
        dict(train_dataloader__dataset__ann_file='https://host/a.json'),
        dict(train_dataloader__dataset__backend_args=dict(backend='petrel')),
    ],
)
def test_remote_data_is_not_looked_for(root: Path, options: dict) -> None:
    cfg = config(root, **options)
    (root / 'a.json').unlink()
    check_data(cfg, ('train',))


def test_datasets_without_coco_annotations_pass(root: Path) -> None:
    cfg = config(
        root,
        train_dataloader__dataset=dict(
            _delete_=True,
            type='VOCDataset',
            data_root=str(root),
            ann_file='list.txt',
            metainfo=dict(classes=('cat', 'dog')),
        ),
    )
    check(cfg, 'train')
    cfg.train_dataloader.dataset.data_root = str(root / 'no')
    assert 'The data root' in sentence(cfg, 'train')


BRANCHES = dict(type='MultiBranch', branch_field=['weak', 'strong'])
PLAIN = dict(type='DetDataPreprocessor')
BRANCHED = dict(type='MultiBranchDataPreprocessor', data_preprocessor=PLAIN)


def wrapped(dataset: dict, *pipelines: list) -> dict:
    """The dataset in a wrapper for each pipeline, which may be none."""
    for pipeline in pipelines:
        dataset = dict(
            type='MultiBranchMultiImageMixDataset',
            dataset=dict(type='RepeatDataset', times=2, dataset=dataset),
            pipeline=pipeline,
        )
    return dataset


def branch_config(root: Path, preprocessor: dict, *pipelines: list) -> Config:
    cfg = config(root)
    first, *others = pipelines
    dataset = dict(cfg.train_dataloader.dataset, pipeline=first)
    cfg.train_dataloader.dataset = wrapped(dataset, *others)
    cfg.model.data_preprocessor = preprocessor
    return cfg


@pytest.mark.parametrize('kind', ['MultiBranch', 'mmdet.MultiBranch'])
def test_branches_that_the_model_takes_pass(root: Path, kind: str) -> None:
    branches = dict(BRANCHES, type=kind)
    for pipelines in ([[branches]], [[], [branches]], [[], [branches], []]):
        check_data(branch_config(root, BRANCHED, *pipelines), ['train'])
    check_data(branch_config(root, PLAIN, [dict(type='Pad')], []), ['train'])
    # A preprocessor that nobody here knows may take anything.
    unknown = dict(type='SomethingElse')
    check_data(branch_config(root, unknown, [branches]), ['train'])


def test_a_pipeline_without_the_branches_of_the_model(root: Path) -> None:
    cfg = branch_config(root, BRANCHED, [dict(type='Pad')], [])
    message = sentence(cfg, 'train')
    assert 'train_dataloader.dataset.dataset.dataset has no MultiB' in message
    assert 'coco_detection_re_aug.py' in message
    check_data(cfg, ['test'])


def test_one_of_two_datasets_without_branches(root: Path) -> None:
    cfg = branch_config(root, BRANCHED, [BRANCHES])
    good = cfg.train_dataloader.dataset
    both = [good, dict(good, pipeline=[])]
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    message = sentence(cfg, 'train')
    assert 'train_dataloader.dataset.datasets[1] has no Multi' in message


def test_a_model_that_takes_no_branches(root: Path) -> None:
    for pipelines in ([[BRANCHES]], [[], [BRANCHES]]):
        cfg = branch_config(root, PLAIN, *pipelines)
        message = sentence(cfg, 'train')
        assert 'a DetDataPreprocessor, takes no branches' in message
        assert "set it to dict(type='MultiBranchDataPreprocessor'" in message
        check_data(cfg, ['test'])


def switched(cfg: Config, pipeline: list) -> Config:
    """The config with a hook that exchanges the pipeline late."""
    cfg.custom_hooks = [
        dict(
            type='PipelineSwitchHook', switch_epoch=9, switch_pipeline=pipeline
        )
    ]
    return cfg


def test_a_pipeline_that_a_hook_puts_in_place() -> None:
    cfg = branch_config(Path(), BRANCHED, [BRANCHES])
    check_trainable(switched(cfg, [BRANCHES]))
    with pytest.raises(UserError) as caught:
        check_trainable(switched(cfg, [dict(type='Pad')]))
    message = str(caught.value)
    assert 'custom_hooks[0].switch_pipeline has no MultiBranch' in message
    assert "type='ReaugmentationDataPreprocessor'" in message
    takes_both = dict(BRANCHED, type='ReaugmentationDataPreprocessor')
    cfg = branch_config(Path(), takes_both, [BRANCHES])
    check_trainable(switched(cfg, [dict(type='Pad')]))
    cfg = branch_config(Path(), PLAIN, [dict(type='Pad')])
    check_trainable(switched(cfg, [dict(type='Pad')]))
    with pytest.raises(UserError) as caught:
        check_trainable(switched(cfg, [BRANCHES]))
    message = str(caught.value)
    assert 'Custom_hooks' not in message
    assert 'custom_hooks[0].switch_pipeline has a MultiBranch' in message


def test_a_hook_that_would_not_reach_the_dataset() -> None:
    cfg = branch_config(Path(), PLAIN, [dict(type='Pad')], [])
    with pytest.raises(UserError, match='here it is wrapped'):
        check_trainable(switched(cfg, [dict(type='Pad')]))


def test_a_training_without_an_assigner() -> None:
    cfg = branch_config(Path(), PLAIN, [dict(type='Pad')])
    check_trainable(cfg)
    cfg.model.train_cfg = None
    with pytest.raises(UserError, match=r'model\.train_cfg is None'):
        check_trainable(cfg)
    cfg.model = dict(type='FasterRCNN', data_preprocessor=PLAIN)
    check_trainable(cfg)


def mask_config(root: Path, **options: Any) -> Config:
    """Masks are loaded in training, by a dataset in a wrapper."""
    load = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
    cfg = branch_config(root, BRANCHED, [load], [BRANCHES])
    cfg.merge_from_dict(options)
    return resolve_config(cfg)


def test_a_pipeline_of_functions(root: Path) -> None:
    """A type need be no name; what names nothing here is no transform."""
    augment = dict(type=dict, policy=dict(type='random'))
    check_data(branch_config(root, PLAIN, [augment], []), ['train'])


def add_masked(content: dict) -> None:
    """Have the other class something to train on, with a mask."""
    more = dict(id=9, category_id=3, segmentation=[[0, 0, 4, 0, 4, 4]])
    content['annotations'].append(dict(content['annotations'][0], **more))


@pytest.mark.parametrize('masks', [{}, dict(segmentation=[])])
def test_masks_that_are_loaded_and_missing(root: Path, masks: dict) -> None:
    rewrite(root, lambda content: content['annotations'][0].update(masks))
    cfg = mask_config(root)
    message = sentence(cfg, 'train')
    assert f"Annotation 1 of {root}/a.json, a 'dog', has no 'segm" in message
    assert 'train_dataloader.dataset.dataset.dataset loads masks' in message
    check_data(cfg, ['test'])


@pytest.mark.parametrize(
    'change',
    [
        dict(segmentation=[[0, 0, 4, 0, 4, 4]]),
        dict(segmentation=dict(size=[8, 8], counts='0')),
        # What mmdet leaves out.
        dict(ignore=1),
        dict(area=0),
        dict(bbox=[0, 0, 0.5, 4]),
        dict(bbox=[-9, 0, 8, 8]),
        dict(category_id=77),
        dict(image_id=77),
    ],
)
def test_masks_that_need_not_be_there(root: Path, change: dict) -> None:
    rewrite(root, add_masked)
    rewrite(root, lambda content: content['annotations'][0].update(change))
    check_data(mask_config(root), ['train'])


def test_masks_of_other_classes_need_not_be_there(root: Path) -> None:
    rewrite(root, add_masked)
    check_data(mask_config(root, classes=('cat',)), ['train'])


@pytest.mark.parametrize(
    'path', sorted((CONFIGS / 'custom').glob('*.py')), ids=lambda p: p.stem
)
def test_configs_for_own_data_need_its_root_and_classes(
    path: Path, toy_data: Path
) -> None:
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(dict(data_root=str(toy_data), classes=SHAPE_CLASSES))
    cfg = resolve_config(cfg)
    check(cfg, *SPLITS)
    assert cfg.model.bbox_head.num_classes == len(SHAPE_CLASSES)
    # No file that only some trainings bring.
    backbone = cfg.model.backbone
    start = backbone.get('init_cfg', dict(checkpoint=''))['checkpoint']
    is_timms = backbone.type == 'TimmBackbone' and backbone.pretrained is True
    assert is_timms or start.startswith(('https://', 'torchvision://'))


def test_large_files_are_read_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept gives the same answers, until the file changes."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    before = sorted(root.rglob('*'))

    def enlarge(content: dict) -> None:
        box = dict(content['annotations'][0], segmentation=[[5] * 4000])
        content['annotations'] += [dict(box, id=i) for i in range(2, 400)]
        content['annotations'][7]['bbox'] = [50, 0, 4, 4]

    rewrite(root, enlarge)
    assert (root / 'a.json').stat().st_size > 4 * 2**20
    cfg = config(root)
    first = told(cfg)
    assert 'annotation 8 (annotations[7])' in first[0]
    with monkeypatch.context() as patch:
        patch.setattr(annotations, 'load_coco_json', None)  # would fail
        assert told(cfg) == first
    (kept,) = (tmp_path / 'cache').rglob('*.npz')
    kept.write_bytes(b'PK damaged')
    assert told(cfg) == first
    rewrite(root, lambda c: c['annotations'][7].update(bbox=[0, 0, 4, 4]))
    assert told(cfg) == []
    assert set(before) == {p for p in before if p.exists()}


def told(cfg: Config) -> list[str]:
    reports = look_at_data(cfg, ['train'])
    return [f.sentence for report in reports for f in report.findings]


def test_headers_are_read_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    paths = [root / 'images' / f'{index}.png' for index in range(2, 2500)]
    for path in paths:
        path.hardlink_to(root / 'images' / '1.png')
    names = list(map(str, paths))
    first = look_at_images(names)
    assert first.seen.all()
    paths[5].unlink()
    cv2.imwrite(str(paths[5]), np.zeros((3, 9, 3), np.uint8))
    opened, real = [], Image.open
    monkeypatch.setattr(
        Image, 'open', lambda file: opened.append(file.name) or real(file)
    )
    again = look_at_images(names)
    assert opened == [names[5]]
    assert again.sizes[5].tolist() == [9, 3]
    assert (np.delete(again.sizes, 5, 0) == [8, 8]).all()
    assert look_at_images(names[:2500:2], budget=0).seen.any()
