"""Fine-tuning a small detector on photographs beats training it anew, by loss.

The subset of coco_mini: the boxes of persons that are no crowds, in 36 images
to train on and 29 that are not trained on.
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
PERSON = 1
SIZE = 128

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not COCO_MINI.is_dir(), reason='needs ../shared/data/coco_mini'
    ),
]


def write_persons(root: Path) -> None:
    """A folder in COCO's layout with links to the photographs."""
    (root / 'annotations').mkdir(parents=True)
    for split, count in (('train', 36), ('val', 29)):
        file = f'annotations/instances_{split}2017.json'
        content = json.loads((COCO_MINI / file).read_text())
        boxes = [
            box
            for box in content['annotations']
            if box['category_id'] == PERSON and not box['iscrowd']
        ]
        there = {box['image_id'] for box in boxes}
        images = [x for x in content['images'] if x['id'] in there]
        assert len(images) == count
        kept = dict(
            images=images,
            annotations=boxes,
            categories=[dict(id=PERSON, name='person')],
        )
        (root / f'annotations/{split}.json').write_text(json.dumps(kept))
        (root / split).mkdir()
        for image in images:
            path = COCO_MINI / f'{split}2017' / image['file_name']
            (root / split / path.name).symlink_to(path)


def small_config(shapes: Path, work_dir: Path) -> Config:
    """The toy detector at a size that learns shapes in a minute."""
    cfg = toy_config(
        shapes,
        work_dir,
        train_cfg__max_epochs=10,
        train_cfg__val_interval=10,
        default_hooks__checkpoint__interval=10,
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


def train(data: Path, model: Path, work_dir: Path, start: Path | None) -> dict:
    """Train as tools/finetune.py does; return the last validation."""
    checkpoint = None if start is None else str(start)
    request = Request(
        str(data), str(model), checkpoint, epochs=30, batch_size=4
    )
    prepare(request, work_dir)
    cfg = Config.fromfile(work_dir / 'finetune.py')
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = cfg.visualizer.name = uuid.uuid4().hex
    cfg.train_cfg.val_interval = cfg.max_epochs
    cfg.custom_hooks = [dict(type='ValidationLossHook')]
    RUNNERS.build(cfg).train()
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    last = [entry['loss'] for entry in entries if 'loss' in entry][-1]
    return dict(entries[-1], loss=last)


def test_it_beats_the_same_budget_from_scratch(tmp_path: Path) -> None:
    shapes, persons = tmp_path / 'shapes', tmp_path / 'persons'
    make_shapes(shapes, ShapesSpec(train=200, val=20, size=SIZE))
    write_persons(persons)
    cfg = small_config(shapes, tmp_path / 'before')
    RUNNERS.build(cfg).train()
    model = tmp_path / 'small.py'
    cfg.dump(model)
    start = tmp_path / 'before' / 'epoch_10.pth'
    tuned = train(persons, model, tmp_path / 'tuned', start)
    anew = train(persons, model, tmp_path / 'anew', None)
    print('fine-tuned', tuned)
    print('from scratch', anew)
    # On the photographs that were trained on, and on the others. So short a
    # training leaves the AP of both below 0.01, where it tells nothing.
    assert tuned['loss'] < 0.85 * anew['loss']
    assert tuned['val_loss'] < 0.98 * anew['val_loss']
