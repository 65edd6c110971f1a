# Copyright (c) mmdetr authors. All rights reserved.
"""The C++ op is compiled once, for this source and this torch."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from project.ops import building

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / 'project' / 'ops' / 'building.py'


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """An empty cache."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(building, 'SHIPPED', tmp_path / 'shipped')
    return tmp_path / 'mmdetr' / 'ops'


@pytest.fixture
def changed_source(monkeypatch, tmp_path) -> Path:
    sources = tmp_path / 'csrc'
    shutil.copytree(building.SOURCES, sources)
    monkeypatch.setattr(building, 'SOURCES', sources)
    with (sources / 'sampling.h').open('a') as file:
        file.write('// changed\n')
    return sources


def test_every_torch_and_every_source_has_a_library_of_its_own(
    changed_source, monkeypatch
):
    changed = building.library_name('2.13.0+cpu')
    assert changed != building.library_name('2.12.0+cpu')
    monkeypatch.undo()
    assert changed != building.library_name('2.13.0+cpu')


def test_a_library_of_another_source_is_not_found(cache, changed_source):
    cache.mkdir(parents=True)
    library = cache / building.library_name('2.13.0')
    library.touch()
    assert building.find_library('2.13.0') == library
    (changed_source / 'sampling.cpp').write_text('// all new')
    assert building.find_library('2.13.0') is None
    assert building.find_library('2.12.0') is None


def test_a_kept_library_is_not_built_again(cache, monkeypatch):
    cache.mkdir(parents=True)
    library = cache / building.library_name(torch.__version__)
    library.touch()
    monkeypatch.setenv('CXX', 'no-such-compiler')
    assert building.ensure_library() == library


def test_without_a_compiler_one_line_says_what_it_costs(tmp_path):
    result = subprocess.run(
        [sys.executable, SCRIPT],
        env={'CXX': 'no-such-compiler', 'XDG_CACHE_HOME': str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert 'no C++ compiler (no-such-compiler): install one' in line
    assert '1.7 times as long' in line


@pytest.mark.skipif(shutil.which('c++') is None, reason='no compiler')
def test_a_source_that_does_not_compile_leaves_nothing(cache, changed_source):
    for name in ('sampling.cpp', 'deformable_attention.cpp'):
        (changed_source / name).write_text('int x = nonsense;')
    with pytest.raises(building.BuildError, match=r'stopped at: .nonsense.'):
        building.ensure_library()
    assert list(cache.iterdir()) == []
