"""Data that people bring, from tests/data/bad_inputs/data.json.

Each case changes a small dataset that is in order: its annotation files
(``train``, ``val``: operations), their text (``raw``), its images (``images``)
or the config (``config``). ``NaN`` and the like are written as texts that
begin with ``float:``.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from PIL import Image

import project  # noqa: F401  registers the datasets
from project.preflight import check_data
from project.preflight.config_tree import leaf_datasets
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from tests.helpers.configs import ROOT

CASES = json.loads((ROOT / 'tests/data/bad_inputs/data.json').read_text())
CLASSES = ('cat', 'dog')
WIDTH, HEIGHT = 48, 32
NUM_IMAGES, BOXES_EACH = 4, 5


def annotations(split: str) -> dict:
    """What the dataset says before anything is changed."""
    images = [
        dict(id=i, file_name=f'{split}{i}.jpg', width=WIDTH, height=HEIGHT)
        for i in range(1, NUM_IMAGES + 1)
    ]
    boxes = [
        dict(
            id=(image['id'] - 1) * BOXES_EACH + j + 1,
            image_id=image['id'],
            category_id=7 if j % 2 else 3,
            bbox=[4 * j, 3 * j, 10 + j, 12],
            area=12 * (10 + j),
            iscrowd=0,
            segmentation=[[4 * j, 3 * j, 4 * j + 9, 3 * j, 4 * j, 3 * j + 9]],
        )
        for image in images
        for j in range(BOXES_EACH)
    ]
    categories = [dict(id=3, name='cat'), dict(id=7, name='dog')]
    return dict(images=images, annotations=boxes, categories=categories)


@pytest.fixture(scope='module')
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('original')
    random = np.random.default_rng(0)
    for split in ('train', 'val'):
        (root / split).mkdir()
        (root / f'{split}.json').write_text(json.dumps(annotations(split)))
        for i in range(1, NUM_IMAGES + 1):
            pixels = random.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            cv2.imwrite(str(root / split / f'{split}{i}.jpg'), pixels)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / 'data')


@pytest.fixture
def warnings() -> list[str]:
    """What the checks warn of."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Keep(logging.WARNING)
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def plain(value: Any) -> Any:
    """Read ``float:nan`` and what it lies in."""
    if isinstance(value, str) and value.startswith('float:'):
        return float(value.removeprefix('float:'))
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value


def places(content: Any, path: list[str]) -> list[tuple[Any, Any]]:
    """Containers and keys that a path such as ``images.*.id`` names."""
    first, *rest = path
    if isinstance(content, list):
        keys = range(len(content)) if first == '*' else [int(first)]
    else:
        keys = [first]
    if not rest:
        return [(content, key) for key in keys]
    return [place for key in keys for place in places(content[key], rest)]


def change(path: Path, operations: list) -> None:
    """Apply ``[action, place, value]`` to a json file."""
    content = json.loads(path.read_text())
    for action, place, *value in operations:
        for container, key in reversed(places(content, place.split('.'))):
            if action == 'set':
                container[key] = plain(value[0])
            elif action == 'scale':
                old = np.asarray(container[key], float)
                container[key] = (old * value[0]).tolist()
            elif action == 'text':
                container[key] = str(container[key])
            elif action == 'append':
                container[key].append(plain(value[0]))
            elif action == 'keep':
                container[key] = container[key][: value[0]]
            else:
                assert action == 'pop'
                container.pop(key)
    path.write_text(json.dumps(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def turn(path: Path) -> None:
    """Have EXIF data ask for a rotation by 90 degrees."""
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


def enlarge(path: Path) -> None:
    image = Image.open(path)
    image.resize((2 * WIDTH, 2 * HEIGHT)).save(path)


def claim_size(path: Path) -> None:
    """A picture of 40,000 x 40,000 pixels as its header says."""
    path.write_bytes(b'P6 40000 40000 255\n' + b'0' * 100)


def claim_length(path: Path) -> None:
    path.write_bytes(b'P6 2000000 2 255\n' + b'0' * 100)


IMAGE_CHANGES: dict[str, Callable[[Path], Any]] = dict(
    delete=Path.unlink,
    empty=lambda path: path.write_bytes(b''),
    text=lambda path: path.write_text('no image'),
    cut=cut,
    turn=turn,
    enlarge=enlarge,
    claim_size=claim_size,
    claim_length=claim_length,
)


def make(root: Path, given: dict) -> Config:
    """Apply a case; return its config."""
    for split in ('train', 'val'):
        change(root / f'{split}.json', given.get(split, []))
    for name, text in given.get('raw', {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in given.get('delete', []):
        (root / name).unlink()
    for action, name in given.get('images', []):
        IMAGE_CHANGES[action](root / name)

    def loader(split: str) -> dict:
        dataset = dict(
            type='CocoDataset',
            data_root=str(root),
            ann_file=f'{split}.json',
            data_prefix=dict(img=f'{split}/'),
            pipeline=[dict(type='LoadImageFromFile')],
            test_mode=split != 'train',
        )
        return dict(dataset=dataset)

    cfg = Config(
        dict(
            data_root=str(root),
            classes=CLASSES,
            model=dict(),
            train_dataloader=loader('train'),
            val_dataloader=loader('val'),
            val_evaluator=dict(type='CocoMetric', ann_file=f'{root}/val.json'),
        )
    )
    options = json.loads(
        json.dumps(given.get('config', {})).replace('ROOT', str(root))
    )
    cfg.merge_from_dict(options)
    return resolve_config(cfg)


@pytest.mark.parametrize('case', CASES, ids=lambda case: case['id'])
def test_case(case: dict, root: Path, warnings: list[str]) -> None:
    given = case['input']
    splits = given.get('splits', ['train', 'val'])
    try:
        check_data(make(root, given), splits)
    except UserError as error:
        told, outcome = [str(error)], 'error'
    else:
        told, outcome = warnings, 'warning' if warnings else 'works'
    assert outcome == case['outcome'], told
    assert all('\n' not in sentence for sentence in told)
    for word in case['words']:
        assert word in ' '.join(told)
    if outcome != 'error' and 'loader' not in case['id']:
        load(make(root, {**given, 'train': [], 'val': [], 'images': []}))


def load(cfg: Config) -> None:
    """What is not refused can be loaded."""
    init_default_scope('mmdet')
    for split in ('train', 'val'):
        for _, config in leaf_datasets(cfg, split):
            if config.type in ('CocoDataset', 'Objects365V2Dataset'):
                dataset = DATASETS.build(dict(config, serialize_data=False))
                assert len(dataset)
                assert dataset[0]['img'].ndim == 3
