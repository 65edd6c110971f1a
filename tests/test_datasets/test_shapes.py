# Copyright (c) mmdetr authors. All rights reserved.
"""The shapes dataset: same bytes, true annotations, safe writing."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from project.datasets.shapes import MARKER, ShapesSpec, make_shapes
from project.datasets.shapes_scene import (
    MIN_VISIBLE_PIXELS,
    SHAPE_CLASSES,
    draw_scene,
)
from project.utils.errors import UserError

SPEC = ShapesSpec(train=40, val=8, size=96, seed=3)


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 40 + 8 images of 96 pixels."""
    folder = tmp_path_factory.mktemp('shapes') / 'data'
    assert make_shapes(folder, SPEC)
    return folder


@pytest.fixture(scope='module')
def coco(root: Path) -> COCO:
    """The training annotations, read by pycocotools."""
    return COCO(root / 'annotations' / 'train.json')


def _contents(folder: Path) -> dict[str, bytes]:
    """Bytes of every file below a folder, by its path there."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def _overlap(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two boxes (x, y, w, h) have common pixels."""
    low = np.maximum(first[:2], second[:2])
    high = np.minimum(first[:2] + first[2:], second[:2] + second[2:])
    return bool((high > low).all())


def test_same_spec_gives_same_bytes(root: Path, tmp_path: Path) -> None:
    make_shapes(tmp_path / 'again', SPEC)

    files = _contents(root)
    assert len(files) == 40 + 8 + 3
    assert _contents(tmp_path / 'again') == files


def test_seed_and_split_change_the_images(root: Path, tmp_path: Path) -> None:
    other = ShapesSpec(train=1, val=1, size=96, seed=4)
    make_shapes(tmp_path / 'other', other)

    name = '000001.png'
    images = [
        (folder / split / name).read_bytes()
        for folder in (root, tmp_path / 'other')
        for split in ('train', 'val')
    ]
    assert len(set(images)) == 4


def test_images_do_not_depend_on_their_number(
    root: Path, tmp_path: Path
) -> None:
    make_shapes(tmp_path / 'few', ShapesSpec(train=2, val=1, size=96, seed=3))

    for path in (tmp_path / 'few' / 'train').iterdir():
        assert path.read_bytes() == (root / 'train' / path.name).read_bytes()


def test_pixels_are_pinned() -> None:
    """A change of these digests needs a new version of the generator."""
    digest = hashlib.sha256()
    for index in range(20):
        scene = draw_scene(160, [0, 0, index])
        digest.update(scene.image.tobytes())
        for mask in scene.masks:
            digest.update(np.packbits(mask).tobytes())
    assert digest.hexdigest() == (
        'd4452c1463e92cc7c5ce9b91ed2ab94b4785024ddc1b35bce1114597c3306b78'
    )


def test_images_have_the_size_that_is_said(root: Path, coco: COCO) -> None:
    shapes = set()
    for image in coco.loadImgs(coco.getImgIds()):
        pixels = cv2.imread(str(root / 'train' / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3)
        shapes.add(pixels.shape[:2])
    assert shapes == {(96, 96), (96, 72), (72, 96)}


def test_png_holds_the_drawn_pixels(root: Path) -> None:
    pixels = cv2.imread(str(root / 'val' / '000003.png'))
    scene = draw_scene(96, [3, 1, 2])
    np.testing.assert_array_equal(pixels[..., ::-1], scene.image)


def test_boxes_and_areas_follow_from_the_masks(coco: COCO) -> None:
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation)
        image = coco.imgs[annotation['image_id']]
        assert mask.shape == (image['height'], image['width'])
        rows, columns = np.nonzero(mask)
        left, top = columns.min(), rows.min()
        width = columns.max() + 1 - left
        height = rows.max() + 1 - top
        assert annotation['bbox'] == [left, top, width, height]
        assert annotation['area'] == len(rows) >= MIN_VISIBLE_PIXELS
        assert annotation['iscrowd'] == 0


def test_masks_show_only_what_is_visible(coco: COCO) -> None:
    num_overlaps = 0
    for image_id in coco.getImgIds():
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        masks = [coco.annToMask(a) for a in annotations]
        if masks:
            assert np.sum(masks, axis=0).max() == 1
        boxes = [np.array(a['bbox']) for a in annotations]
        num_overlaps += sum(
            _overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]
        )
    assert num_overlaps > 10


def test_no_mask_reaches_into_another_object() -> None:
    """The pixels well inside a mask have the one colour of its object.

    But for few: the tip of a star in front may cover less than half a pixel.
    """
    spread = []
    for index in range(40):
        scene = draw_scene(160, [0, 0, index])
        for mask in scene.masks:
            inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3)))
            if inside.any():
                pixels = scene.image[inside.astype(bool)]
                low, high = np.percentile(pixels, (5, 95), axis=0)
                spread.append((high - low).max())
    # Shading changes a channel by 22 at most, noise by 24.
    assert max(spread) <= 2 * (22 + 24)
    assert len(spread) > 100


def test_sizes_reach_from_tiny_to_large_and_all_classes_occur(
    coco: COCO,
) -> None:
    annotations = coco.loadAnns(coco.getAnnIds())
    sides = [max(a['bbox'][2:]) / 96 for a in annotations]
    assert min(sides) < 0.08
    assert max(sides) > 0.5
    assert {a['category_id'] for a in annotations} == set(range(1, 8))
    names = [c['name'] for c in coco.loadCats(coco.getCatIds())]
    assert tuple(names) == SHAPE_CLASSES


def test_some_images_have_no_object(coco: COCO) -> None:
    num_objects = [len(coco.getAnnIds(i)) for i in coco.getImgIds()]
    assert 1 <= num_objects.count(0) <= 8
    assert max(num_objects) >= 6


def test_what_is_there_already_is_not_drawn_again(root: Path) -> None:
    image = root / 'train' / '000001.png'
    before = image.stat().st_mtime_ns
    assert not make_shapes(root, SPEC)
    assert image.stat().st_mtime_ns == before


def test_another_shapes_dataset_is_replaced(tmp_path: Path) -> None:
    make_shapes(tmp_path / 'data', ShapesSpec(train=3, val=1, size=32))
    assert make_shapes(tmp_path / 'data', ShapesSpec(train=1, val=1, size=32))
    assert len(list((tmp_path / 'data' / 'train').iterdir())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ['data']


def test_an_interrupted_run_is_made_good(tmp_path: Path) -> None:
    partial = tmp_path / 'data.partial'
    partial.mkdir()
    (partial / MARKER).write_text('{}')
    (partial / 'train').mkdir()
    assert make_shapes(tmp_path / 'data', ShapesSpec(1, 1, size=32))
    assert [p.name for p in tmp_path.iterdir()] == ['data']


@pytest.mark.parametrize('name', ['notes.txt', MARKER])
def test_a_folder_of_others_is_left_alone(tmp_path: Path, name: str) -> None:
    """Also one of ours that somebody has put something into."""
    folder = tmp_path / 'data'
    folder.mkdir()
    (folder / name).write_text('{}')
    (folder / 'thesis.tex').write_text('years of work')
    with pytest.raises(UserError, match='was not made by the shapes gen'):
        make_shapes(folder, ShapesSpec(1, 1, size=32))
    assert (folder / 'thesis.tex').read_text() == 'years of work'
    assert not (tmp_path / 'data.partial').exists()


@pytest.mark.parametrize(
    'name',
    ['train/mine.jpg', 'val/notes/a.txt', 'annotations/own.json', 'train/1'],
)
def test_a_users_files_among_the_images_are_left_alone(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / 'data'
    make_shapes(folder, ShapesSpec(2, 1, size=32))
    own = folder / name
    own.parent.mkdir(exist_ok=True)
    own.write_text('years of work')
    before = _contents(folder)
    with pytest.raises(
        UserError, match=f'it has {name.removesuffix("/a.txt")}\\)'
    ):
        make_shapes(folder, ShapesSpec(1, 1, size=32))
    assert _contents(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ['data']


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('x')
    with pytest.raises(UserError, match=r'file.* cannot be written: Not a d'):
        make_shapes(tmp_path / 'file' / 'data', ShapesSpec(1, 1, size=32))


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / 'data').write_text('x')
    with pytest.raises(UserError, match='data is in the way'):
        make_shapes(tmp_path / 'data', ShapesSpec(1, 1, size=32))


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / 'data').mkdir()
    assert make_shapes(tmp_path / 'data', ShapesSpec(1, 1, size=32))
    assert json.loads((tmp_path / 'data' / MARKER).read_text())['train'] == 1


@pytest.mark.parametrize(
    ('name', 'value'), [('train', 0), ('val', -1), ('size', 31), ('seed', -1)]
)
def test_values_out_of_range_are_named(name: str, value: int) -> None:
    values = dict(train=1, val=1, size=32, seed=0)
    values[name] = value
    with pytest.raises(
        UserError, match=f'shapes dataset: {name}={value} should'
    ):
        ShapesSpec(**values)
