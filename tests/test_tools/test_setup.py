# Copyright (c) mmdetr authors. All rights reserved.
"""The set-up: what it says of a failure, and when it compiles mmcv."""

import dataclasses
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.configs import ROOT

FOLDER = ROOT / 'tools' / 'setup'
WHEEL = 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl'


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# In the order in which they import each other.
commands = load('commands', FOLDER / 'commands.py')
joined_sources = load('joined_sources', FOLDER / 'joined_sources.py')
mmcv_wheel = load('mmcv_wheel', FOLDER / 'mmcv_wheel.py')
setup = load('setup_main', FOLDER / '__main__.py')


@pytest.mark.parametrize(
    ('output', 'cause'),
    [
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError("
            '...)\nERROR: No matching distribution found for torch==2.13.0\n',
            'the package index cannot be reached; look at the network',
        ),
        (
            'ERROR: Could not find a version (from versions: none)\n'
            'ERROR: No matching distribution found for torch==2.13.0\n',
            'out of reach, or has no torch==2.13.0 for this Python',
        ),
        (
            'ERROR: Could not find a version (from versions: 1.0)\n'
            'ERROR: No matching distribution found for ninja==99\n',
            'the index has no ninja==99',
        ),
        (
            'c++: fatal error: Killed signal terminated program cc1plus\n',
            'ran out of memory; MAX_JOBS=1',
        ),
        (
            '  a.cpp:3:10: fatal error: torch/extension.h: No such file\n'
            '  ninja: build stopped: subcommand failed.\n'
            'ERROR: Failed to build mmcv\n',
            'the compiler stopped at: torch/extension.h: No such file',
        ),
        (
            "    ModuleNotFoundError: No module named 'pkg_resources'\n"
            'ERROR: Failed to build mmcv\n',
            "ModuleNotFoundError: No module named 'pkg_resources'",
        ),
        (
            'OSError: [Errno 28] No space left on device\n',
            'the disk is full',
        ),
        ('one\nlast words\n', 'last words'),
        ('', 'no output'),
    ],
)
def test_explains_a_failure(output, cause):
    assert cause in commands.explain_failure(output)


@pytest.mark.parametrize(
    ('line', 'state'),
    [
        ('Progress 95000000 of 191794682', 'downloading, 95 of 192 MB'),
        ('Collecting torch==2.13.0', 'collecting torch==2.13.0'),
        (
            '  Downloading https://host/a/numpy-2.4.6.whl (17 MB)',
            'downloading numpy-2.4.6.whl',
        ),
        ('Installing collected packages: a, b', 'installing'),
        ('Requirement already satisfied: torch', None),
    ],
)
def test_says_what_pip_does(line, state):
    assert setup.describe_pip(line) == state


def test_counts_compiled_files():
    line = '  [3/79] c++ -MMD -c roi_align.cpp -o roi_align.o'
    assert mmcv_wheel.describe_ninja(line) == '3 of 79 files compiled'
    assert mmcv_wheel.describe_ninja('running build_ext') is None


def test_a_failing_command_is_explained_and_logged(tmp_path, capsys):
    log = tmp_path / 'log'
    script = 'print("first"); print("ERROR: no luck"); raise SystemExit(3)'
    with pytest.raises(commands.SetupError, match=r'^a try failed: no luck '):
        commands.run_logged(
            [sys.executable, '-c', script],
            log,
            title='a try',
            describe=lambda line: None,
        )
    assert 'first\nERROR: no luck\n' in log.read_text()
    assert capsys.readouterr().out.rstrip().endswith('failed')


def quick(log: Path, code: str, title: str) -> None:
    commands.run_logged(
        [sys.executable, '-c', code],
        log,
        title=title,
        describe=lambda line: None,
    )


def test_what_goes_on_meanwhile_is_told_afterwards(tmp_path, capsys):
    """Its failure is not: who needs the result tries again."""
    done = tmp_path / 'done'

    def work() -> None:
        quick(tmp_path / 'other.log', f'open({str(done)!r}, "w")', 'other')
        quick(tmp_path / 'other.log', 'exit("no")', 'wrong')

    with commands.meanwhile(work):
        while not done.exists():
            time.sleep(0.01)
        quick(tmp_path / 'log', 'pass', 'main')
    lines = re.findall(r'(\w+) \[.*?\] (\w+)', capsys.readouterr().out)
    assert lines[0] == ('main', 'done')
    assert sorted(lines[1:]) == [('other', 'done'), ('wrong', 'failed')]


@pytest.mark.parametrize('error', [KeyboardInterrupt, commands.SetupError])
def test_what_goes_on_meanwhile_ends_with_an_error(tmp_path, error):
    log = tmp_path / 'log'
    sleep = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'

    def seen() -> str | None:
        found = log.exists() and re.search(r'^\d+$', log.read_text(), re.M)
        return found and found[0]

    def interrupted() -> None:
        with commands.meanwhile(lambda: quick(log, sleep, 'sleeping')):
            while not seen():
                time.sleep(0.01)
            raise error

    with pytest.raises(error):
        interrupted()
    deadline = time.monotonic() + 10
    while Path(f'/proc/{seen()}').exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_command_may_be_silent_or_not_end_its_last_line(tmp_path, capsys):
    log = tmp_path / 'log'
    script = 'import time; time.sleep(1.2); print("end", end="")'
    seen = []
    commands.run_logged(
        [sys.executable, '-c', script],
        log,
        title='a try',
        describe=seen.append,
    )
    assert seen[-1] == 'end'
    assert log.read_text().endswith('end')
    assert capsys.readouterr().out.startswith('  a try [0:01] done')


def write_wheel(folder: Path, *members: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / WHEEL, 'w') as archive:
        for member in members:
            archive.writestr(member, '')
    return folder / WHEEL


def test_tells_a_wheel_without_ops(tmp_path):
    extension = 'mmcv/_ext.cpython-311-x86_64-linux-gnu.so'
    assert mmcv_wheel.has_ops(write_wheel(tmp_path / 'a', extension))
    assert not mmcv_wheel.has_ops(
        write_wheel(tmp_path / 'b', 'mmcv/__init__.py', 'mmcv/ops/_ext.pyi')
    )


CPU = mmcv_wheel.TorchBuild(
    python='cpython-311', torch='2.13.0+cpu', cuda='', archs='', has_nvcc=False
)
CUDA = mmcv_wheel.TorchBuild(
    python='cpython-311',
    torch='2.13.0+cu130',
    cuda='13.0',
    archs='8.0 9.0',
    has_nvcc=True,
)


def test_every_torch_has_wheels_of_its_own():
    builds = [
        CPU,
        CUDA,
        dataclasses.replace(CPU, python='cpython-312'),
        dataclasses.replace(CPU, torch='2.12.0+cpu'),
        dataclasses.replace(CUDA, cuda='', archs=''),
        dataclasses.replace(CUDA, archs='9.0'),
    ]
    keys = {build.key for build in builds}
    assert len(keys) == len(builds)
    assert 'cpython-311-torch2.13.0+cpu-cpu' in keys
    assert not any(set(key) & set(' /;') for key in keys)


def target(**environ: str) -> mmcv_wheel.Target:
    return mmcv_wheel.Target(Path(sys.executable), Path('log'), environ)


class Machine:
    """A machine on which compiling mmcv takes no time.

    Attributes:
        build: What its torch says of itself.
        installed: What the environment's mmcv says of itself.
        joined: What compiling joined files gives, an error or a wheel.
        events: What was done, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.target = mmcv_wheel.Target(
            Path(sys.executable), folder / 'log', {}
        )
        self.build = CPU
        self.installed = 'ModuleNotFoundError'
        self.joined: bytes | Exception = b'2.1.0 cpu'
        self.one_by_one = b'2.1.0 cpu'
        self.events: list[str] = []

    def compile(
        self,
        target: object,
        source: Path,
        build: mmcv_wheel.TorchBuild,
        name: str,
    ) -> Path:
        is_joined = source.name == 'source'
        self.events.append('compile' if is_joined else 'one by one')
        content = self.joined if is_joined else self.one_by_one
        if isinstance(content, Exception):
            raise content
        return self.keep(content, build)

    def install(self, target: object, wheel: Path) -> None:
        self.events.append('install')
        self.installed = wheel.read_bytes().decode()

    def keep(self, content: bytes, build: mmcv_wheel.TorchBuild = CPU) -> Path:
        folder = mmcv_wheel.cache_folder() / build.key
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WHEEL).write_bytes(content)
        return folder / WHEEL

    def kept(self) -> bytes:
        return (mmcv_wheel.cache_folder() / CPU.key / WHEEL).read_bytes()

    def ensure(self) -> list[str]:
        mmcv_wheel.ensure_mmcv(self.target, '2.1.0')
        return self.events


@pytest.fixture
def machine(monkeypatch, tmp_path) -> Machine:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    machine = Machine(tmp_path)
    for name, stand_in in {
        'probe_torch': lambda *args: machine.build,
        'probe_ops': lambda *args: machine.installed,
        'check_compilers': lambda *args: machine.events.append('check'),
        'download_source': lambda *args: tmp_path / 'mmcv-2.1.0.tar.gz',
        'joined_source': lambda archive: archive.parent / 'source',
        'compile_wheel': machine.compile,
        'install_wheel': machine.install,
    }.items():
        monkeypatch.setattr(mmcv_wheel, name, stand_in)
    return machine


def test_leaves_an_mmcv_that_works(machine):
    machine.installed = '2.1.0 cpu'
    assert machine.ensure() == []


def test_compiles_once_and_keeps_the_wheel(machine):
    assert machine.ensure() == ['check', 'compile', 'install']
    assert machine.kept() == b'2.1.0 cpu'

    machine.installed = 'ModuleNotFoundError'
    machine.events.clear()
    assert machine.ensure() == ['install']


def test_compiles_ahead_what_is_installed_later(machine, capsys):
    work = mmcv_wheel.compile_ahead(machine.target, '2.1.0')
    assert machine.events == ['check']
    assert 'have to be compiled' in capsys.readouterr().out
    work()
    assert machine.events == ['check', 'compile']
    assert machine.ensure() == ['check', 'compile', 'install']
    assert not capsys.readouterr().out


def test_compiles_nothing_ahead_of_a_kept_wheel(machine):
    machine.keep(b'2.1.0 cpu')
    assert mmcv_wheel.compile_ahead(machine.target, '2.1.0') is None


def test_compiles_nothing_ahead_of_an_mmcv_that_works(machine):
    machine.installed = '2.1.0 cpu'
    assert mmcv_wheel.compile_ahead(machine.target, '2.1.0') is None


@pytest.mark.parametrize('installed', ['2.1.0 cuda', '2.0.1 cpu'])
def test_replaces_another_mmcv(machine, installed):
    machine.installed = installed
    machine.keep(b'2.1.0 cpu')
    assert machine.ensure() == ['install']


def test_a_kept_wheel_that_does_not_work_is_compiled_anew(machine):
    machine.keep(b'made for another torch')
    assert machine.ensure() == ['install', 'check', 'compile', 'install']
    assert machine.kept() == b'2.1.0 cpu'


@pytest.mark.parametrize(
    ('outcome', 'events'),
    [
        (commands.SetupError('error: redefinition'), ['compile']),
        (b'undefined symbol', ['compile', 'install']),
    ],
)
def test_joined_files_that_fail_are_compiled_one_by_one(
    machine, capsys, outcome, events
):
    machine.joined = outcome
    assert machine.ensure() == ['check', *events, 'one by one', 'install']
    assert machine.kept() == b'2.1.0 cpu'
    assert 'compiling one by one' in capsys.readouterr().out


def test_says_that_fresh_ops_do_not_work(machine):
    machine.joined = machine.one_by_one = b'undefined symbol'
    with pytest.raises(commands.SetupError, match='undefined symbol'):
        machine.ensure()


def test_a_gpu_without_nvcc_gets_the_ops_of_the_cpu(machine, capsys):
    machine.build = dataclasses.replace(CUDA, has_nvcc=False)
    assert machine.ensure() == ['check', 'compile', 'install']
    assert 'There is a GPU, but no nvcc' in capsys.readouterr().out
    assert machine.ensure() == ['check', 'compile', 'install']


def test_a_gpu_without_nvcc_takes_a_kept_wheel_for_it(machine):
    machine.build = dataclasses.replace(CUDA, has_nvcc=False)
    machine.keep(b'2.1.0 cuda', CUDA)
    assert machine.ensure() == ['install']
    assert machine.ensure() == ['install'], 'what works was replaced'


def test_keeps_what_pip_built(monkeypatch, tmp_path):
    """Up to pip itself, whose place a copy of a wheel takes."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    seen = {}

    def build(command, log, *, env, **kwargs):
        seen.update(env, source=command[-1])
        write_wheel(Path(command[-2]), *members)

    monkeypatch.setattr(mmcv_wheel, 'run_logged', build)
    source = tmp_path / 'mmcv-2.1.0.tar.gz'
    members = ['mmcv/_ext.cpython-311-x86_64-linux-gnu.so']
    kept = mmcv_wheel.compile_wheel(target(MAX_JOBS='7'), source, CPU)
    assert kept == mmcv_wheel.cache_folder() / CPU.key / WHEEL
    assert mmcv_wheel.has_ops(kept)
    assert (seen['MAX_JOBS'], seen['MMCV_WITH_OPS']) == ('7', '1')
    assert seen['source'] == str(source)
    # mmcv's setup.py would otherwise ask for nvcc where it sees a GPU.
    assert (seen['CUDA_VISIBLE_DEVICES'], seen['FORCE_CUDA']) == ('', '0')

    members = ['mmcv/__init__.py']
    kept.unlink()
    with pytest.raises(commands.SetupError, match='without its compiled ops'):
        mmcv_wheel.compile_wheel(target(), source, CPU)
    assert not kept.exists()


def mmcv_source(folder: Path, *names: str) -> Path:
    """An mmcv whose every file says which one it is."""
    for name in names:
        file = folder / 'mmcv' / 'ops' / 'csrc' / 'pytorch' / f'{name}.cpp'
        file.parent.mkdir(parents=True, exist_ok=True)
        function = name.replace('/', '_')
        file.write_text(
            f'int {function}() {{ return 0; }}\n'
            'template <class T> struct PreCalc {};\n'
            if 'roi_align' in name
            else f'#define min(a, b) a\nint {function}() {{ return 0; }}\n'
        )
    return folder


MMCV_FILES = [
    *('nms', 'roi_align', 'pybind', 'cpu/nms', 'cpu/psamask'),
    *('cpu/roi_align', 'cpu/roi_align_rotated', 'cpu/rotated_feature_align'),
]


@pytest.mark.parametrize('jobs', [1, 2, 3, 64])
def test_joined_files_hold_every_file_once(tmp_path, jobs):
    source = mmcv_source(tmp_path, *MMCV_FILES)
    count = joined_sources.join_sources(source, jobs)
    files = list(source.rglob('*.cpp'))
    assert len(files) == count
    included = [
        line.split('"')[1].removesuffix('.cpp.inc')
        for file in files
        for line in file.read_text().splitlines()
        if line.startswith('#include')
    ]
    assert sorted(included) == sorted(MMCV_FILES)


@pytest.mark.skipif(not shutil.which('c++'), reason='needs a C++ compiler')
def test_joined_files_compile(tmp_path):
    """Macros do not reach the next file; clashing files stay apart."""
    source = mmcv_source(tmp_path, *MMCV_FILES)
    joined_sources.join_sources(source, 2)
    for file in source.rglob('*.cpp'):
        subprocess.run(
            ['c++', '-fsyntax-only', '-Werror', str(file)], check=True
        )


def test_a_source_of_another_layout_is_left_alone(tmp_path):
    source = mmcv_source(tmp_path, *MMCV_FILES[:-1])
    before = sorted(source.rglob('*'))
    assert joined_sources.join_sources(source, 2) == 0
    assert sorted(source.rglob('*')) == before


def test_looks_for_compilers_before_it_compiles():
    check = mmcv_wheel.check_compilers
    with pytest.raises(commands.SetupError, match=r'no C\+\+ .*apt install'):
        check(target(CXX='no-such-compiler'), CPU)
    with pytest.raises(commands.SetupError, match=r'no nvcc.*toolkit 13\.0'):
        check(target(), dataclasses.replace(CUDA, has_nvcc=False))


@pytest.mark.parametrize(
    ('complaint', 'sentence'),
    [
        ('Python.h: No such file or directory', 'apt install python3-dev'),
        ('vector: No such file', 'cannot compile an empty file: vector: No'),
    ],
)
def test_says_why_a_compiler_cannot_compile(tmp_path, complaint, sentence):
    compiler = tmp_path / 'c++'
    compiler.write_text(f'#!/bin/sh\necho "{complaint}" >&2\nexit 1\n')
    compiler.chmod(0o755)
    with pytest.raises(commands.SetupError, match=sentence):
        mmcv_wheel.check_compilers(target(CXX=str(compiler)), CPU)


@pytest.fixture
def venv(monkeypatch, tmp_path) -> Path:
    """An environment that has been set up."""
    site = tmp_path / 'lib' / 'python3.11' / 'site-packages'
    for name in ('torch-2.13.0.dist-info', 'mmcv'):
        (site / name).mkdir(parents=True)
    (site / 'mmcv' / '_ext.so').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(setup, 'VENV', tmp_path)
    monkeypatch.setattr(setup, 'PYTHON', Path(sys.executable))
    monkeypatch.setattr(setup, 'STAMP', tmp_path / 'setup.json')
    setup.STAMP.write_text(json.dumps(setup.fingerprint()))
    return site


def test_does_nothing_where_nothing_changed(venv, capsys):
    assert setup.main() == 0
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    'change',
    [
        lambda site: (site / 'mmcv' / '_ext.so').unlink(),
        lambda site: (site / 'torch-2.12.0.dist-info').mkdir(),
        lambda site: setup.STAMP.write_text('{'),
    ],
    ids=['ops removed', 'another torch', 'broken stamp'],
)
def test_notices_a_change(venv, monkeypatch, capsys, change):
    called = []
    monkeypatch.setattr(setup, 'set_up', lambda: called.append(True))
    change(venv)
    assert setup.main() == 0
    assert called == [True]
    assert setup.main() == 0
    assert called == [True], 'the new state was not remembered'


def test_says_one_sentence_and_tries_again_next_time(
    venv, monkeypatch, capsys
):
    def fail() -> None:
        raise commands.SetupError('There is no disk.')

    (venv / 'numpy-2.0.dist-info').mkdir()
    monkeypatch.setattr(setup, 'set_up', fail)
    for _ in range(2):
        assert setup.main() == 1
        assert capsys.readouterr().err == 'set-up: There is no disk.\n'


def test_a_failing_build_of_the_op_does_not_end_the_set_up(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(setup, 'PYTHON', Path('/bin/false'))
    monkeypatch.setattr(setup, 'LOG', tmp_path / 'log')
    setup.build_op()
    printed = capsys.readouterr().out
    assert printed.startswith('  compiling deformable attention for the CPU')
    assert printed.rstrip().endswith('failed')


def test_the_forks_take_the_place_of_three_distributions():
    default, forks = setup.read_stack(''), setup.read_stack('onedl')
    replaced = {'mmcv', 'mmdet', 'mmengine'}
    assert default.keys() - forks.keys() == replaced
    names = {'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmengine'}
    assert names <= forks.keys() - default.keys()
    assert all(forks[name] == default[name] for name in default.keys() & forks)
    with pytest.raises(commands.SetupError, match="'none'; expected onedl"):
        setup.read_stack('none')


def test_an_unknown_stack_is_told(monkeypatch, capsys):
    monkeypatch.setattr(setup, 'STACK', 'none')
    assert setup.main() == 1
    assert "STACK is 'none'; expected onedl" in capsys.readouterr().err


def test_a_kept_wheel_of_the_fork_is_installed(machine):
    wheel = machine.keep(b'of the other stack')
    fork = wheel.with_name(WHEEL.replace('mmcv-2.1.0', 'onedl_mmcv-2.1.0'))
    fork.write_bytes(b'2.1.0 cpu')
    mmcv_wheel.ensure_mmcv(machine.target, '2.1.0', 'onedl-mmcv')
    assert machine.events == ['install']
    assert machine.installed == '2.1.0 cpu'


def test_pins_name_all_that_the_set_up_asks_for():
    pins = setup.read_pins(ROOT / 'requirements.txt')
    assert set(setup.BUILD_TOOLS) <= pins.keys()
    assert {'torch', 'mmcv'} <= pins.keys()
    assert all(pins.values())


def test_pins_are_those_of_this_system(monkeypatch, tmp_path):
    pins = tmp_path / 'requirements.txt'
    pins.write_text("a==1  # one\n\nb==2 ; sys_platform == 'linux'\n")
    monkeypatch.setattr(setup.sys, 'platform', 'linux')
    assert setup.read_pins(pins) == {'a': '1', 'b': '2'}
    monkeypatch.setattr(setup.sys, 'platform', 'darwin')
    assert setup.read_pins(pins) == {'a': '1'}


@pytest.mark.parametrize('needed', [True, False])
def test_torch_keeps_the_triton_it_needs(monkeypatch, tmp_path, needed):
    monkeypatch.setattr(setup, 'VENV', tmp_path)
    packages = tmp_path / 'lib' / 'python3.11' / 'site-packages'
    metadata = packages / 'torch-2.13.0.dist-info' / 'METADATA'
    metadata.parent.mkdir(parents=True)
    needs = 'triton==3.7.0; platform_system == "Linux"' if needed else 'sympy'
    metadata.write_text(f'Name: torch\nRequires-Dist: {needs}\n')
    assert setup.torch_brings_triton() is needed
