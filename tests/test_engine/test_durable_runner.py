"""Nothing that was trained is lost, and nothing of others overwritten."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from project.checkpoints.writing import UNFINISHED
from project.engine import DETRRunner
from project.engine.runner.signals import StopOnSignal
from project.utils.errors import UserError
from tests.helpers.training import toy_config

FAST = dict(
    train_cfg=dict(
        _delete_=True, type='EpochBasedTrainLoop', max_epochs=3, val_interval=9
    ),
    log_level='WARNING',
)
NO_VALIDATION = dict(val_cfg=None, val_dataloader=None, val_evaluator=None)


@pytest.fixture(scope='module')
def make(toy_data: Path) -> Callable[..., DETRRunner]:
    """Builds a runner of the toy config, which does not validate."""

    def build(work_dir: Path, **options: Any) -> DETRRunner:
        settings = {**FAST, **NO_VALIDATION, **options}
        return RUNNERS.build(toy_config(toy_data, work_dir, **settings))

    return build


@pytest.fixture(scope='module')
def trained(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work dir of three epochs of two iterations. Do not write there."""
    work_dir = tmp_path_factory.mktemp('trained') / 'run'
    make(work_dir).train()
    return work_dir


@pytest.fixture
def work_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy of it that knows its own place."""
    copied = Path(shutil.copytree(trained, tmp_path / 'copy'))
    (copied / 'last_checkpoint').write_text(str(copied / 'epoch_3.pth'))
    return copied


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path)['state_dict']


def contents(folder: Path) -> dict[str, bytes]:
    """What lies in a work dir itself, logs left out."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith('.')
    }


class Killed(BaseException):
    """Stands for a kill: nothing but ``finally`` runs after it."""


@pytest.mark.parametrize('moment', ['torch.save', 'os.replace'])
def test_a_kill_while_a_checkpoint_grows_leaves_the_one_before(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Of one that is kept, so that the hook gives it up for the new one."""
    runner = make(tmp_path, default_hooks__checkpoint__max_keep_ckpts=1)
    module, name = (torch, 'save') if moment == 'torch.save' else (os, moment)
    call = getattr(module, name.rpartition('.')[2])

    def killed(*args: Any, **kwargs: Any) -> None:
        if runner.epoch == 1:
            raise Killed
        return call(*args, **kwargs)

    monkeypatch.setattr(module, name.rpartition('.')[2], killed)
    with pytest.raises(Killed):
        runner.train()
    monkeypatch.undo()
    assert set(contents(tmp_path)) == {
        'epoch_1.pth',
        'last_checkpoint',
        'toy_h-detr.py',
    }
    assert make(tmp_path, resume=True).find_resumed() == str(
        tmp_path / 'epoch_1.pth'
    )


class WatchFolder(Hook):
    """Notes the checkpoints that are there while one is being saved."""

    def __init__(self) -> None:
        self.there: list[set[str]] = []

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.there.append(
            {p.name for p in Path(runner.work_dir).glob('*.pth')}
        )


def test_outdated_checkpoints_are_removed_after_the_new_one_is_there(
    make: Any, tmp_path: Path
) -> None:
    runner = make(tmp_path, default_hooks__checkpoint__max_keep_ckpts=1)
    watch = WatchFolder()
    runner.register_hook(watch)
    runner.train()
    assert watch.there == [set(), {'epoch_1.pth'}, {'epoch_2.pth'}]
    assert {p.name for p in tmp_path.glob('*.pth')} == {'epoch_3.pth'}


class OwnHook(CheckpointHook):
    """A user's."""


def test_hooks_of_users_are_protected_as_well(
    make: Any, tmp_path: Path
) -> None:
    hook = dict(type=OwnHook, interval=1, max_keep_ckpts=1)
    runner = make(tmp_path, default_hooks__checkpoint=hook)
    watch = WatchFolder()
    runner.register_hook(watch)
    runner.train()
    assert watch.there[1:] == [{'epoch_1.pth'}, {'epoch_2.pth'}]


def test_a_full_disk_is_told_with_the_path(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make(tmp_path, default_hooks__checkpoint__max_keep_ckpts=1)

    def full(descriptor: int) -> None:
        if runner.epoch == 1:
            raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(
        UserError, match=r'epoch_2\.pth cannot be written: No space left'
    ):
        runner.train()
    assert {p.name for p in tmp_path.glob('*.pth')} == {'epoch_1.pth'}
    assert not list(tmp_path.glob(f'.*{UNFINISHED}'))


def test_too_little_room_for_a_checkpoint_is_told_before_training(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1000
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        'shutil.disk_usage', lambda path: usage._replace(free=free)
    )
    with pytest.raises(UserError, match=r'has 1e\+03 B|has 1000 B'):
        make(tmp_path).train()
    assert not list(tmp_path.glob('*.pth'))


def test_training_again_writes_over_nothing_unless_asked_to(
    make: Any, work_dir: Path
) -> None:
    before = contents(work_dir)
    with pytest.raises(UserError, match=r'another training \(epoch_1\.pth'):
        make(work_dir, model__num_queries=11).train()
    assert contents(work_dir) == before


@pytest.mark.parametrize('place', ['elsewhere', 'here'])
def test_resuming_from_elsewhere_writes_over_nothing(
    make: Any, trained: Path, work_dir: Path, place: str
) -> None:
    source = trained if place == 'elsewhere' else work_dir
    runner = make(work_dir, resume=True, load_from=str(source / 'epoch_2.pth'))
    if place == 'elsewhere':
        with pytest.raises(UserError, match='another training'):
            runner.train()
        return
    runner.train()
    assert runner.iter == 6


def test_a_users_own_files_are_no_checkpoints(
    make: Any, work_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'new'
    folder.mkdir()
    shutil.copy(work_dir / 'epoch_3.pth', folder / 'start.pth')
    (folder / f'mine{UNFINISHED}').touch()
    (folder / f'.epoch_1.pth{UNFINISHED}').touch()
    runner = make(folder, load_from=str(folder / 'start.pth'))
    runner.train_loop  # noqa: B018  is built
    with runner.training_in_work_dir():
        pass
    assert (folder / 'start.pth').exists()
    assert (folder / f'mine{UNFINISHED}').exists()
    assert not (folder / f'.epoch_1.pth{UNFINISHED}').exists()


@pytest.mark.parametrize(
    'damage', ['empty', 'missing', 'zeroed', 'no marker', 'empty marker']
)
def test_resuming_falls_back_to_the_newest_whole_checkpoint(
    make: Any,
    work_dir: Path,
    damage: str,
    capfd: pytest.CaptureFixture,
) -> None:
    last, marker = work_dir / 'epoch_3.pth', work_dir / 'last_checkpoint'
    expected = work_dir / 'epoch_2.pth'
    if damage == 'empty':
        last.write_bytes(b'')
    elif damage == 'missing':
        last.unlink()
    elif damage == 'zeroed':
        content = bytearray(last.read_bytes())
        content[20_000:21_000] = bytes(1000)
        last.write_bytes(content)
    else:
        expected = last
        if damage == 'no marker':
            marker.unlink()
        else:
            marker.write_text('')
    # The order of epochs is not that in which the files were copied.
    os.utime(work_dir / 'epoch_1.pth')
    assert make(work_dir, resume=True).find_resumed() == str(expected)
    said = capfd.readouterr()
    assert f'The training goes on from {expected}' in said.out + said.err


def test_nothing_whole_is_told(make: Any, work_dir: Path) -> None:
    for path in work_dir.glob('*.pth'):
        path.write_bytes(b'')
    runner = make(work_dir, resume=True)
    with pytest.raises(UserError, match=r'Nothing in .* can be resumed from'):
        runner.train()


def test_a_moved_work_dir_is_resumed(
    make: Any, trained: Path, tmp_path: Path
) -> None:
    original = shutil.copytree(trained, tmp_path / 'before')
    marker = original / 'last_checkpoint'
    marker.write_text(str(original / 'epoch_3.pth'))
    moved = original.rename(tmp_path / 'after')
    assert make(moved, resume=True).find_resumed() == str(
        moved / 'epoch_3.pth'
    )


def test_a_copied_work_dir_leaves_the_best_of_the_original(
    toy_data: Path, tmp_path: Path
) -> None:
    original, copied = tmp_path / 'original', tmp_path / 'copied'
    options = dict(
        log_level='WARNING',
        train_cfg__val_interval=1,
        default_hooks__checkpoint__save_best='coco/bbox_mAP',
        default_hooks__checkpoint__rule='greater',
    )

    class Better(Hook):
        """Every validation is better than the one before."""

        priority = 'ABOVE_NORMAL'

        def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
            metrics['coco/bbox_mAP'] = 0.1 * runner.epoch

    def train(work_dir: Path, **more: Any) -> None:
        cfg = toy_config(toy_data, work_dir, **options, **more)
        runner = RUNNERS.build(cfg)
        runner.register_hook(Better())
        runner.train()

    train(original, train_cfg__max_epochs=1)
    shutil.copytree(original, copied)
    before = contents(original)
    best = {'best_coco_bbox_mAP_epoch_1.pth'}
    assert {p.name for p in original.glob('best*')} == best
    train(copied, train_cfg__max_epochs=2, resume=True)
    assert contents(original) == before
    best = {'best_coco_bbox_mAP_epoch_2.pth'}
    assert {p.name for p in copied.glob('best*')} == best


def test_one_training_at_a_time(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('project.engine.runner.work_dir.PATIENCE', 0.1)
    first, second = make(tmp_path), make(tmp_path)
    with (
        first.training_in_work_dir(),
        pytest.raises(UserError, match=f'in use by .*process {os.getpid()} '),
    ):
        second.train()
    with second.training_in_work_dir():
        pass


def test_a_killed_training_leaves_no_lock(make: Any, tmp_path: Path) -> None:
    """Not even if a worker that it has forked outlives it."""
    runner = make(tmp_path)
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        with runner.training_in_work_dir():
            if os.fork() == 0:
                os.read(done[0], 1)
                os._exit(0)
            os.write(ready[1], b'1')
            time.sleep(60)
    os.read(ready[0], 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with runner.training_in_work_dir():
        pass
    os.write(done[1], b'1')


def test_a_work_dir_that_is_a_file(make: Any, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    for path in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(UserError, match=f'work dir {path} cannot be'):
            make(path)


def test_a_marker_that_cannot_be_written(make: Any, tmp_path: Path) -> None:
    (tmp_path / 'last_checkpoint').mkdir()
    with pytest.raises(UserError, match='last_checkpoint is in the way'):
        make(tmp_path, overwrite=True).train()


def test_a_config_that_lies_in_the_work_dir_stays_as_it_is(
    make: Any, trained: Path, tmp_path: Path
) -> None:
    own = tmp_path / 'toy_h-detr.py'
    text = '# my notes\n' + (trained / 'toy_h-detr.py').read_text()
    own.write_text(text)
    runner = make(tmp_path)
    # A config that is built from a dict can get a file in no other way.
    object.__setattr__(runner.cfg, '_filename', str(own))
    with runner.training_in_work_dir():
        runner.call_hook('before_train')
    assert own.read_text() == text


class SignalAt(Hook):
    """Sends this process a signal after some iteration."""

    def __init__(self, number: int, iteration: int) -> None:
        self.number = number
        self.iteration = iteration

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs) -> None:
        if runner.iter == self.iteration:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ('number', 'iteration'), [(signal.SIGTERM, 2), (signal.SIGUSR1, 3)]
)
def test_a_signal_ends_a_training_after_a_checkpoint(
    make: Any,
    trained: Path,
    tmp_path: Path,
    number: signal.Signals,
    iteration: int,
) -> None:
    """In the middle of the second epoch, and after its last step."""
    handler = signal.getsignal(number)
    runner = make(tmp_path)
    runner.register_hook(SignalAt(number, iteration))
    with pytest.raises(SystemExit) as ended:
        runner.train()
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) == handler
    stopped = torch.load(tmp_path / 'stopped.pth')
    assert stopped['meta']['iter'] == iteration + 1
    marker = tmp_path / 'last_checkpoint'
    assert marker.read_text() == str(tmp_path / 'stopped.pth')
    os.link(marker, tmp_path / 'old_marker')

    runner = make(tmp_path, resume=True)
    runner.train()
    # A new file took its place, so that it was whole at any time.
    assert marker.read_text() == str(tmp_path / 'epoch_3.pth')
    assert (tmp_path / 'old_marker').read_text().endswith('stopped.pth')
    assert (runner.epoch, runner.iter) == (3, 6)
    expected = torch.load(trained / 'epoch_3.pth')
    resumed = torch.load(tmp_path / 'epoch_3.pth')
    torch.testing.assert_close(
        resumed['state_dict'], expected['state_dict'], rtol=0, atol=0
    )
    assert resumed['param_schedulers'] == expected['param_schedulers']


@pytest.fixture
def signal_hook(make: Any, tmp_path: Path) -> Iterator[StopOnSignal]:
    """The hook of a training that handles signals."""
    runner = make(tmp_path)
    (hook,) = (h for h in runner.hooks if isinstance(h, StopOnSignal))
    hook.before_train(runner)
    yield hook
    hook.close()


def test_processes_that_a_training_forks_end_when_they_are_told(
    signal_hook: StopOnSignal,
) -> None:
    """As the pool in which mmdet's VOCMetric counts, which waits for that."""
    context = multiprocessing.get_context('fork')
    ready = context.Event()
    forked = context.Process(target=wait_after, args=(ready,), daemon=True)
    forked.start()
    assert ready.wait(60)
    os.kill(forked.pid, signal.SIGUSR1)
    forked.terminate()
    forked.join(60)
    ended = forked.exitcode
    forked.kill()
    assert ended == -signal.SIGTERM
    assert signal_hook.received is None


@pytest.mark.usefixtures('signal_hook')
def test_a_signal_before_a_forked_process_runs_is_not_forgotten() -> None:
    """On a busy machine a pool ends its processes before they have begun."""
    for _ in range(20):
        process = os.fork()
        if not process:
            time.sleep(600)
            os._exit(1)
        os.kill(process, signal.SIGTERM)
        assert status_of(process) == -signal.SIGTERM


def status_of(process: int) -> int | None:
    """Exit status of a child; None if it does not end."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def wait_after(ready: Any) -> None:
    ready.set()
    time.sleep(600)


def test_a_second_signal_ends_it_at_once(
    signal_hook: StopOnSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('project.engine.runner.signals.ONE_REQUEST', 0)
    killed = []
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal_hook.received == signal.SIGTERM
    monkeypatch.setattr('os.kill', lambda *args: killed.append(args))
    signal.raise_signal(signal.SIGTERM)
    assert killed == [(os.getpid(), signal.SIGTERM)]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_workers_end_for_their_training_alone(
    make: Any, tmp_path: Path
) -> None:
    """Schedulers send a signal to all processes of a job."""
    loader = make(tmp_path).build_dataloader(
        dict(
            dataset=list(range(40)),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=1,
            num_workers=2,
        )
    )
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)  # from both, which have begun then
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    others = [worker.pid for worker in workers]
    sender = threading.Thread(
        target=lambda: os.system(f'kill -TERM {" ".join(map(str, others))}')
    )
    sender.start()
    sender.join()
    time.sleep(0.5)
    assert len(list(iterator)) == 36
    for worker in workers:
        worker.terminate()
        worker.join(10)
        assert worker.exitcode == 0
