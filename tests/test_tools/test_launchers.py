"""The launchers, and each mistake that they answer with one sentence.

What takes importing mmdet takes seconds, so those mistakes are made once
each; the sentences themselves are tested with the runner.
"""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from project.utils.errors import UserError
from tests.helpers.configs import ROOT
from tests.helpers.training import (
    TOY_CONFIG,
    assert_one_sentence,
    run_tool,
    tool_env,
)

TRAIN = 'dist_train.sh'
TEST = 'dist_test.sh'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of another method."""
    path = tmp_path_factory.mktemp('other') / 'other.pth'
    torch.save(dict(state_dict={'neck.weight': torch.zeros(2)}), path)
    return path


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [
        (TRAIN, []),
        (TRAIN, [TOY_CONFIG, '2']),
        (TRAIN, [TOY_CONFIG, '2', '--resume']),
        (TEST, [TOY_CONFIG, 'x.pth']),
        ('tools/slurm_train.sh', ['partition', 'name', TOY_CONFIG]),
        ('tools/slurm_test.sh', ['partition', 'name', TOY_CONFIG]),
    ],
)
def test_missing_arguments_show_the_usage(
    script: str, arguments: list[str]
) -> None:
    result = run_tool(script, *arguments)
    assert result.returncode == 2
    assert 'usage: ' in result.stderr
    assert 'WORK_DIR' in result.stderr or 'CHECKPOINT' in result.stderr


@pytest.mark.parametrize('gpus', ['0', '-1', 'two'])
def test_the_number_of_gpus_is_a_number(gpus: str) -> None:
    result = run_tool(TRAIN, TOY_CONFIG, gpus, 'w')
    assert result.returncode == 2
    assert 'expected a number of at least 1' in result.stderr


@pytest.mark.parametrize(
    'command',
    [
        (TRAIN, 'no/config.py', '1', 'w'),
        (TRAIN, 'no/config.py', '2', 'w'),
        (TEST, 'no/config.py', 'x.pth', '1'),
        ('tools/train.py', 'no/config.py'),
        ('tools/test.py', 'no/config.py', 'x.pth'),
    ],
)
def test_wrong_config_path_is_answered_at_once(
    command: list[str], tmp_path: Path
) -> None:
    """Without importing torch, which takes seconds."""
    (tmp_path / 'torch.py').write_text('raise SystemExit("torch imported")')
    result = run_tool(*command, env=dict(PYTHONPATH=str(tmp_path)))
    assert_one_sentence(result, 'The config no/config.py does not exist')


@pytest.mark.parametrize(
    'command',
    [
        (TEST, TOY_CONFIG, 'no/x.pth', '1'),
        (TEST, TOY_CONFIG, 'no/x.pth', '2'),
        ('tools/test.py', TOY_CONFIG, 'no/x.pth'),
    ],
)
def test_missing_checkpoint(command: list[str]) -> None:
    assert_one_sentence(
        run_tool(*command), 'The checkpoint no/x.pth does not exist'
    )


def test_several_machines_need_rank_and_address() -> None:
    result = run_tool(TRAIN, TOY_CONFIG, '1', 'w', env=dict(NNODES='2'))
    assert_one_sentence(result, 'NNODES is 2', 'NODE_RANK and MASTER_ADDR')


def test_the_number_of_machines_is_a_number() -> None:
    result = run_tool(TRAIN, TOY_CONFIG, '2', 'w', env=dict(NNODES='two'))
    assert_one_sentence(result, "NNODES is 'two'")


def test_fewer_gpus_than_asked_for(tmp_path: Path) -> None:
    # Python imports this before anything else.
    (tmp_path / 'sitecustomize.py').write_text(
        'import torch\n'
        'torch.accelerator.is_available = lambda: True\n'
        'torch.accelerator.device_count = lambda: 1\n'
    )
    result = run_tool(
        TRAIN, TOY_CONFIG, '2', 'w', env=dict(PYTHONPATH=str(tmp_path))
    )
    assert_one_sentence(result, '2 GPUs were asked for', 'has 1')


def test_override_without_value() -> None:
    result = run_tool('tools/train.py', TOY_CONFIG, '--cfg-options', 'x')
    assert result.returncode == 2
    assert "expected KEY=VALUE, got 'x'" in result.stderr


def test_detections_are_written_as_pickle() -> None:
    result = run_tool('tools/test.py', TOY_CONFIG, 'x', '--out', 'x.json')
    assert result.returncode == 2
    assert '--out must end in .pkl' in result.stderr


def test_config_whose_base_is_missing(tmp_path: Path) -> None:
    config = tmp_path / 'config.py'
    config.write_text("_base_ = './missing.py'\n")
    result = run_tool(TRAIN, config, '1', tmp_path / 'w')
    assert_one_sentence(
        result, f'The config {config} cannot be read', 'missing.py'
    )


def test_missing_data_root_on_two_processes(tmp_path: Path) -> None:
    result = run_tool(TRAIN, TOY_CONFIG, '2', tmp_path / 'w', cwd=tmp_path)
    assert_one_sentence(result, 'The data root data/shapes/', 'does not exist')


def test_checkpoint_of_another_method(
    toy_data: Path, tmp_path: Path, checkpoint: Path
) -> None:
    data = f'data_root={toy_data}'
    result = run_tool(
        TEST, TOY_CONFIG, checkpoint, '1', '--cfg-options', data, cwd=tmp_path
    )
    assert_one_sentence(
        result, str(checkpoint), 'no checkpoint of this HDETR: 0 of'
    )


def test_mixed_precision_without_gpu(toy_data: Path, tmp_path: Path) -> None:
    data = f'data_root={toy_data}'
    result = run_tool(
        'tools/train.py',
        TOY_CONFIG,
        '--amp',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        data,
        env=dict(CUDA_VISIBLE_DEVICES='-1'),
    )
    assert_one_sentence(result, '--amp bf16', 'float16', 'needs a GPU')


def test_traceback_when_asked_for(tmp_path: Path) -> None:
    result = run_tool(
        TRAIN,
        TOY_CONFIG,
        '1',
        tmp_path / 'w',
        '--traceback',
        '--cfg-options',
        'classes=a,a',
    )
    assert result.returncode == 1
    assert 'Traceback' in result.stderr
    assert f'{UserError.__module__}.UserError: classes names' in result.stderr


def test_another_trainings_folder_is_not_written_over(
    tmp_path: Path,
) -> None:
    (tmp_path / 'last_checkpoint').write_text('epoch_12.pth')
    result = run_tool(TRAIN, TOY_CONFIG, '1', tmp_path)
    assert_one_sentence(
        result,
        f'{tmp_path} holds checkpoints of another config',
        '--overwrite',
    )


def in_processes(
    folder: Path, script: str, **env: str
) -> subprocess.Popen[str]:
    """Run a script in two processes under the launcher."""
    path = folder / 'script.py'
    path.write_text(script)
    code = (
        f'import sys; sys.path.insert(0, {str(ROOT / "tools")!r}); '
        'import launch; '
        'options = launch.rendezvous(); '
        f'sys.exit(launch.run_processes(2, options, [{str(path)!r}]))'
    )
    return subprocess.Popen(
        [sys.executable, '-c', code],
        env=tool_env(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


@pytest.mark.parametrize(
    ('script', 'status', 'error'),
    [
        ('', 0, ''),
        ('import sys, os; sys.exit(7 * int(os.environ["RANK"]))', 7, ''),
        (
            'import os, time; os.environ["RANK"] == "1" and os.kill('
            'os.getpid(), 9); time.sleep(60)',
            128 + 9,
            'Error: Process 1 was ended by SIGKILL.\n',
        ),
    ],
)
def test_the_exit_status_is_that_of_the_job(
    tmp_path: Path, script: str, status: int, error: str
) -> None:
    process = in_processes(tmp_path, script)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status
    assert stderr == error


def test_the_port_is_free_or_the_one_given(tmp_path: Path) -> None:
    script = (
        'import os; open("port" + os.environ["RANK"], "w").write('
        'os.environ["MASTER_PORT"])'
    )
    ports = []
    for env in (dict(), dict(PORT='31417')):
        process = in_processes(tmp_path, script, **env)
        assert process.wait(timeout=60) == 0
        found = {(tmp_path / f'port{rank}').read_text() for rank in (0, 1)}
        assert len(found) == 1
        ports += found
    assert ports[0] not in ('0', '29500', '31417')
    assert ports[1] == '31417'


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = in_processes(tmp_path, '', PORT=port)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'Traceback' not in stderr
    assert stderr.startswith('Error: The processes cannot meet')
    assert f'--master-port={port}' in stderr


SLEEP = """
import os, time
open('pid' + os.environ['RANK'], 'w').write(str(os.getpid()))
try:
    time.sleep(60)
except KeyboardInterrupt:
    pass
"""


@pytest.mark.parametrize(
    'number', [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
)
def test_ending_the_launcher_ends_its_processes(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = in_processes(tmp_path, SLEEP)
    pids = [wait_for_pid(tmp_path / f'pid{rank}') for rank in (0, 1)]
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert stderr == ''
    assert not any(map(is_alive, pids))


def test_killing_the_launcher_ends_its_processes(tmp_path: Path) -> None:
    join_job = f"""
import argparse, sys
sys.path.insert(0, {str(ROOT / 'tools')!r})
from _cli import join_job
join_job(argparse.Namespace(launcher='pytorch', local_rank=0))
"""
    process = in_processes(tmp_path, join_job + SLEEP)
    pids = [wait_for_pid(tmp_path / f'pid{rank}') for rank in (0, 1)]
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_for_pid(path: Path) -> int:
    """Wait until a process has told its number."""
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f'{path} was not written'
        time.sleep(0.1)
    return int(path.read_text())


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that only was not fetched does not."""
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1]
    except FileNotFoundError:
        return False
    return state.split()[0] != 'Z'
