"""Detection in many images: nothing is lost, nothing is there twice."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset

from project.apis.bulk.exports import category_ids, check_formats
from project.apis.bulk.job import Job, begin_job
from project.apis.bulk.run import Options, detect_portions
from project.apis.bulk.sources import find_items
from project.apis.bulk.whole import finish, labels_of
from project.datasets.shapes_scene import SHAPE_CLASSES
from project.utils.errors import UserError

OPTIONS = Options(score_thr=0.85, num_workers=0, draw=False)
NUM_IMAGES = 110


@pytest.fixture
def links(toy_data, tmp_path) -> Path:
    """Many names of few images, one of them broken."""
    folder = tmp_path / 'links'
    folder.mkdir()
    images = sorted((toy_data / 'train').iterdir())
    for number in range(NUM_IMAGES - 1):
        target = images[number % len(images)]
        (folder / f'{number:04}.png').symlink_to(target)
    (folder / '0042x.png').write_text('broken')
    return folder


def begin(out: Path, links: Path, **options) -> Job:
    begin_job(out, {}, find_items([str(links)]), **options)
    return Job(out)


def lines(job: Job) -> list[str]:
    return [json.dumps(result) for result in job.results()]


def in_process(work: Callable[[], None]) -> int:
    """Do something in a process that can be killed."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def test_ten_kills_lose_nothing(detector, links, tmp_path):
    whole = begin(tmp_path / 'whole', links)
    detect_portions(detector, whole, whole.missing(), OPTIONS)
    assert whole.num_portions == 2

    job = begin(tmp_path / 'killed', links, portion_size=7)
    draw, kills, rounds = random.Random(0), 0, 0
    while job.missing():
        number = draw.choice([1, 2, 3])
        rounds += 1
        assert rounds < 60
        processes = [
            in_process(
                lambda rank=rank, number=number: detect_portions(
                    detector, job, job.missing(rank, number), OPTIONS
                )
            )
            for rank in range(number)
        ]
        if kills < 10:
            wanted = job.num_done() + draw.randint(0, 8)
            while job.num_done() < wanted and len(job.missing()) > 1:
                time.sleep(0.002)
            for pid in processes:
                os.kill(pid, signal.SIGKILL)
            kills += 1
        for pid in processes:
            os.waitpid(pid, 0)
    assert kills == 10
    assert lines(job) == lines(whole)
    summary = finish(job, ['csv'], detector.classes, 1)
    assert summary.images == [NUM_IMAGES - 1]
    assert summary.broken == [[str(links / '0042x.png')]]


def test_workers_and_batches_change_nothing(detector, links, tmp_path):
    results = []
    for name, options in (
        ('one', OPTIONS),
        ('many', Options(score_thr=0.85, num_workers=2, draw=False)),
    ):
        job = begin(tmp_path / name, links)
        detect_portions(detector, job, job.missing(), options)
        results.append(lines(job))
    assert results[0] == results[1]
    paths = [json.loads(line)['path'] for line in results[0]]
    assert paths == sorted(map(str, links.iterdir()))


def test_a_list_that_was_written_stays(detector, links, tmp_path):
    job = begin(tmp_path / 'out', links)
    (links / 'more.png').symlink_to(links / '0001.png')
    assert begin(tmp_path / 'out', links).num_images == job.num_images
    begin_job(tmp_path / 'out', {}, find_items([str(links)]), overwrite=True)
    assert Job(tmp_path / 'out').num_images == job.num_images + 1


def test_files_of_others_are_not_touched(links, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'thesis.tex').touch()
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r'such as thesis\.tex'):
            begin(out, links, overwrite=overwrite)
    assert [x.name for x in out.iterdir()] == ['thesis.tex']


def test_results_of_another_command_are_not_mixed(links, tmp_path):
    items = list(find_items([str(links)]))
    begin_job(tmp_path / 'out', dict(score_thr=0.1), items)
    words = r'had score_thr 0.1 \(now 0.2\); .*--overwrite'
    with pytest.raises(UserError, match=words):
        begin_job(tmp_path / 'out', dict(score_thr=0.2), items)
    begin_job(tmp_path / 'out', dict(score_thr=0.2), items, overwrite=True)
    assert Job(tmp_path / 'out').description == dict(score_thr=0.2)


def test_processes_get_portions_of_their_own(links, tmp_path):
    job = begin(tmp_path / 'out', links, num_processes=4)
    assert job.num_portions >= 16
    shares = [job.missing(rank, 4) for rank in range(4)]
    assert sorted(chain(*shares)) == list(range(job.num_portions))
    found = [job.image(i).name for p in shares[1] for i in job.images_of(p)]
    assert 0 < len(found) < NUM_IMAGES / 2


def test_categories_are_numbered_as_coco_does():
    assert category_ids(['cat', 'dog']) == [1, 2]
    assert category_ids(CocoDataset.METAINFO['classes'])[-1] == 90


def test_unknown_classes_have_likely_names():
    assert labels_of(['star'], SHAPE_CLASSES) == [SHAPE_CLASSES.index('star')]
    with pytest.raises(UserError, match=r"'strar': did you mean star"):
        labels_of(['ring', 'strar'], SHAPE_CLASSES)


def test_parquet_needs_pyarrow(monkeypatch):
    monkeypatch.setattr(
        'project.apis.bulk.exports.find_spec', lambda name: None
    )
    check_formats(['csv', 'coco'])
    with pytest.raises(UserError, match='pip install pyarrow'):
        check_formats(['csv', 'parquet'])
