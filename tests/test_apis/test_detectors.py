"""Detectors in three lines, with the numbers of mmdet's own doors."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.dataset import pseudo_collate
from PIL import Image

from project.apis import Detections, Detector, load_detector
from project.datasets.shapes_scene import SHAPE_CLASSES
from project.utils.errors import UserError
from tests.helpers.trained import write_trained


def same(one: Detections, other: Detections) -> None:
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.names == other.names


def test_a_path_gives_boxes_scores_labels_and_names(detector, image):
    found = detector(image, score_thr=0)
    assert len(found) == 20
    assert found.boxes.shape == (20, 4)
    assert (np.diff(found.scores) <= 0).all()
    assert found.names == tuple(SHAPE_CLASSES[i] for i in found.labels)
    assert found.size == (48, 64)
    assert repr(found).startswith(f'Detections({found.names[0]} ')

    likely = detector(image, score_thr=0.8)
    assert 0 < len(likely) < 20
    assert (likely.scores >= 0.8).all()


def test_the_numbers_are_those_of_mmdet(detector, checkpoint, image, toy_data):
    """Of its inferencer, and of its dataset as tools/test.py reads it."""
    found = detector(image, score_thr=0)
    inferencer = DetInferencer(weights=checkpoint, device='cpu')
    told = inferencer(image, pred_score_thr=0)['predictions'][0]
    np.testing.assert_array_equal(found.boxes, np.float32(told['bboxes']))
    np.testing.assert_array_equal(found.scores, np.float32(told['scores']))
    assert found.labels.tolist() == told['labels']

    dataset = detector.test_dataset()
    assert Path(dataset.get_data_info(0)['img_path']) == Path(image)
    data = pseudo_collate([dataset[0]])
    with torch.no_grad():
        tested = detector.model.test_step(data)[0].pred_instances
    np.testing.assert_array_equal(found.boxes, tested.bboxes.numpy())
    np.testing.assert_array_equal(found.scores, tested.scores.numpy())


@pytest.fixture
def pixels(image) -> np.ndarray:
    return cv2.imread(image)[..., ::-1]


def test_images_in_memory_are_rgb(detector, image, pixels):
    found = detector(image)
    chw = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for form in (
        Path(image),
        Image.open(image),
        Image.open(image).convert('RGBA'),
        pixels,
        np.dstack([pixels, pixels[..., 0]]),
        pixels.astype(np.float32) / 255,
        pixels.astype(np.float64) / 255,
        pixels.astype(np.uint16) * 256 + 255,
        pixels.astype(np.int64),
        chw,
        chw / 255,
    ):
        same(detector(form), found)
    same(detector(pixels[..., ::-1], channel_order='bgr'), found)
    as_bgr = detector(pixels[..., ::-1])
    assert not np.array_equal(as_bgr.scores, found.scores)


def test_grey_images(detector, pixels):
    grey = pixels[..., 0]
    found = detector(np.dstack([grey] * 3))
    for form in (
        grey,
        grey[..., None],
        torch.from_numpy(grey.copy()),
        torch.from_numpy(grey.copy())[None],
        Image.fromarray(grey),
        Image.fromarray(grey.astype(np.uint16) << 8),
        Image.fromarray(grey.astype(np.float32) / 255),
    ):
        same(detector(form), found)


def test_a_file_of_16_bits_is_its_array(detector, pixels, tmp_path):
    deep = pixels.astype(np.uint16) * 256 + 200
    path = tmp_path / 'deep.png'
    cv2.imwrite(str(path), deep[..., ::-1])
    same(detector(str(path)), detector(deep))


def test_photographs_are_turned_upright(detector, tmp_path, pixels):
    path = tmp_path / 'turned.png'
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    tall = np.vstack([pixels, pixels])
    Image.fromarray(tall).save(path, exif=exif)
    found = detector(Image.open(path))
    assert found.size == (128, 48)
    same(found, detector(str(path)))


@pytest.mark.parametrize('batch_size', [1, 2, 3])
def test_lists(detector, image, pixels, batch_size):
    found = detector([image, pixels, image], batch_size=batch_size)
    assert len(found) == 3
    for each in found:
        np.testing.assert_allclose(each.boxes, found[0].boxes, atol=1e-3)
    batch = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    same(detector(batch)[0], detector(pixels))
    assert detector([]) == []


@pytest.mark.parametrize(
    ('wrong', 'words'),
    [
        ('no_such.jpg', 'no_such.jpg cannot be read'),
        (7, 'is a int; expected a path'),
        (np.zeros((3, 4, 5), np.uint8), r'the shape \(3, 4, 5\)'),
        (np.zeros((0, 4, 3), np.uint8), 'has no pixels'),
        (np.zeros((4, 4, 3), np.complex64), 'holds complex64'),
        (np.full((4, 4, 3), 200.0), 'numbers from 200 to 200; expected 0 to'),
        (np.full((4, 4, 3), -1), 'numbers from -1 to -1'),
        (np.full((4, 4, 3), np.nan), 'numbers from nan to nan'),
        (torch.zeros(5, 4, 3), 'channels first'),
    ],
)
def test_what_is_no_image(detector, wrong, words):
    with pytest.raises(UserError, match=words):
        detector(wrong)


def test_numbers_out_of_their_range(detector, image):
    with pytest.raises(UserError, match=r'score_thr is 30; .* from 0 to 1'):
        detector(image, score_thr=30)
    with pytest.raises(UserError, match='batch_size is 0'):
        detector([image], batch_size=0)
    with pytest.raises(UserError, match="channel_order is 'gbr'"):
        detector(np.zeros((4, 4, 3), np.uint8), channel_order='gbr')


def test_threads_get_what_one_gets(detector, toy_data):
    images = sorted(map(str, (toy_data / 'train').iterdir())) * 3
    alone = [detector(image) for image in images]
    start = threading.Barrier(4)

    def detect(images: list[str]) -> list[Detections]:
        start.wait()
        return [detector(image) for image in images]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(detect, [images] * 4):
            for one, other in zip(found, alone, strict=True):
                same(one, other)


def test_plot_draws_on_a_copy(detector, image, pixels):
    before = pixels.copy()
    for source in (image, pixels):
        picture = detector(source).plot()
        assert picture.size == (48, 64)
        assert (np.asarray(picture) != before).any()
    np.testing.assert_array_equal(pixels, before)
    none = detector(image, score_thr=1)
    np.testing.assert_array_equal(np.asarray(none.plot()), before)


def test_supervision_gets_the_same(detector, image, monkeypatch):
    monkeypatch.setitem(sys.modules, 'supervision', None)
    with pytest.raises(UserError, match='pip install supervision'):
        detector(image).to_supervision()

    module = SimpleNamespace(Detections=lambda **kwargs: kwargs)
    monkeypatch.setitem(sys.modules, 'supervision', module)
    found = detector(image)
    handed = found.to_supervision()
    assert handed['xyxy'] is found.boxes
    assert handed['data']['class_name'].tolist() == list(found.names)


def test_supervision_takes_the_detections(detector, image):
    supervision = pytest.importorskip('supervision')
    found = detector(image, score_thr=0.8)
    handed = found.to_supervision()
    assert isinstance(handed, supervision.Detections)
    assert len(handed) == len(found) > 0
    assert (handed.confidence == found.scores).all()
    sure = handed[handed.class_id == found.labels[0]]
    assert set(sure['class_name']) == {found.names[0]}
    pixels = np.asarray(Image.open(image).convert('RGB')).copy()
    drawn = supervision.BoxAnnotator().annotate(pixels.copy(), handed)
    assert (drawn != pixels).any()


def test_class_names_that_contradict_the_model(toy_data, tmp_path):
    path = tmp_path / 'names.pth'
    write_trained(path, toy_data, dataset_meta=dict(CLASSES=('a', 'b')))
    with pytest.raises(UserError, match=r'names 2 classes .* has 7'):
        load_detector(path, device='cpu')


def test_weights_of_another_number_of_classes(toy_data, tmp_path):
    path = tmp_path / 'trained.pth'
    config = write_trained(path, toy_data)
    config.merge_from_dict(dict(classes=('cat', 'dog')))
    config.model.test_cfg.max_per_img = 10
    with pytest.raises(UserError, match='for 7 classes and the model has 2'):
        load_detector(path, config, 'cpu')


@pytest.mark.parametrize(
    ('device', 'words'),
    [
        ('gpu', "'gpu' is no device; expected cpu, cuda"),
        ('cuda:99', "'cuda:99' is not there: torch sees"),
    ],
)
def test_a_device_that_is_not_there(checkpoint, device, words):
    with pytest.raises(UserError, match=words):
        load_detector(checkpoint, device=device)


def test_names_come_from_the_training(toy_data, tmp_path):
    path = tmp_path / 'trained.pth'
    names = tuple('abcdefg')
    config = write_trained(path, toy_data, dataset_meta=dict(CLASSES=names))
    assert load_detector(path, config, 'cpu').classes == names
    write_trained(path, toy_data, dataset_meta=None)
    loaded: Detector = load_detector(path, config, 'cpu')
    assert loaded.classes == tuple(SHAPE_CLASSES)
