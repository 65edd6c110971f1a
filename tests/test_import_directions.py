# Copyright (c) mmdetr authors. All rights reserved.
"""Who may import whom, read from the source without running it."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each part may import of this project; itself goes without saying. The
# longest name that fits a module is its part. Packages that only gather their
# children (`project`, `project.models`) are no part.
ALLOWED = {
    'project.version': set(),
    'project.utils': {'project.version'},
    'project.__main__': {'project.utils'},
    'project.accelerate': {'project.ops'},
    'project.env': {'project.ops', 'project.utils'},
    'project.ops': {'project.utils'},
    # Models compare what they are given with their own weights.
    'project.models.utils': {
        'project.checkpoints.comparison',
        'project.ops',
        'project.utils',
    },
    'project.models.backbones': {'project.utils'},
    'project.models.data_preprocessors': set(),
    'project.models.necks': {'project.utils'},
    'project.models.layers': {
        'project.models.utils',
        'project.ops',
        'project.utils',
    },
    'project.models.task_modules': {'project.models.utils', 'project.utils'},
    # The losses take the structures that matching returns.
    'project.models.losses': {
        'project.models.task_modules',
        'project.models.utils',
        'project.utils',
    },
    'project.models.dense_heads': {
        'project.models.layers',
        'project.models.losses',
        'project.models.task_modules',
        'project.models.utils',
        'project.utils',
    },
    # Heads come by registry.
    'project.models.detectors': {
        'project.models.layers',
        'project.models.utils',
        'project.utils',
    },
    'project.checkpoints': {'project.utils'},
    'project.datasets': {'project.utils'},
    'project.engine': {
        'project.checkpoints',
        'project.datasets',
        'project.ops',
        'project.preflight',
        'project.utils',
        'project.version',
    },
    'project.evaluation': {'project.utils'},
    'project.preflight': {
        'project.checkpoints',
        'project.datasets',
        'project.evaluation',
        'project.utils',
    },
    'project.visualization': {'project.evaluation', 'project.utils'},
    'project.apis': {'project'},
    'tools': {
        'project.apis',
        'project.checkpoints',
        'project.datasets',
        'project.engine',
        'project.evaluation',
        'project.ops',
        'project.preflight',
        'project.utils',
        'project.visualization',
    },
    # These measure parts of a model one by one.
    'tools.analysis_tools._set_prediction': {'project'},
    'tools.analysis_tools.reference': {'project'},
    # A method of a user's own, which may build on all of it.
    'tools.method_template': {'project'},
    'configs': set(),
}
GATHERING = ('project', 'project.models')


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imported_modules(path: Path, root: Path) -> Iterator[str]:
    """Full names of the modules below ``root`` that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(root).parts[: -node.level or None]
            start = package if node.level else ()
            base = '.'.join([*start, *filter(None, [node.module])])
            names = [f'{base}.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            yield from _as_module(name, root)


def _as_module(name: str, root: Path) -> Iterator[str]:
    """The module that a name is, or is defined in, if it is ours."""
    for candidate in (name, name.rpartition('.')[0]):
        path = root / candidate.replace('.', '/')
        if candidate and (path.is_dir() or path.with_suffix('.py').is_file()):
            yield candidate
            return


def own_files(root: Path) -> Iterator[Path]:
    for top in ('project', 'tools', 'configs'):
        yield from sorted((root / top).rglob('*.py'))


def is_below(module: str, package: str) -> bool:
    return f'{module}.'.startswith(f'{package}.')


def find_violations(root: Path) -> list[str]:
    found = []
    for path in own_files(root):
        module = module_name(path, root)
        if module in GATHERING:
            continue
        parts = [part for part in ALLOWED if is_below(module, part)]
        assert parts, f'{module} belongs to no part: give it one in ALLOWED'
        part = max(parts, key=len)
        found += [
            f'{module} imports {target}'
            for target in imported_modules(path, root)
            if not any(is_below(target, p) for p in {part, *ALLOWED[part]})
        ]
    return found


def find_cycle(root: Path) -> list[str]:
    graph = {
        module_name(path, root): set(imported_modules(path, root))
        for path in own_files(root)
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.fixture
def small_tree(tmp_path):
    """A project of a few files, by path and source."""

    def write(files: dict[str, str]) -> Path:
        for name, source in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return tmp_path

    return write


def test_directions():
    assert find_violations(ROOT) == []


def test_no_cycles():
    assert find_cycle(ROOT) == []


def test_configs_import_nothing():
    """They are read by mmengine without a checkout on the path."""
    sources = (ROOT / 'configs').rglob('*.py')
    importing = [
        path.name
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert importing == []


@pytest.mark.parametrize(
    ('path', 'source', 'found'),
    [
        (
            'project/models/layers/a.py',
            'from ..dense_heads import head',
            'project.models.layers.a imports project.models.dense_heads.head',
        ),
        (
            'project/datasets/a.py',
            'def late():\n    import project.models.layers',
            'project.datasets.a imports project.models.layers',
        ),
        (
            'project/utils/__init__.py',
            'from .. import models',
            'project.utils imports project.models',
        ),
        (
            'tools/train.py',
            'from project.models.layers import Layer',
            'tools.train imports project.models.layers',
        ),
    ],
)
def test_finds_a_wrong_import(small_tree, path, source, found):
    root = small_tree(
        {
            'project/models/dense_heads/head.py': '',
            'project/models/layers/__init__.py': '',
            path: source,
        }
    )
    assert find_violations(root) == [found]


def test_finds_a_cycle(small_tree):
    root = small_tree(
        {
            'project/utils/a.py': 'from project.utils.b import x',
            'project/utils/b.py': 'from . import a',
        }
    )
    assert set(find_cycle(root)) == {'project.utils.a', 'project.utils.b'}
