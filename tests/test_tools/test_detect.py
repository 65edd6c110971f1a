"""tools/detect.py and dist_detect.sh: what they read and what they write."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from project.apis import load_detector
from tests.helpers.trained import write_trained
from tests.helpers.training import assert_one_sentence, load_tool, run_tool

detect = load_tool('detect')


@pytest.fixture(scope='module')
def checkpoint(toy_data: Path, tmp_path_factory: Any) -> str:
    path = tmp_path_factory.mktemp('trained') / 'epoch_1.pth'
    write_trained(path, toy_data)
    return str(path)


@pytest.fixture
def run(checkpoint: str, tmp_path: Path, monkeypatch: Any) -> Any:
    """Runs the tool in an empty folder; gives the exit status."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> int:
        options = [*map(str, arguments), '--device', 'cpu']
        with pytest.raises(SystemExit) as end:
            detect.main([checkpoint, *options])
        return end.value.code

    return run


def shard_lines(out: Path = Path('detections')) -> list[dict]:
    return [
        json.loads(line)
        for path in sorted(out.rglob('*.jsonl'))
        if path.name != 'images.jsonl'
        for line in path.read_text().splitlines()
    ]


def test_everything_is_written(
    run: Any, toy_data: Path, checkpoint: str, capsys: Any
) -> None:
    images = sorted((toy_data / 'val').iterdir())
    assert run(toy_data / 'val', '--score-thr', '0.8') == 0
    told = capsys.readouterr().out
    assert f'{toy_data}/val: images 5, detections ' in told
    assert 'detections/detections.csv' in told.splitlines()[-1]

    detector = load_detector(checkpoint, device='cpu')
    found = [detector(str(path), score_thr=0.8) for path in images]
    for line, each in zip(shard_lines(), found, strict=True):
        np.testing.assert_allclose(line['boxes'], each.boxes, atol=1e-3)
        np.testing.assert_allclose(line['scores'], each.scores, atol=1e-6)
        assert line['names'] == list(each.names)

    with open('detections/detections.csv') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(map(len, found)) > 5
    assert rows[0]['image'] == images[0].name
    assert float(rows[0]['score']) == pytest.approx(found[0].scores[0], 1e-4)

    coco = COCO('detections/detections.json')
    assert len(coco.anns) == len(rows)
    first = coco.imgToAnns[1][0]
    x, y, width, height = first['bbox']
    corners = [x, y, x + width, y + height]
    np.testing.assert_allclose(corners, found[0].boxes[0], atol=0.01)
    assert coco.cats[first['category_id']]['name'] == found[0].names[0]

    picture = cv2.imread(f'detections/pictures/{images[0].name}')
    assert picture.shape == cv2.imread(str(images[0])).shape
    assert (picture != cv2.imread(str(images[0]))).any()


def test_parquet_has_the_rows_of_csv(run: Any, toy_data: Path) -> None:
    parquet = pytest.importorskip('pyarrow.parquet')
    assert run(toy_data / 'val', '--write', 'csv', 'parquet') == 0
    table = parquet.read_table('detections/detections.parquet').to_pylist()
    with open('detections/detections.csv') as file:
        rows = list(csv.DictReader(file))
    assert [row['name'] for row in table] == [row['name'] for row in rows]
    assert table[0]['x1'] == pytest.approx(float(rows[0]['x1']))


def test_broken_files_are_named_and_counted(
    run: Any, toy_data: Path, tmp_path: Path, capsys: Any
) -> None:
    good = next((toy_data / 'val').iterdir())
    (tmp_path / 'broken.jpg').write_text('broken')
    (tmp_path / 'empty.jpg').touch()
    files = (good, 'broken.jpg', 'empty.jpg', 'gone.jpg')
    Path('list.txt').write_text('\n'.join(map(str, files)))
    assert run('list.txt', '--write', 'csv') == detect.SOME_BROKEN
    captured = capsys.readouterr()
    assert 'list.txt: images 1' in captured.out
    assert 'could not be read: 3' in captured.out
    for name, reason in (
        ('broken', 'it is damaged, or no image.'),
        ('empty', 'the file is empty.'),
        ('gone', 'No such file or directory.'),
    ):
        told = f'The image {tmp_path}/{name}.jpg cannot be read: {reason}\n'
        assert told in captured.err
    assert not Path('detections/pictures').exists()
    # The finished job says the same without doing it again.
    assert run('list.txt', '--write', 'csv') == detect.SOME_BROKEN
    captured = capsys.readouterr()
    assert '4 of 4 images were done already' in captured.err
    assert 'Skipped' not in captured.err


def test_no_folder_is_named_that_is_not_there(
    run: Any, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / 'empty.jpg').touch()
    assert run('empty.jpg', '--write', 'pictures') == detect.SOME_BROKEN
    assert capsys.readouterr().out.endswith('Written: detections/shards\n')


def test_classes_and_folders_are_looked_at_first(
    run: Any, toy_data: Path, tmp_path: Path
) -> None:
    images = toy_data / 'val'
    assert "'strar': did you mean star" in run(images, '--classes', 'strar')
    assert 'does not exist' in run('nothing.jpg')
    (tmp_path / 'file').touch()
    assert run(images, '--out', 'file/out') == 2
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'notes.txt').touch()
    assert 'notes.txt; name another' in run(images, '--out', 'mine')
    assert not Path('detections/job.json').exists()

    assert run(images, '--classes', 'circle', 'triangle') == 0
    names = {name for line in shard_lines() for name in line['names']}
    assert names == {'circle', 'triangle'}
    assert '--overwrite' in run(images, '--classes', 'circle')
    assert run(images, '--classes', 'circle', '--overwrite') == 0
    names = {name for line in shard_lines() for name in line['names']}
    assert names == {'circle'}


@pytest.fixture
def video(toy_data: Path, tmp_path: Path) -> Path:
    path = tmp_path / 'in.mp4'
    codec = cv2.VideoWriter.fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(path), codec, 5, (64, 64))
    for image in sorted((toy_data / 'train').iterdir()):
        writer.write(cv2.resize(cv2.imread(str(image)), (64, 64)))
    writer.release()
    return path


@pytest.mark.parametrize('workers', [0, 1])
def test_a_video_is_annotated(run: Any, video: Path, workers: int) -> None:
    assert run(video, '--workers', workers, '--batch-size', 3) == 0
    frames = shard_lines()
    assert [line['frame'] for line in frames] == list(range(8))
    capture = cv2.VideoCapture('detections/pictures/in.mp4')
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 8
    assert capture.get(cv2.CAP_PROP_FPS) == 5
    assert capture.read()[1].shape == (64, 64, 3)
    coco = json.loads(Path('detections/detections.json').read_text())
    assert coco['images'][2]['file_name'] == 'in.mp4#2'


def test_a_broken_video(run: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / 'broken.avi').write_text('broken')
    assert run('broken.avi') == detect.SOME_BROKEN
    assert 'broken.avi cannot be read: it gives' in capsys.readouterr().err


def test_a_camera_ends_with_ctrl_c(run: Any, monkeypatch: Any) -> None:
    class Camera:
        count = 0

        def __init__(self, number: int) -> None:
            assert number == 0

        def read(self) -> tuple[bool, np.ndarray]:
            self.count += 1
            if self.count > 3:
                raise KeyboardInterrupt
            return True, np.zeros((32, 32, 3), np.uint8)

        def get(self, key: int) -> float:
            return 0.0

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, 'VideoCapture', Camera)
    assert run('0', '--write', 'csv', 'pictures') == 0
    assert [line['frame'] for line in shard_lines()] == [0, 1, 2]
    assert Path('detections/pictures/camera_0.mp4').stat().st_size


def test_numbers_for_paths_on_standard_input(
    run: Any, toy_data: Path, monkeypatch: Any, capsys: Any
) -> None:
    good = sorted((toy_data / 'val').iterdir())[0]
    monkeypatch.setattr('sys.stdin', io.StringIO(f'{good}\n\ngone.jpg\n'))
    assert run('-', '--score-thr', '0.8') == detect.SOME_BROKEN
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first['image'] == str(good)
    assert len(first['boxes']) == len(first['names']) > 0
    assert min(first['scores']) >= 0.8
    assert second.keys() == {'image', 'error'}
    assert not Path('detections/job.json').exists()
    assert run('-', good) == 2


@pytest.mark.slow
def test_two_processes_share_the_work(
    checkpoint: str, toy_data: Path, tmp_path: Path
) -> None:
    options = ('--out', tmp_path / 'out', '--score-thr', '0.8')
    command = ('dist_detect.sh', checkpoint, toy_data / 'train')
    result = run_tool(*command, '2', *options)
    assert result.returncode == 0, result.stderr
    assert 'train: images 8, detections' in result.stdout
    assert len(shard_lines(tmp_path / 'out')) == 8

    again = run_tool(*command, '1', *options[:2])
    assert_one_sentence(again, 'had score_thr 0.8 (now 0.3)')
