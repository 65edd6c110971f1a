"""The page to try detectors on: what it shows, and in a real browser."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest

from project.apis import Detector
from project.apis.app import Playground, build_page, named
from project.utils.errors import UserError
from tests.helpers.configs import ROOT
from tests.helpers.training import tool_env


@pytest.fixture(scope='module')
def playground(detector: Detector) -> Playground:
    return Playground(dict(toy=detector))


def test_the_detections_are_those_of_the_detector(
    playground: Playground, detector: Detector, image: str
) -> None:
    picture, rows = playground.detect('toy', image, 0.01)
    expected = detector(image, 0.01)
    assert [row[0] for row in rows] == list(expected.names)
    scores = [row[1] for row in rows]
    np.testing.assert_allclose(scores, expected.scores, atol=6e-4)
    boxes = np.array([row[2:] for row in rows])
    np.testing.assert_allclose(boxes, expected.boxes, atol=0.51)
    np.testing.assert_array_equal(picture, expected.plot())


def test_the_model_runs_once_for_all_thresholds_and_classes(
    playground: Playground, detector: Detector, image: str
) -> None:
    playground.detect('toy', image)
    with mock.patch.object(Detector, 'detect', side_effect=AssertionError):
        _, every = playground.detect('toy', image, 0)
        names = [row[0] for row in every]
        assert len(set(names)) > 1
        _, some = playground.detect('toy', image, 0, [names[0]])
    assert [row[0] for row in some] == [x for x in names if x == names[0]]
    assert playground.detect('toy', image, 1)[1] == []


def test_layers_and_queries(playground: Playground, image: str) -> None:
    last, rows = playground.detect('toy', image, 0.0)
    _, first_rows = playground.detect('toy', image, 0.0, layer=1)
    assert first_rows != rows
    assert playground.detect('toy', image, 0.0, layer=2)[1] == rows
    with pytest.raises(UserError, match='from 1 to 2 for this HDETR'):
        playground.detect('toy', image, layer=3)
    plain, _ = playground.detect('toy', image, 1.0)
    marked, _ = playground.detect('toy', image, 1.0, shows_queries=True)
    assert np.any(np.asarray(plain) != np.asarray(marked))
    assert last.size == marked.size


def test_a_video_and_a_broken_one(
    playground: Playground, image: str, tmp_path: Path
) -> None:
    frame = cv2.imread(image)
    path = str(tmp_path / 'in.avi')
    codec = cv2.VideoWriter.fourcc(*'MJPG')
    writer = cv2.VideoWriter(path, codec, 5, frame.shape[1::-1])
    for _ in range(3):
        writer.write(frame)
    writer.release()
    found = cv2.VideoCapture(playground.annotate('toy', path, 0.0))
    assert found.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    (tmp_path / 'broken.avi').write_bytes(b'nothing')
    with pytest.raises(UserError, match=r'broken\.avi cannot be read'):
        playground.annotate('toy', str(tmp_path / 'broken.avi'))


def test_names() -> None:
    paths = ['a/x.pth', 'b/x.pth', 'c/y.pth']
    assert list(named(paths)) == ['a/x.pth', 'b/x.pth', 'y']


def test_without_gradio(
    playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(UserError, match=r'pip install "mmdetr\[app\]"'):
        build_page(playground)


@pytest.fixture
def address(checkpoint: str) -> Iterator[str]:
    """The page of the tool, as a user starts it."""
    pytest.importorskip('gradio')
    command = [sys.executable, '-u', ROOT / 'tools' / 'app.py', checkpoint]
    process = subprocess.Popen(
        command, env=tool_env(), stdout=subprocess.PIPE, text=True
    )
    try:
        lines = iter(process.stdout.readline, '')
        yield next(
            found[0]
            for line in lines
            if (found := re.search(r'http://\S+', line))
        )
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_in_a_browser(address: str, image: str, tmp_path: Path) -> None:
    api = pytest.importorskip('playwright.sync_api')
    chromium = shutil.which('chromium') or shutil.which('google-chrome')
    if chromium is None:
        pytest.skip('there is no Chromium')
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(b'nothing')
    with api.sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path=chromium, args=['--no-sandbox']
        )
        page = browser.new_page()
        page.set_default_timeout(180_000)  # on a busy machine
        errors = []
        page.on('pageerror', lambda error: errors.append(error))
        page.goto(address)
        upload = page.locator('input[type=file]').first
        upload.wait_for(state='attached')
        upload.set_input_files(image)
        threshold = page.get_by_label('number input for Threshold')
        rows = "document.querySelectorAll('tbody tr').length"
        for value, shown in (('0', f'{rows} > 0'), ('1', f'{rows} == 0')):
            threshold.fill(value)
            threshold.press('Enter')
            page.wait_for_function(shown)
        page.goto(address)
        upload.wait_for(state='attached')
        upload.set_input_files(broken)
        sentence = page.get_by_text(re.compile(r'broken\.jpg cannot be read'))
        sentence.first.wait_for()
        assert errors == []
        browser.close()
