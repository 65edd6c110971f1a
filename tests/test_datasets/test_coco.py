"""What is trained on is what DETR's code and detectron2 train on."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from mmdet.registry import DATASETS

from tests.helpers.configs import read_config

pytestmark = pytest.mark.usefixtures('mmdet_scope')

CASES = json.loads(
    (
        Path(__file__).parents[1]
        / 'data/recipes/pipelines/annotation_filter.json'
    ).read_text()
)['cases']
RECIPES = {
    'authors': 'h_detr/h-detr_r50_8xb2-12e_coco.py',
    'detrex': 'h_detr/h-detr_r50_8xb2-12e_coco-detrex.py',
}


def annotation(bbox: list[float], **extra: Any) -> dict:
    area = bbox[2] * bbox[3]
    plain = dict(image_id=1, category_id=7, bbox=bbox, area=area, iscrowd=0)
    return plain | extra


def dataset_of(
    folder: Path,
    annotations: list[dict],
    config: str = RECIPES['authors'],
    **filter_cfg: bool,
) -> Any:
    """The training set of a shipped config, on one image of 200 x 100."""
    content = dict(
        images=[dict(id=1, file_name='1.jpg', width=200, height=100)],
        annotations=[
            dict(one, id=number) for number, one in enumerate(annotations, 1)
        ],
        categories=[dict(id=7, name='person'), dict(id=9, name='car')],
    )
    path = folder / 'train.json'
    path.write_text(json.dumps(content))
    dataset = copy.deepcopy(read_config(config).train_dataloader.dataset)
    dataset.update(
        ann_file=str(path),
        data_root='',
        metainfo=dict(classes=('person',)),
        pipeline=[],
        serialize_data=False,  # which an empty one cannot be
    )
    dataset.filter_cfg.update(filter_cfg)
    return DATASETS.build(dataset)


def num_boxes(dataset: Any) -> int | None:
    """How many objects the image is trained on with, None without it."""
    if not len(dataset):
        return None
    instances = dataset.get_data_info(0)['instances']
    return sum(not instance['ignore_flag'] for instance in instances)


@pytest.mark.parametrize('recipe', RECIPES)
@pytest.mark.parametrize('case', CASES, ids=lambda case: case['case'])
def test_boxes_trained_on(recipe: str, case: dict, tmp_path: Path) -> None:
    found = dataset_of(
        tmp_path,
        [annotation(case['bbox'], **case['extra'])],
        RECIPES[recipe],
    )
    assert num_boxes(found) == case[recipe]


def test_what_is_told_to_ignore_is_left_out_unless_asked_for(
    tmp_path: Path,
) -> None:
    ignored = [annotation([10, 10, 20, 20], ignore=1)]
    for filter_ignored, expected in ((True, 0), (False, 1)):
        found = dataset_of(tmp_path, ignored, filter_ignored=filter_ignored)
        assert num_boxes(found) == expected
    custom = read_config('custom/h-detr_r50_8xb2-12e_custom.py')
    assert custom.train_dataloader.dataset.filter_cfg.filter_ignored


def test_instances_are_mmdets(tmp_path: Path) -> None:
    """But for those that mmdet leaves out, in value and order."""
    annotations = [
        annotation([10, 10, 20, 20]),
        annotation([10, 10, 0.5, 20]),
        annotation([-5, 90, 30.5, 40], segmentation=[[0, 0, 9, 0, 9, 9]]),
        annotation([10, 10, 20, 20], category_id=9),
        annotation([50, 10, 20, 20], iscrowd=1),
        annotation([60, 10, 20, 20], area=0),
    ]
    own = dataset_of(tmp_path, annotations)
    theirs = DATASETS.build(
        dict(
            type='CocoDataset',
            ann_file=own.ann_file,
            data_prefix=dict(img='train2017/'),
            metainfo=dict(classes=('person',)),
        )
    )
    info, expected = own.get_data_info(0), theirs.get_data_info(0)
    assert info.pop('num_annotated') == 4
    instances = info.pop('instances')
    assert [instances[i] for i in (0, 2, 3)] == expected.pop('instances')
    assert [instances[i]['bbox'] for i in (1, 4)] == [
        [10, 10, 10.5, 30],
        [60, 10, 80, 30],
    ]
    assert info == expected


def test_images_with_crowds_only(tmp_path: Path) -> None:
    """Of another class, or beside another class, they are crowds only."""
    crowd = annotation([10, 10, 20, 20], iscrowd=1)
    other = annotation([10, 10, 20, 20], category_id=9)
    detrex = RECIPES['detrex']
    assert num_boxes(dataset_of(tmp_path, [crowd, other], detrex)) is None
    both = [crowd, annotation([10, 10, 20, 20])]
    assert num_boxes(dataset_of(tmp_path, both, detrex)) == 1
    assert num_boxes(dataset_of(tmp_path, [crowd])) == 0
