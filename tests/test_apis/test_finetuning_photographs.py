"""Fine-tuning a small detector on photographs beats training it anew.

The subset of coco_mini: every object whose box has at least nine percent of
its photograph and is no crowd, all of one class; 122 boxes in 61 photographs
to train on, and 96 in 44 others. The detector has learned shapes before, as
the demo's.
"""

import json
import uuid
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import RUNNERS

from project.apis.finetuning.preparation import Request, prepare
from project.datasets.shapes import ShapesSpec, make_shapes
from tests.helpers.configs import SHARED
from tests.helpers.training import toy_config

COCO_MINI = SHARED / 'data' / 'coco_mini'
SIZE = 128
SHAPES_EPOCHS = 15
EPOCHS = 40

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not COCO_MINI.is_dir(), reason='needs ../shared/data/coco_mini'
    ),
]


def write_large_objects(root: Path) -> None:
    """A folder in COCO's layout with links to the photographs."""
    (root / 'annotations').mkdir(parents=True)
    for split, counts in (('train', (61, 122)), ('val', (44, 96))):
        file = f'annotations/instances_{split}2017.json'
        content = json.loads((COCO_MINI / file).read_text())
        areas = {x['id']: x['width'] * x['height'] for x in content['images']}
        boxes = [
            dict(box, category_id=1)
            for box in content['annotations']
            if not box['iscrowd']
            and box['bbox'][2] * box['bbox'][3]
            >= 0.09 * areas[box['image_id']]
        ]
        there = {box['image_id'] for box in boxes}
        images = [x for x in content['images'] if x['id'] in there]
        assert (len(images), len(boxes)) == counts
        kept = dict(
            images=images,
            annotations=boxes,
            categories=[dict(id=1, name='object')],
        )
        (root / f'annotations/{split}.json').write_text(json.dumps(kept))
        (root / split).mkdir()
        for image in images:
            path = COCO_MINI / f'{split}2017' / image['file_name']
            (root / split / path.name).symlink_to(path)


def small_config(shapes: Path, work_dir: Path) -> Config:
    """The toy detector at a size that learns shapes in minutes."""
    cfg = toy_config(
        shapes,
        work_dir,
        train_cfg__max_epochs=SHAPES_EPOCHS,
        train_cfg__val_interval=SHAPES_EPOCHS,
        default_hooks__checkpoint__interval=SHAPES_EPOCHS,
        optim_wrapper__optimizer__lr=1e-3,
        auto_scale_lr__base_batch_size=4,
        model__num_queries=20,
        model__one2many__num_queries=20,
        model__backbone__base_channels=16,
        model__neck__in_channels=[64, 128],
    )
    cfg.optim_wrapper.paramwise_cfg = None
    cfg.model.backbone.update(
        norm_cfg=dict(type='GN', num_groups=8), zero_init_residual=False
    )
    for split in ('train', 'val', 'test'):
        for step in cfg[f'{split}_dataloader'].dataset.pipeline:
            if step['type'] == 'Resize':
                step['scale'] = (SIZE, SIZE)
    return cfg


def train(
    data: Path, model: Path, work_dir: Path, start: Path | None
) -> dict[str, float]:
    """Train as tools/finetune.py does.

    Returns:
        dict[str, float]: AP and AP50 of the photographs that were trained on,
        and those of the others as ``other AP`` and ``other AP50``.
    """
    checkpoint = None if start is None else str(start)
    request = Request(
        str(data), str(model), checkpoint, epochs=EPOCHS, batch_size=4
    )
    prepare(request, work_dir)
    cfg = Config.fromfile(work_dir / 'finetune.py')
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = cfg.visualizer.name = uuid.uuid4().hex
    cfg.train_cfg.val_interval = EPOCHS
    cfg.custom_hooks = []
    trained_on = cfg.train_dataloader.dataset
    cfg.test_dataloader.dataset.update(
        ann_file=trained_on.ann_file, data_prefix=trained_on.data_prefix
    )
    cfg.test_evaluator.ann_file = str(data / 'annotations/train.json')
    runner = RUNNERS.build(cfg)
    runner.train()
    metrics = {'': runner.test(), 'other ': runner.val()}
    return {
        f'{which}AP{suffix[1:]}': found[f'coco/bbox_mAP{suffix}']
        for which, found in metrics.items()
        for suffix in ('', '_50')
    }


def test_it_beats_the_same_budget_from_scratch(tmp_path: Path) -> None:
    shapes, photographs = tmp_path / 'shapes', tmp_path / 'photographs'
    make_shapes(shapes, ShapesSpec(train=300, val=20, size=SIZE))
    write_large_objects(photographs)
    cfg = small_config(shapes, tmp_path / 'before')
    RUNNERS.build(cfg).train()
    model = tmp_path / 'small.py'
    cfg.dump(model)
    start = tmp_path / 'before' / f'epoch_{SHAPES_EPOCHS}.pth'
    tuned = train(photographs, model, tmp_path / 'tuned', start)
    anew = train(photographs, model, tmp_path / 'anew', None)
    print('fine-tuned', tuned)
    print('from scratch', anew)
    assert tuned['AP50'] > 0.5  # it has learned them
    assert tuned['AP'] > anew['AP']
    # On 44 others both are low, and differ no more than two validations.
    assert tuned['other AP50'] > 0.05
