# Copyright (c) mmdetr authors. All rights reserved.
"""What lies at an address becomes a file of this machine, or a sentence."""

import hashlib
import io
import multiprocessing
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.fileio import LocalBackend, register_backend

from project.checkpoints import addresses
from project.checkpoints.addresses import local_file
from project.utils.errors import UserError
from tests.helpers.hostile import send, serving


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloads."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    return tmp_path / 'home' / 'hub' / 'checkpoints'


@pytest.fixture
def serve() -> Iterator[Callable]:
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(serving(answer))


def checkpoint(value: float) -> bytes:
    file = io.BytesIO()
    torch.save(dict(a=torch.tensor(value)), file)
    return file.getvalue()


def sentence(path: str) -> str:
    with pytest.raises(UserError) as caught:
        local_file(path)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_paths_stay(tmp_path: Path) -> None:
    assert local_file('a/b.pth') == Path('a/b.pth')
    assert local_file('~/b.pth') == Path.home() / 'b.pth'
    assert local_file(f'file://{tmp_path}/a%20b.pth') == tmp_path / 'a b.pth'


def test_two_addresses_with_one_file_name_are_two_files(
    serve: Callable, cache: Path
) -> None:
    asked = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        send(request, checkpoint(float(len(asked))))

    server = serve(answer)
    wanted = ['/1/c.pth', '/2/c.pth', '/c.pth?v=1', '/c.pth?v=2', '/1/c.pth']
    files = [local_file(server + path) for path in wanted]
    assert [float(torch.load(file)['a']) for file in files] == [1, 2, 3, 4, 1]
    assert asked == wanted[:4]
    # Nothing unfinished is left.
    left = {file.name for file in cache.iterdir() if file.suffix != '.lock'}
    assert left == {file.name for file in files}


def test_what_torch_hub_has_is_taken_if_its_content_is_that_of_its_name(
    cache: Path,
) -> None:
    """As on the nodes of a cluster, which have no network."""
    content = checkpoint(1.0)
    digits = hashlib.sha256(content).hexdigest()[:8]
    cache.mkdir(parents=True)
    file = cache / f'resnet50-{digits}.pth'
    file.write_bytes(content)
    assert local_file(f'http://127.0.0.1:1/{file.name}') == file
    file.write_bytes(checkpoint(2.0))
    message = sentence(f'http://127.0.0.1:1/{file.name}')
    assert 'Connection refused' in message
    assert f'if {file} is the same file, name that' in message


@pytest.mark.parametrize(
    ('answer', 'words'),
    [
        (lambda request: request.send_error(404), 'Not Found'),
        (lambda request: send(request, b'<html>Sign in'), "with '<html>Sign"),
        (lambda request: send(request, b''), 'it is empty'),
        (lambda request: None, 'Remote end closed connection'),
        (lambda request: cut_off(request), 'broke off after 100 of 200 bytes'),
        (lambda request: send(request, checkpoint(1.0)[:-99]), 'damaged or'),
    ],
)
def test_what_is_no_checkpoint_is_not_kept(
    serve: Callable, cache: Path, answer: Callable, words: str
) -> None:
    url = f'{serve(answer)}/c.pth'
    message = sentence(url)
    assert words in message
    assert url in message
    assert not [file for file in cache.iterdir() if file.suffix != '.lock']


def cut_off(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header('Content-Length', '200')
    request.end_headers()
    request.wfile.write(b'\x80' * 100)


def test_a_server_that_never_answers(
    serve: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, 'TIMEOUT', 0.2)
    message = sentence(serve(lambda request: time.sleep(1)) + '/c.pth')
    assert 'no answer within 0.2 s' in message


def test_a_host_that_cannot_be_reached() -> None:
    message = sentence('https://no.invalid/c.pth')
    assert message.startswith('https://no.invalid/c.pth cannot be downloaded')
    assert 'is no address' in sentence('http://[1/c.pth')


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'file').touch()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'file'))
    assert 'set TORCH_HOME to a folder' in sentence('http://127.0.0.1:1/c.pth')


def fetch(url: str, results: object) -> None:
    results.put(local_file(url).name)


def test_one_of_several_processes_downloads(serve: Callable) -> None:
    asked = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        time.sleep(0.3)
        send(request, checkpoint(1.0))

    context = multiprocessing.get_context('fork')
    results, url = context.Queue(), f'{serve(answer)}/c.pth'
    processes = [
        context.Process(target=fetch, args=(url, results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    names = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(names) == len(asked) == 1


@pytest.mark.parametrize(
    ('address', 'end'),
    [
        (
            'torchvision://resnet50',
            'download.pytorch.org/models/resnet50-0676ba61.pth',
        ),
        (
            'open-mmlab://resnet50_caffe',
            'pretrain/third_party/resnet50_caffe-788b5fa3.pth',
        ),
        (
            'openmmlab://detectron2/resnet50_caffe',
            'pretrain/third_party/resnet50_msra-5891d200.pth',
        ),
        (
            'mmcls://vgg11',
            'mmclassification/v0/vgg/'
            'vgg11_batch256_imagenet_20210208-4271cd6c.pth',
        ),
    ],
)
def test_names_of_mmengine_are_looked_up(
    address: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torchvision, too."""
    monkeypatch.setitem(__import__('sys').modules, 'torchvision', None)
    asked = []

    def answer(request: urllib.request.Request, timeout: float) -> None:
        asked.append(request.full_url)
        raise OSError('it is off')

    monkeypatch.setattr(urllib.request, 'urlopen', answer)
    assert 'it is off' in sentence(address)
    # OpenMMLab and the maintained forks have servers of their own.
    assert asked[0].startswith('https://')
    assert asked[0].endswith(f'/{end}')


def test_unknown_names_come_with_those_alike() -> None:
    message = sentence('torchvision://resnet05')
    assert 'did you mean resnet50 or' in message
    assert 'storage backend' in sentence('nowhere://a/c.pth')
    assert 'storage backend' in sentence('s3://a/c.pth')


def test_other_storage_is_read_through_mmengine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shelf(LocalBackend):
        def get(self, filepath: str) -> bytes:
            return super().get(tmp_path / filepath.partition('://')[2])

    register_backend('shelf', Shelf, prefixes='shelf')
    (tmp_path / 'c.pth').write_bytes(checkpoint(3.0))
    assert torch.load(local_file('shelf://c.pth'))['a'] == 3
    mmengine.fileio.backends.registry_utils.prefix_to_backends.pop('shelf')
