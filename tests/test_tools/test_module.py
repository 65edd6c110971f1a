"""python -m project: the tools without a checkout."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from project.__main__ import _USES, TOOLS, command, main, usage
from project.utils.errors import UserError
from project.utils.paths import config_names, find_config, tool_path
from tests.helpers.configs import CONFIGS, read_config
from tests.helpers.training import load_tool, tool_env


def test_each_name_is_a_tool():
    for name, path in TOOLS.items():
        assert command([name, 'a', '--b'])[3:] == [
            str(tool_path(path)),
            f'python -m project {name}',
            'a',
            '--b',
        ]
        assert f'  {name} ' in usage()
    assert set(_USES) == {*TOOLS, 'env'}
    assert command(['env'])[1:] == ['-m', 'project.env']
    with pytest.raises(UserError, match='did you mean detect'):
        command(['detct'])


def test_it_becomes_the_tool(monkeypatch):
    started = []
    monkeypatch.setattr(os, 'execv', lambda *given: started.append(given))
    monkeypatch.setenv('PYTHONPATH', 'mine')
    main(['detect', '--help'])
    ((program, arguments),) = started
    assert program == arguments[0] == sys.executable
    assert arguments[3].endswith('detect.py')
    root = str(Path(load_tool('detect').__file__).parents[1])
    assert os.environ['PYTHONPATH'] == f'{root}{os.pathsep}mine'


@pytest.mark.parametrize(
    ('typed', 'usage'),
    [
        ('-m project detect --help', 'python -m project detect [-h]'),
        (f'{tool_path("detect.py")} --help', 'detect.py [-h]'),
        ('-m project launch train', 'python -m project launch train CONFIG'),
        (f'{tool_path("launch.py")} train', './dist_train.sh CONFIG'),
        ('-m project env --help', 'python -m project.env [-h]'),
    ],
)
def test_the_usage_says_what_was_typed(typed, usage, tmp_path):
    result = subprocess.run(
        [sys.executable, *typed.split()],
        capture_output=True,
        text=True,
        env=tool_env(),
        cwd=tmp_path,
    )
    printed = result.stdout + result.stderr
    assert printed.startswith(f'usage: {usage}'), printed


def test_a_tool_has_its_own_folder_to_import_from(tmp_path, monkeypatch):
    """And not the one that the command was typed in."""
    (tmp_path / '_cli.py').write_text('raise SystemExit("of another")')
    for mode in ('', '1'):
        monkeypatch.setenv('PYTHONSAFEPATH', mode)
        command = [sys.executable, '-m', 'project', 'detect', 'nothing', '.']
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=tool_env(),
            cwd=tmp_path,
        )
        assert result.stderr.startswith('Error: The checkpoint nothing')


def test_it_answers_without_importing_mmdet():
    code = (
        'import runpy, sys; sys.argv = ["-m", "--help"]; '
        'sys.orig_argv = ["python", "-m", "project", "--help"]\n'
        'try: runpy.run_module("project", run_name="__main__")\n'
        'except SystemExit as end: print(end.code, "torch" in sys.modules)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        env=tool_env(),
    )
    assert result.stdout.startswith('usage: python -m project TOOL')
    assert result.stdout.splitlines()[-1] == '0 False', result.stderr


def test_configs_are_found_by_name():
    name = 'h_detr/h-detr_r50_8xb2-12e_coco.py'
    stem = Path(name).stem
    for form in (stem, name, f'mmdetr::{name}', f'configs/{name}'):
        assert find_config(form) == CONFIGS / name
    assert name in config_names()
    assert not [x for x in config_names() if x.startswith('_base_')]
    with pytest.raises(UserError, match=r'did you mean .*r50_8xb2-12e_coco'):
        find_config('h-detr_r50_8xb2_12e')


@pytest.mark.parametrize('shown', ['', 'h-detr_r50_8xb2-12e_coco'])
def test_a_reader_of_the_output_may_leave(shown):
    printing = subprocess.Popen(
        [sys.executable, str(tool_path('print_config.py')), *shown.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=tool_env(),
    )
    printing.stdout.close()
    assert printing.stderr.read() == ''
    assert printing.wait() == 128 + signal.SIGPIPE


def test_a_printed_config_stands_alone(tmp_path, capsys):
    load_tool('print_config').main(
        ['h-detr_r50_8xb2-12e_coco', '--cfg-options', 'data_root=mine']
    )
    text = capsys.readouterr().out
    assert '_base_' not in text
    path = tmp_path / 'my_config.py'
    path.write_text(f"{text}\nclasses = ('a', 'b')\n")
    config = Config.fromfile(path)
    shipped = read_config('h_detr/h-detr_r50_8xb2-12e_coco.py')
    assert config.model.encoder == shipped.model.encoder
    assert config.model.bbox_head.num_classes == 2
    dataset = config.train_dataloader.dataset
    assert dataset.data_root == 'mine'
    assert tuple(dataset.metainfo.classes) == ('a', 'b')
