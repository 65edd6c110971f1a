"""Copy-paste into the branches of an image, each with images of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

import project  # noqa: F401  registers the dataset
from project.datasets.dataset_wrappers import MultiBranchMultiImageMixDataset
from project.datasets.shapes import ShapesSpec, make_shapes
from project.datasets.shapes_scene import SHAPE_CLASSES
from project.preflight.config_tree import leaf_datasets
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from tests.helpers.configs import CONFIGS

pytestmark = pytest.mark.usefixtures('mmdet_scope')

SIZE = 96
PACK = dict(type='PackDetInputs', meta_keys=('img_id', 'img_shape'))


@pytest.fixture(scope='module')
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes(root, ShapesSpec(train=30, val=1, size=SIZE, seed=1))
    return root


def build(
    root: Path, pipeline: list[dict], **options: Any
) -> MultiBranchMultiImageMixDataset:
    """The shapes dataset, its images padded to one size, in the wrapper."""
    images = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=SHAPE_CLASSES),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='Pad', size=(SIZE, SIZE)),
        ],
    )
    return DATASETS.build(
        dict(
            type='MultiBranchMultiImageMixDataset',
            dataset=images,
            pipeline=pipeline,
            **options,
        )
    )


def two_branches(strong: list[dict], *others: dict) -> list[dict]:
    branches = dict(
        type='MultiBranch',
        branch_field=['strong', 'weak'],
        weak=[],
        strong=strong,
    )
    return [branches, *others, PACK]


class Paste:
    """A transform that pastes nothing and notes what it could have pasted."""

    def __init__(self) -> None:
        self.seen: list[dict] = []

    def get_indexes(self, dataset: Any) -> int:
        return np.random.randint(len(dataset))

    def __call__(self, results: dict) -> dict:
        self.seen.append(dict(results))
        return results


def note(dataset: MultiBranchMultiImageMixDataset, position: int) -> Paste:
    """Put the notes in the place of a transform."""
    dataset.pipeline[position] = Paste()
    return dataset.pipeline[position]


# A strong augmentation that nothing else looks like.
ERASE = [
    dict(type='RandomErasing', n_patches=4, ratio=0.5, img_border_value=7)
]


def test_an_item_has_both_branches(shapes_root: Path) -> None:
    dataset = build(
        shapes_root,
        two_branches(ERASE, dict(type='CopyPaste', max_num_pasted=100)),
    )
    assert len(dataset) == 30
    assert dataset.metainfo['classes'] == SHAPE_CLASSES
    for index in range(30):
        item = dataset[index]
        assert item.keys() == {'inputs', 'data_samples'}
        for values in item.values():
            assert values.keys() == {'weak', 'strong'}
        for branch, image in item['inputs'].items():
            sample = item['data_samples'][branch]
            assert image.shape == (3, SIZE, SIZE)
            assert sample.img_shape == (SIZE, SIZE)
            assert sample.img_id == index + 1
            boxes = sample.gt_instances.bboxes.tensor
            assert len(boxes) == len(sample.gt_instances.labels)
            assert len(boxes) == len(sample.gt_instances.masks)


def test_both_branches_start_from_the_same_image(shapes_root: Path) -> None:
    """Without anything after the split, weak is the image of the dataset."""
    dataset = build(shapes_root, two_branches(ERASE))
    item = dataset[3]
    image = torch.from_numpy(dataset.dataset[3]['img']).permute(2, 0, 1)
    assert torch.equal(item['inputs']['weak'], image)
    changed = (item['inputs']['strong'] != image).any(0)
    assert changed.any()
    assert (item['inputs']['strong'][:, changed] == 7).all()


def test_each_branch_draws_its_own_images_to_paste(shapes_root: Path) -> None:
    dataset = build(shapes_root, two_branches(ERASE, dict(PACK), dict(PACK)))
    first, second = note(dataset, 1), note(dataset, 2)
    np.random.seed(0)
    for index in range(20):
        dataset[index]
    pairs = []
    for paste in (first, second):
        donors = [seen['mix_results'][0]['img_id'] for seen in paste.seen]
        pairs += zip(donors[::2], donors[1::2], strict=True)
    assert len(pairs) == 40
    assert sum(a != b for a, b in pairs) > 30


def test_what_is_pasted_was_never_strongly_augmented(
    shapes_root: Path,
) -> None:
    dataset = build(shapes_root, two_branches(ERASE, dict(PACK)))
    paste = note(dataset, 1)
    for index in range(10):
        dataset[index]
    for seen in paste.seen:
        (donor,) = seen['mix_results']
        index = donor['img_id'] - 1
        np.testing.assert_array_equal(
            donor['img'], dataset.dataset[index]['img']
        )


def test_pasting_happens_after_the_strong_augmentation(
    shapes_root: Path,
) -> None:
    """Erased patches of the image keep their colour, pasted pixels cover."""
    dataset = build(shapes_root, two_branches(ERASE, dict(PACK)))
    paste = note(dataset, 1)
    dataset[3]
    erased = [(seen['img'] == 7).all(-1).mean() for seen in paste.seen]
    assert sorted(share > 0.2 for share in erased) == [False, True]


def test_pasted_objects_are_those_of_the_other_image(
    shapes_root: Path,
) -> None:
    """With all objects of one other image pasted, labels and pixels agree."""
    dataset = build(
        shapes_root, two_branches([], dict(type='CopyPaste', selected=False))
    )
    dataset.pipeline[1].get_indexes = lambda dataset: 5
    donor = dataset.dataset[5]
    item = dataset[3]
    num_pasted = len(donor['gt_bboxes'])
    assert num_pasted > 0
    for branch in ('weak', 'strong'):
        instances = item['data_samples'][branch].gt_instances
        np.testing.assert_array_equal(
            instances.labels[-num_pasted:], donor['gt_bboxes_labels']
        )
        mask = donor['gt_masks'].masks.any(0)
        image = item['inputs'][branch].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(image[mask], donor['img'][mask])


def test_images_without_objects_on_either_side(shapes_root: Path) -> None:
    dataset = build(
        shapes_root,
        two_branches(ERASE, dict(type='CopyPaste', max_num_pasted=100)),
    )
    counts = [len(image['gt_bboxes']) for image in dataset.dataset]
    empty, full = counts.index(0), counts.index(max(counts))
    for image, donor in ((empty, full), (full, empty), (empty, empty)):
        dataset.pipeline[1].get_indexes = lambda dataset, i=donor: i
        for _ in range(5):
            item = dataset[image]
            num_weak = len(item['data_samples']['weak'].gt_instances)
            assert num_weak <= counts[image] + counts[donor]
            if donor == empty:
                assert num_weak == counts[image]


def test_the_preprocessor_takes_what_the_loader_collates(
    shapes_root: Path,
) -> None:
    from mmdet.registry import MODELS

    dataset = build(shapes_root, two_branches(ERASE))
    preprocess = MODELS.build(
        dict(
            type='ReaugmentationDataPreprocessor',
            data_preprocessor=dict(type='DetDataPreprocessor'),
        )
    )
    batch = pseudo_collate([dataset[0], dataset[1]])
    batch = preprocess(batch, training=True)
    for branch in ('weak', 'strong'):
        assert batch['inputs'][branch].shape == (2, 3, SIZE, SIZE)
        ids = [sample.img_id for sample in batch['data_samples'][branch]]
        assert ids == [1, 2]
    plain = [weak_alone(dataset[index]) for index in range(2)]
    batch = preprocess(pseudo_collate(plain), training=True)
    assert batch['inputs'].shape == (2, 3, SIZE, SIZE)
    assert [sample.img_id for sample in batch['data_samples']] == [1, 2]


def weak_alone(item: dict) -> dict:
    """What a pipeline without branches gives."""
    return {key: branches['weak'] for key, branches in item.items()}


def test_a_key_of_one_branch_alone_is_told(shapes_root: Path) -> None:
    pipeline = two_branches([dict(type='Rotate', prob=1.0)])
    dataset = build(shapes_root, pipeline)
    with pytest.raises(
        UserError, match="branch 'weak' has no 'homography_matrix'"
    ):
        dataset[0]
    pipeline[0]['branch_field'] = ['strong', 'weak', 'third']
    with pytest.raises(UserError, match=r"no 'data_samples', .* 'third'"):
        build(shapes_root, pipeline)[0]


def test_without_branches_it_is_its_parent(shapes_root: Path) -> None:
    pipeline = [dict(type='CopyPaste', max_num_pasted=100), PACK]
    own = build(shapes_root, pipeline)
    parent = DATASETS.build(
        dict(
            type='MultiImageMixDataset', dataset=own.dataset, pipeline=pipeline
        )
    )
    for index in range(5):
        items = []
        for dataset in (own, parent):
            np.random.seed(index)
            items.append(dataset[index])
        assert torch.equal(items[0]['inputs'], items[1]['inputs'])
        boxes = [
            item['data_samples'].gt_instances.bboxes.tensor for item in items
        ]
        assert torch.equal(*boxes)


def test_types_to_skip(shapes_root: Path) -> None:
    pipeline = two_branches([], dict(type='CopyPaste', selected=False))
    dataset = build(shapes_root, pipeline, skip_type_keys=['CopyPaste'])
    image = torch.from_numpy(dataset.dataset[2]['img']).permute(2, 0, 1)
    assert torch.equal(dataset[2]['inputs']['strong'], image)


@pytest.mark.parametrize('is_mixing', [True, False])
def test_what_never_gives_a_result_ends(
    shapes_root: Path, is_mixing: bool
) -> None:
    dataset = build(shapes_root, two_branches([], dict(PACK)), max_refetch=3)
    paste = note(dataset, 1)
    calls = []
    if is_mixing:
        dataset.dataset = [dataset.dataset[0], None]
        paste.get_indexes = lambda dataset: 1
        message = 'No image to mix in by Paste .* 3 attempts'
    else:
        dataset.pipeline[1] = lambda results: calls.append(results)
        message = 'function gave no result in 3 attempts'
    with pytest.raises(RuntimeError, match=message):
        dataset[0]
    assert len(calls) == (0 if is_mixing else 3)


def lsj_config(root: Path) -> Config:
    """The shipped dataset config on the shapes dataset."""
    config = Config.fromfile(
        CONFIGS / '_base_/datasets/coco_detection_re_aug_lsj.py'
    )
    config.model = dict(bbox_head=dict(num_classes=80))
    config.data_root, config.classes = str(root), SHAPE_CLASSES
    return resolve_config(config)


def test_data_root_and_classes_reach_what_it_wraps(shapes_root: Path) -> None:
    config = lsj_config(shapes_root)
    ((name, leaf),) = leaf_datasets(config, 'train')
    assert name == 'train_dataloader.dataset.dataset'
    assert leaf.data_root == str(shapes_root)
    assert leaf.metainfo.classes == SHAPE_CLASSES
    assert config.model.bbox_head.num_classes == len(SHAPE_CLASSES)


def test_shipped_lsj_pipeline(shapes_root: Path) -> None:
    config = lsj_config(shapes_root).train_dataloader.dataset
    config.dataset.update(
        ann_file='annotations/train.json', data_prefix=dict(img='train/')
    )
    dataset = DATASETS.build(config)
    np.random.seed(0)
    num_boxes = {'weak': 0, 'strong': 0}
    for index in range(8):
        item = dataset[index]
        for branch in num_boxes:
            sample = item['data_samples'][branch]
            assert item['inputs'][branch].shape == (3, 1024, 1024)
            assert sample.img_shape == (1024, 1024)
            assert 'homography_matrix' in sample
            boxes = sample.gt_instances.bboxes.tensor
            assert boxes.isfinite().all()
            assert (boxes >= 0).all()
            assert (boxes <= 1024).all()
            num_boxes[branch] += len(boxes)
        assert not torch.equal(*item['inputs'].values())
    assert min(num_boxes.values()) > 0
