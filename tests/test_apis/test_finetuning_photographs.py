"""Fine-tuning the demo's detector on photographs beats training it anew.

The subset of coco_mini: every object whose box has at least nine percent of
its photograph and is no crowd, all of one class; 122 boxes in 61 photographs
to train on, and 96 in 44 others.
"""

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import RUNNERS

from project.apis.finetuning.preparation import Request, prepare
from tests.helpers.configs import ROOT, SHARED
from tests.helpers.training import load_tool

COCO_MINI = SHARED / 'data' / 'coco_mini'
EPOCHS = 40

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not COCO_MINI.is_dir(), reason='needs ../shared/data/coco_mini'
    ),
]


@pytest.fixture
def demo_checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What `make demo` leaves; without one at hand, it is trained."""
    given = request.config.getoption('--demo-checkpoint')
    if given:
        return given
    work_dir = tmp_path / 'demo'
    paths = ['--work-dir', work_dir, '--data-root', tmp_path / 'shapes']
    subprocess.run(
        [sys.executable, ROOT / 'tools/demo.py', *paths], check=True
    )
    return Path((work_dir / 'last_checkpoint').read_text().strip())


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


def train(data: Path, work_dir: Path, start: Path | None) -> dict[str, float]:
    """Train the demo's detector as tools/finetune.py does.

    Returns:
        dict[str, float]: AP and AP50 of the photographs that were trained on,
        and those of the others as ``other AP`` and ``other AP50``.
    """
    checkpoint = None if start is None else str(start)
    model = str(ROOT / load_tool('demo').CONFIG)
    request = Request(
        str(data), model, checkpoint, epochs=EPOCHS, batch_size=4
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


def test_it_beats_the_same_budget_from_scratch(
    demo_checkpoint: Path, tmp_path: Path
) -> None:
    photographs = tmp_path / 'photographs'
    write_large_objects(photographs)
    tuned = train(photographs, tmp_path / 'tuned', demo_checkpoint)
    anew = train(photographs, tmp_path / 'anew', None)
    print('fine-tuned', tuned)
    print('from scratch', anew)
    assert tuned['AP50'] > 0.5  # it has learned them
    assert tuned['AP'] > anew['AP']
    assert tuned['other AP50'] > anew['other AP50']
