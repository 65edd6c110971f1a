"""Fifty kills of all kinds: each training goes on as if it had not been.

``pytest -m slow -s tests/test_kills.py`` prints the figures.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.configs import ROOT
from tests.helpers.hooks import read_losses
from tests.helpers.training import (
    WATCHED_CONFIG,
    tool_command,
    tool_env,
    toy_data,
)

__all__ = ['toy_data']

KINDS = ('SIGKILL', 'SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2')
SAVING = {'SIGTERM': 143, 'SIGUSR1': 138}
# Where, how often each kind.
MATRIX = [
    *(('one process', kind) for kind in KINDS for _ in range(4)),
    *(('saving', 'SIGKILL') for _ in range(8)),
    *(('saving', 'SIGTERM') for _ in range(2)),
    *(('two processes', kind) for kind in KINDS for _ in range(2)),
    *(('launcher', kind) for kind in ('SIGKILL', 'SIGTERM', 'SIGUSR1')),
    ('launcher', 'SIGINT'),
]
OPTIONS = dict(
    log_level='WARNING',
    train_dataloader__batch_size=1,
    train_cfg__val_interval=1,
    default_hooks__checkpoint__max_keep_ckpts=1,
    default_hooks__checkpoint__save_best='coco/bbox_mAP',
    default_hooks__checkpoint__rule='greater',
)
STEPS = {1: 24, 2: 12}  # of three epochs of 8 images
TIMEOUT = 600


class Trainings:
    """Starts trainings, as forks where it can be."""

    def __init__(self, data: Path, log: Path) -> None:
        self.data, self.log = data, log
        self.server = subprocess.Popen(
            [sys.executable, '-m', 'tests.helpers.fork_training'],
            env=tool_env(),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=mind_hangups,
        )
        assert self.server.stdout.readline() == 'ready\n'

    def start(self, work_dir: Path, world: int = 1, **order: Any) -> list[int]:
        """Start a training; give the numbers of its processes."""
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        options = {**OPTIONS, **order.pop('options', {})}
        order.update(
            data=str(self.data),
            log=str(self.log),
            work_dir=str(work_dir),
            world=world,
            port=port,
            options=options,
        )
        self.server.stdin.write(json.dumps(order) + '\n')
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def wait(self) -> list[int]:
        """Wait for the training that was started; give its statuses."""
        return json.loads(self.server.stdout.readline())

    def launch(self, work_dir: Path) -> subprocess.Popen:
        """Start a training of two processes as a user does."""
        options = [
            f'{key.replace("__", ".")}={value}'
            for key, value in OPTIONS.items()
        ]
        command = tool_command('dist_train.sh', WATCHED_CONFIG, '2', work_dir)
        with self.log.open('a') as log:
            return subprocess.Popen(
                [
                    *command,
                    '--cfg-options',
                    f'data_root={self.data}',
                    *options,
                ],
                env=tool_env(),
                stdout=log,
                stderr=log,
                preexec_fn=mind_hangups,
            )


def mind_hangups() -> None:
    """Undo what ``nohup`` leaves to all that is started under it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope='module')
def trainings(
    toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trainings]:
    trainings = Trainings(toy_data, tmp_path_factory.mktemp('log') / 'log.txt')
    yield trainings
    trainings.server.stdin.close()
    trainings.server.wait(60)


@pytest.fixture(scope='module')
def unbroken(
    trainings: Trainings, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, dict]:
    """What a training that is never killed saves, by its processes."""
    saved = {}
    for world in STEPS:
        work_dir = tmp_path_factory.mktemp('unbroken')
        trainings.start(work_dir, world)
        assert trainings.wait() == [0] * world, trainings.log.read_text()
        assert len(read_losses(work_dir, 0)) == STEPS[world]
        saved[world] = torch.load(work_dir / 'epoch_3.pth')
    return saved


@pytest.fixture(scope='module')
def figures() -> Iterator[Counter]:
    counted: Counter = Counter()
    yield counted
    print(f'\n{counted.total()} kills:')
    for (place, outcome), number in sorted(counted.items()):
        print(f'  {number:3d}  {place}: {outcome}')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('number', 'place', 'kind'),
    [(i, *case) for i, case in enumerate(MATRIX)],
    ids=[f'{i}-{place}-{kind}' for i, (place, kind) in enumerate(MATRIX)],
)
def test_a_killed_training_goes_on(
    trainings: Trainings,
    unbroken: dict[int, dict],
    figures: Counter,
    tmp_path: Path,
    number: int,
    place: str,
    kind: str,
) -> None:
    signal_number = getattr(signal, kind)
    world = 2 if place in ('two processes', 'launcher') else 1
    kill = {
        'saving': kill_in_save,
        'launcher': kill_launcher,
        'one process': partial(kill_all, world=1),
        'two processes': partial(kill_all, world=2),
    }[place]
    statuses, moment = kill(
        trainings, tmp_path, signal_number, random.Random(number)
    )
    said = trainings.log.read_text()[-3000:]
    if kind in SAVING:
        assert set(statuses) == {SAVING[kind]}, said
        saved = (tmp_path / 'last_checkpoint').stat().st_mtime - moment
        assert saved < 20
    else:
        caught = 128 + signal_number if kind == 'SIGINT' else -signal_number
        assert set(statuses) == {caught}, said

    trainings.start(tmp_path, world, options=dict(resume=True))
    assert trainings.wait() == [0] * world, trainings.log.read_text()[-3000:]
    repeated = len(read_losses(tmp_path, 0)) - STEPS[world]
    # While an epoch's checkpoint grew, that of the one before was there.
    assert 0 <= repeated <= (0 if kind in SAVING else STEPS[world] // 3)
    compare(torch.load(tmp_path / 'epoch_3.pth'), unbroken[world])
    left = {path.name for path in tmp_path.glob('*.pth')}
    best = {name for name in left if name.startswith('best_')}
    assert left - best - {'stopped.pth'} == {'epoch_3.pth'}
    assert not list(tmp_path.glob('.*.unfinished'))
    for name in best:
        torch.load(tmp_path / name)
    figures[place, kind] += 1
    shutil.rmtree(tmp_path)


Killed = tuple[list[int], float]
"""Exit statuses, and the time of the signal."""


def kill_all(
    trainings: Trainings,
    work_dir: Path,
    number: int,
    draw: random.Random,
    world: int,
) -> Killed:
    """Send a signal to all processes after some step."""
    pids = trainings.start(work_dir, world)
    wait_for_steps(work_dir, draw.randrange(1, STEPS[world] - 3))
    time.sleep(draw.random() / 10)
    moment = time.time()
    for pid in pids:
        os.kill(pid, number)
    return trainings.wait(), moment


def kill_in_save(
    trainings: Trainings, work_dir: Path, number: int, draw: random.Random
) -> Killed:
    """Send it when half of a checkpoint is written.

    Of an epoch: its own, the best one, its own again.
    """
    trainings.start(work_dir, kill_in_save=(draw.randrange(1, 6), number))
    statuses = trainings.wait()
    # Of the last thing that was done before it, on a clock that files have.
    losses = work_dir / 'losses_0.jsonl'
    return statuses, losses.stat().st_mtime


def kill_launcher(
    trainings: Trainings, work_dir: Path, number: int, draw: random.Random
) -> Killed:
    """Send it to the launcher alone."""
    process = trainings.launch(work_dir)
    wait_for_steps(work_dir, draw.randrange(1, STEPS[2] - 3))
    pids = children(process.pid)
    assert len(pids) == 2
    moment = time.time()
    process.send_signal(number)
    status = process.wait(TIMEOUT)
    wait_for_end(pids)
    return [status], moment


def compare(resumed: dict, expected: dict) -> None:
    """Weights, optimizer and schedule are those of never having stopped."""
    torch.testing.assert_close(
        resumed['state_dict'], expected['state_dict'], rtol=0, atol=0
    )
    assert resumed['param_schedulers'] == expected['param_schedulers']
    torch.testing.assert_close(
        resumed['optimizer']['state'],
        expected['optimizer']['state'],
        rtol=0,
        atol=0,
    )
    assert resumed['meta']['iter'] == expected['meta']['iter']


def wait_for_steps(work_dir: Path, number: int) -> None:
    """Wait until so many steps are done."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            if len(read_losses(work_dir, 0)) >= number:
                return
        except (FileNotFoundError, ValueError):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, parent = path.read_text().rsplit(')', 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != 'Z':
            found.append(int(path.parent.name))
    return found


def wait_for_end(pids: list[int]) -> None:
    """Wait until none of some processes is left."""
    deadline = time.monotonic() + 60
    while any(Path(f'/proc/{pid}').exists() for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.05)
