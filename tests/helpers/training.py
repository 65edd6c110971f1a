"""Trainings of seconds: a tiny shapes dataset, a tiny H-DETR, the tools."""

import importlib.util
import os
import subprocess
import sys
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mmengine.config import Config

from project.datasets.shapes import ShapesSpec, make_shapes
from tests.helpers.configs import ROOT

_CONFIGS = ROOT / 'tests' / 'data' / 'configs'
TOY_CONFIG = _CONFIGS / 'toy_h-detr.py'
WATCHED_CONFIG = _CONFIGS / 'toy_h-detr_watched.py'
"""The toy config with the hooks of ``tests.helpers.hooks``."""
SHAPES_SPEC = ShapesSpec(train=8, val=5, size=64)


@pytest.fixture(scope='session')
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a dataset of 8 training and 5 validation images.

    The odd number of the latter does not divide among two processes.
    """
    root = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes(root, SHAPES_SPEC)
    return root


def toy_config(
    data_root: Path,
    work_dir: Path,
    path: Path = TOY_CONFIG,
    **options: Any,
) -> Config:
    """Read the toy config.

    Args:
        data_root: Where :func:`toy_data` lies.
        work_dir: Where a runner may write.
        path: A variant of the config.
        **options: Further settings, with ``__`` for the dots of their keys.

    Returns:
        Config: The config as ``--cfg-options`` would leave it.
    """
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(
        dict(
            data_root=str(data_root),
            work_dir=str(work_dir),
            # mmengine's global objects would be those of an earlier test.
            experiment_name=uuid.uuid4().hex,
            visualizer=dict(name=uuid.uuid4().hex),
            **{key.replace('__', '.'): val for key, val in options.items()},
        )
    )
    return cfg


def tool_command(script: str | Path, *arguments: str | Path) -> list[str]:
    """How a user starts a script of the repository.

    Args:
        script: Relative to the repository.
        *arguments: What to give it.

    Returns:
        list[str]: The command.
    """
    starter = [sys.executable] if str(script).endswith('.py') else []
    return [*starter, str(ROOT / script), *map(str, arguments)]


def tool_env(**variables: str) -> dict[str, str]:
    """The environment of a tool, which need not be installed.

    Args:
        **variables: Set besides.

    Returns:
        dict[str, str]: The environment.
    """
    paths = [variables.pop('PYTHONPATH', ''), str(ROOT)]
    variables['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
    return {**os.environ, 'OMP_NUM_THREADS': '1', **variables}


def run_tool(
    *command: str | Path,
    env: dict[str, str] | None = None,
    timeout: float = 300,
    **kwargs: Any,
) -> subprocess.CompletedProcess:
    """Run a script of the repository to its end.

    Args:
        *command: As for :func:`tool_command`.
        env: Variables to set besides those of the tests.
        timeout: In seconds.
        **kwargs: For ``subprocess.run``.

    Returns:
        CompletedProcess: With ``stdout`` and ``stderr`` as text.
    """
    return subprocess.run(
        tool_command(*command),
        env=tool_env(**(env or {})),
        capture_output=True,
        text=True,
        timeout=timeout,
        **kwargs,
    )


def assert_one_sentence(
    result: subprocess.CompletedProcess, *words: str
) -> None:
    """Check how a tool ends that found a mistake of the user.

    Args:
        result: The finished tool.
        *words: What its only error message has to contain.
    """
    assert result.returncode == 1, result.stderr
    assert 'Traceback' not in result.stderr + result.stdout
    errors = [
        line
        for line in result.stderr.splitlines()
        if line.startswith('Error: ')
    ]
    assert len(errors) == 1, result.stderr
    for word in words:
        assert word in errors[0]


def load_tool(name: str) -> ModuleType:
    """Import a script of tools/.

    Args:
        name: Of the file, without its ending.

    Returns:
        ModuleType: The script; its ``main`` reads ``sys.argv``.
    """
    path = ROOT / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'tool_{name}', path)
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # as a script finds its neighbours
    spec.loader.exec_module(module)
    return module
