"""What a source may be, and what each file is called among the results."""

import os
from pathlib import Path

import pytest

from project.apis.bulk.sources import (
    Item,
    check_sources,
    find_items,
    is_live,
)
from project.utils.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ('a/2.JPG', 'a/1.png', 'a/b/1.png', 'a/b/v.mp4', 'a/no.json'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(*sources: str) -> list[str]:
    return [item.name for item in find_items(sources)]


def test_a_folder_with_all_below_it(folder):
    items = list(find_items(['a']))
    assert [x.name for x in items] == ['1.png', '2.JPG', 'b/1.png', 'b/v.mp4']
    assert items[2] == Item(0, str(folder / 'a/b/1.png'), 'b/1.png')
    assert items[3].is_video


def test_links_are_followed(folder):
    os.symlink(folder / 'a/1.png', folder / 'a/b/link.png')
    assert 'link.png' in names('a/b')


def test_a_link_into_a_folder_above_ends(folder):
    os.symlink(folder / 'a', folder / 'a/b/loop')
    assert names('a') == ['1.png', '2.JPG', 'b/1.png', 'b/v.mp4']


def test_a_folder_that_may_not_be_read_is_named(folder, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if path.endswith('b'):
            raise PermissionError(13, 'Permission denied', path)
        return scan(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(UserError, match=r'folder a/b cannot be .* denied\.'):
        list(find_items(['a']))


def test_patterns_and_lists(folder):
    assert names('a/*.png') == ['1.png']
    assert names('a/**/*.png') == ['1.png', 'b/1.png']
    lines = ['a/b/1.png', '', 'a/1.png', 'a/b/1.png ', 'gone.jpg']
    Path('list.txt').write_text('\n'.join(lines))
    items = list(find_items(['list.txt']))
    assert [x.name for x in items] == ['a/b/1.png', 'a/1.png', 'gone.jpg']
    assert items[1].path == str(folder / 'a/1.png')


def test_no_two_have_one_name(folder):
    found = names('a', 'a/b', 'a/1.png', 'a/b/1.png', 'a/*.png')
    assert len(set(found)) == len(found) == 9
    assert found[:2] == ['a/1.png', 'a/2.JPG']
    assert 'files/1.png' in found


def test_cameras_and_streams(folder):
    live = list(find_items(['0', 'rtsp://host/live?x=1']))
    assert [x.path for x in live] == ['0', 'rtsp://host/live?x=1']
    assert [x.name for x in live] == ['0/camera_0', 'address/live']
    assert all(is_live(x.path) and x.is_video for x in live)
    (image,) = find_items(['http://host/a.jpg?x=1'])
    assert (image.name, image.is_video) == ('a.jpg', False)
    Path('7').mkdir()
    with pytest.raises(UserError, match='7 holds no image and no video'):
        list(find_items(['7']))


@pytest.mark.parametrize(
    ('source', 'words'),
    [
        ('aa', r'aa does not exist: did you mean a\?'),
        ('no/such/x.jpg', 'does not exist'),
        ('*.gif', 'matches no file'),
        ('a/*.json', 'holds no image'),
        ('empty.txt', 'holds no image'),
    ],
)
def test_what_is_no_source(folder, source, words):
    Path('empty.txt').touch()
    with pytest.raises(UserError, match=words):
        check_sources(['a', source])
