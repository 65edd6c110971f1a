# Copyright (c) mmdetr authors. All rights reserved.
"""The report on the environment says what is amiss and what to do."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from project.env import format_report, inspect_attention, main
from project.ops import BACKENDS, attention_backend
from project.utils.environment import (
    STACKS,
    Finding,
    can_register,
    inspect_environment,
    installed_stack,
)
from tests.helpers.accelerators import pretend_accelerators

ROOT = Path(__file__).parents[1]
NO_SITE_PACKAGES = '-S'
# Of mmengine, mmcv and mmdet as installed here, and their ranges.
RANGES = STACKS[installed_stack()]
MMENGINE, MMCV, MMDET = (line.partition('>=')[0] for line in RANGES)


def run_python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True
    )


@pytest.fixture
def pretend_versions(monkeypatch):
    """Let distributions have other versions, or None for not installed."""
    real = metadata.version

    def pretend(**versions: str | None) -> None:
        changed = {name.replace('_', '-'): v for name, v in versions.items()}

        def version(name: str) -> str:
            found = changed[name] if name in changed else real(name)
            if found is None:
                raise metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(metadata, 'version', version)

    return pretend


@pytest.fixture
def break_import(monkeypatch):
    """Let a module fail to import."""

    def break_it(name: str) -> None:
        monkeypatch.setitem(sys.modules, name, None)

    return break_it


def fatal_problems() -> list[str]:
    return [f.problem for f in inspect_environment() if f.is_fatal]


def test_reports_a_working_environment():
    result = run_python('-m', 'project.env')

    assert result.returncode == 0, result.stdout + result.stderr
    assert 'error: ' not in result.stdout
    assert result.stdout.endswith('Ready to run.\n')
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ['torch', torch.__version__] in lines
    assert [MMCV, metadata.version(MMCV)] in lines
    assert len(lines) <= 24, 'more than one screen'


def test_reports_where_nothing_is_installed():
    result = run_python(NO_SITE_PACKAGES, '-m', 'project.env')

    assert result.returncode == 1
    assert result.stderr == ''
    for name in ('torch', 'mmdet', 'mmcv', 'numpy', 'scipy'):
        assert f'error: {name} is not installed: run ' in result.stdout


def test_import_without_mmdet_says_what_to_do():
    result = run_python(NO_SITE_PACKAGES, '-c', 'import project')

    last = result.stderr.splitlines()[-1]
    assert re.match(r'ImportError: \w+ is not installed: run pip', last)
    assert 'python -m project.env' in last


@pytest.mark.parametrize(
    ('name', 'version', 'sentence'),
    [
        ('setuptools', '82.0.0', 'setuptools<82 is needed, not 82.0.0: run'),
        (MMCV, '2.9.0', f'{RANGES[1]} is needed, not 2.9.0: run make setup'),
        (MMDET, '3.2.0', f'is needed, not 3.2.0: run pip install "{MMDET}'),
        ('torch', '1.13.1', 'is needed, not 1.13.1: run pip install "torch'),
        ('numpy', None, 'numpy is not installed: run pip install "numpy'),
        (MMCV, None, f'{MMCV} is not installed: run make setup'),
    ],
)
def test_names_a_version_out_of_range(
    pretend_versions, name, version, sentence
):
    pretend_versions(**{name: version})
    problems = fatal_problems()
    assert len(problems) == 1
    assert sentence in problems[0]


@pytest.mark.parametrize(
    ('module', 'remedy'),
    [
        ('cv2', 'pip install opencv-python-headless, which needs no libGL'),
        ('mmcv.ops', '--no-build-isolation --no-cache-dir'),
        ('pycocotools.mask', 'reinstall pycocotools for this numpy'),
        ('mmdet', 'reinstall mmdet'),
    ],
)
def test_names_a_library_that_does_not_import(break_import, module, remedy):
    break_import(module)
    problems = fatal_problems()
    assert len(problems) == 1
    assert problems[0].startswith(f'import {module} fails (ModuleNotFound')
    assert remedy in problems[0]


def test_torchvision_of_another_torch_is_fatal(pretend_versions, break_import):
    break_import('torchvision')
    pretend_versions(torchvision=None)
    assert fatal_problems() == []

    pretend_versions(torchvision='0.28.0')
    (problem,) = fatal_problems()
    assert 'import torchvision fails' in problem
    assert 'uninstall torchvision' in problem


def test_gpu_without_ops_for_it_is_told(monkeypatch):
    monkeypatch.setattr(
        'mmcv.ops.get_compiling_cuda_version', lambda: 'not available'
    )
    pretend_accelerators(monkeypatch, 'cuda', 'H200', 'H200')

    findings = {finding.name: finding for finding in inspect_environment()}

    assert findings['device'].value.endswith('2 x H200')
    assert not findings['mmcv.ops'].is_fatal
    assert 'FORCE_CUDA=1' in findings['mmcv.ops'].problem


@pytest.mark.parametrize('stack', STACKS)
def test_either_stack_is_taken(pretend_versions, stack):
    other = next(name for name in STACKS if name != stack)
    versions = dict.fromkeys(map(distribution, STACKS[other]))
    for line in STACKS[stack]:
        versions[distribution(line)] = line.partition('>=')[2].split(',')[0]
    pretend_versions(**versions)
    assert installed_stack() == stack
    assert fatal_problems() == []

    versions[distribution(STACKS[stack][1])] = None
    pretend_versions(**versions)
    (problem,) = fatal_problems()
    assert ('STACK=onedl' in problem) == (stack == 'onedl')


def distribution(requirement: str) -> str:
    return requirement.partition('>=')[0]


def test_two_stacks_over_each_other_are_fatal(pretend_versions):
    versions = {
        distribution(line): line.partition('>=')[2].split(',')[0]
        for ranges in STACKS.values()
        for line in ranges
    }
    pretend_versions(**versions)
    problems = fatal_problems()
    assert len(problems) == 3
    assert 'run pip uninstall -y mmdet onedl-mmdetection, then' in problems[2]


def test_two_opencvs_are_a_note(pretend_versions):
    pretend_versions(opencv_python='5.0', opencv_python_headless='5.0')
    findings = {finding.name: finding for finding in inspect_environment()}
    assert 'write over each other' in findings['opencv'].problem
    assert not findings['opencv'].is_fatal


def test_missing_compiler_is_part_of_the_remedy(pretend_versions, monkeypatch):
    pretend_versions(**{MMCV: None})
    monkeypatch.setenv('CXX', 'no-such-compiler')
    assert 'apt install g++' in fatal_problems()[0]


def test_import_of_a_broken_mmcv_is_one_sentence(break_import):
    break_import('mmcv._ext')
    break_import('mmcv.ops')
    with pytest.raises(ImportError, match=r'import mmcv\.ops fails .*: run'):
        can_register()


def test_says_how_attention_is_computed(monkeypatch):
    monkeypatch.setitem(BACKENDS['cpp'].obstacles, 'cpu', '')
    found = inspect_attention()
    assert found.value.startswith('cpp; not mmcv: ')
    assert not found.problem

    monkeypatch.setitem(BACKENDS['cpp'].obstacles, 'cpu', 'not compiled')
    found = inspect_attention()
    assert '; not cpp: not compiled; ' in found.value
    assert 'run python -m project.ops' in found.problem
    assert not found.is_fatal

    with attention_backend('mmcv'):
        found = inspect_attention()
    assert found.is_fatal
    assert 'does not serve on cpu' in found.problem


def test_exit_status_is_1_only_for_errors(monkeypatch, capsys):
    note = Finding('opencv', 'two', 'Two of them.')
    error = Finding('torch', 'missing', 'No torch.', is_fatal=True)
    monkeypatch.setattr('project.env.inspect_environment', lambda: [note])
    assert main() == 0
    assert 'note: Two of them.\nReady to run.' in capsys.readouterr().out

    report = format_report([note, error])
    assert 'error: No torch.' in report
    assert 'Ready' not in report
    monkeypatch.setattr('project.env.inspect_environment', lambda: [error])
    assert main() == 1


def test_other_words_than_help_are_refused(capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['--nonsense'])
    assert 'unrecognized arguments: --nonsense' in capsys.readouterr().err
