"""tools/finetune.py with its long steps left out, and once with all."""

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from tests.helpers.data_formats import as_yolo
from tests.helpers.training import TOY_CONFIG, load_tool, run_tool

finetune = load_tool('finetune')


class Steps:
    """Stands in for the commands of a fine-tuning."""

    def __init__(self, work_dir: Path) -> None:
        self.commands: list[list[str]] = []
        self.hours: list[float | None] = []
        self.work_dir = work_dir

    def run(self, *command: Any, hours: float | None = None) -> bool:
        self.hours.append(hours)
        words = [str(word) for word in command]
        self.commands.append(words)
        if 'dist_train' in words[0]:
            (self.work_dir / 'last_checkpoint').write_text('epoch_2.pth')
            for name in ('epoch_2', 'best_coco_bbox_mAP_epoch_1'):
                (self.work_dir / f'{name}.pth').touch()
        if 'dist_test' in words[0]:
            folder = self.work_dir / 'test' / '20260101_000000'
            folder.mkdir(parents=True, exist_ok=True)
            metrics = {'coco/bbox_mAP': 0.5, 'coco/circle_precision': 0.25}
            (folder / 'metrics.json').write_text(json.dumps(metrics))
        return hours is None


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps(tmp_path / 'work')
    monkeypatch.setattr(finetune, 'run', steps.run)
    return steps


def words(data: Path, work_dir: Path, *more: str) -> list[str]:
    given = ['--model', str(TOY_CONFIG), '--epochs', '2', '--batch-size', '4']
    return [str(data), *given, '--work-dir', str(work_dir), *more]


def test_from_the_folder_to_the_report(toy_data, tmp_path, steps, capsys):
    data, work_dir = tmp_path / 'mine', tmp_path / 'work'
    as_yolo(toy_data, data)
    command = words(data, work_dir)
    finetune.main([*command, '--check-only'])
    assert steps.commands == []
    assert 'Boxes of each class' in capsys.readouterr().out
    finetune.main(command)
    train, test, curves = steps.commands
    config = str(work_dir / 'finetune.py')
    best = str(work_dir / 'best_coco_bbox_mAP_epoch_1.pth')
    assert train[1:] == [config, '1', str(work_dir)]
    assert Path(train[0]).name == 'dist_train.sh'
    assert test[1:4] == [config, best, '1']
    assert curves[1].endswith('plot_training.py')
    printed = capsys.readouterr().out
    assert 'Nothing is wrong with the data.' in printed
    assert 'mAP 0.500' in printed
    assert f'detect.py {best}' in printed
    aps = (work_dir / 'class_ap.csv').read_text().splitlines()
    assert aps[:3] == ['class,AP', 'circle,0.250', 'ring,']
    # Trained already: only tested.
    finetune.main(command)
    assert len(steps.commands) == 5
    assert 'dist_test.sh' in steps.commands[3][0]
    # Interrupted.
    (work_dir / 'finetune.json').write_text(
        (work_dir / 'finetune.json').read_text().replace('true', 'false')
    )
    finetune.main(command)
    assert steps.commands[5] == [*train, '--resume']


def test_a_training_that_its_time_has_ended(
    toy_data, tmp_path, steps, capsys
) -> None:
    command = words(toy_data, tmp_path / 'work')
    finetune.main([*command, '--time-limit', '0.5'])
    assert steps.hours == [0.5, None, None]
    out = capsys.readouterr().out
    assert 'mAP 0.500' in out
    assert 'ended after 0.5 hours; the same command resumes it' in out
    finetune.main(command)
    assert steps.commands[3][-1] == '--resume'
    assert 'resumes it' not in capsys.readouterr().out
    finetune.main(command)
    assert len(steps.commands) == 8  # trained


def test_a_precision_that_this_machine_has_not(
    toy_data, tmp_path, steps, monkeypatch
) -> None:
    wrappers = sys.modules['project.engine.optim_wrappers']
    monkeypatch.setattr(wrappers, 'has_accelerator', lambda: False)
    command = words(toy_data, tmp_path / 'work', '--amp', 'fp16')
    finetune.main([*command, '--check-only'])
    with pytest.raises(SystemExit, match='needs a GPU'):
        finetune.main(command)


def test_data_that_is_refused(toy_data, tmp_path, steps, capsys) -> None:
    data = shutil.copytree(toy_data, tmp_path / 'mine')
    (data / 'val/000001.png').unlink()
    (data / 'train/000001.png').write_bytes(b'')
    with pytest.raises(SystemExit) as ended:
        finetune.main(words(data, tmp_path / 'work'))
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert f'error: The image {data}/train/000001.png' in printed
    as_yolo(toy_data, tmp_path / 'yolo')
    (tmp_path / 'yolo/images/train/000001.png').write_bytes(b'')
    with pytest.raises(SystemExit, match=r'The image .* cannot be read'):
        finetune.main(words(tmp_path / 'yolo', tmp_path / 'work'))
    assert steps.commands == []


def test_the_status_of_a_step_is_the_tools(capfd) -> None:
    script = 'import sys; sys.exit(3)'
    with pytest.raises(SystemExit) as ended:
        finetune.run(sys.executable, '-c', script)
    assert ended.value.code == 3
    assert 'the same command resumes' in capfd.readouterr().err


def test_signals_are_passed_on(capfd) -> None:
    before = signal.getsignal(signal.SIGTERM)
    script = (
        'import os, signal, time\n'
        'signal.signal(signal.SIGTERM, lambda *_: os._exit(143))\n'
        'os.kill(os.getppid(), signal.SIGTERM)\n'
        'time.sleep(30)'
    )
    with pytest.raises(SystemExit) as ended:
        finetune.run(sys.executable, '-c', script)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ('handler', 'is_finished'), [('os._exit(138)', False), ('None', True)]
)
def test_the_time_limit_is_a_signal(handler, is_finished) -> None:
    """A step that ends by itself at the last moment is finished."""
    script = (
        'import os, signal, time\n'
        f'signal.signal(signal.SIGUSR1, lambda *_: {handler})\n'
        'time.sleep(2)'
    )
    command = (sys.executable, '-c', script)
    assert finetune.run(*command, hours=1 / 3600) == is_finished
    assert finetune.run(sys.executable, '-c', '', hours=1)


@pytest.mark.slow
def test_a_fine_tuning(toy_data, tmp_path) -> None:
    data, work_dir = tmp_path / 'mine', tmp_path / 'work'
    as_yolo(toy_data, data)
    command = ['tools/finetune.py', *words(data, work_dir)]
    result = run_tool(*command)
    assert result.returncode == 0, result.stderr[-2000:]
    assert cv2.imread(str(work_dir / 'training.png')) is not None
    assert len(list(work_dir.glob('best_*.pth'))) == 1
    assert len((work_dir / 'class_ap.csv').read_text().splitlines()) == 8
    assert 'Epoch(train) [2]' in result.stdout
    again = run_tool(*command)
    assert again.returncode == 0, again.stderr[-2000:]
    assert 'Epoch(train)' not in again.stdout


@pytest.mark.slow
def test_a_time_limit(toy_data, tmp_path) -> None:
    """With the averages and the mixed precision that one flag each gives."""
    work_dir = tmp_path / 'work'
    flags = ['--ema', '--amp', 'bf16', '--workers', '0']
    command = ['tools/finetune.py', *words(toy_data, work_dir, *flags)]
    command[command.index('--epochs') + 1] = '4000'
    limited = run_tool(*command, '--time-limit', '0.03')
    assert limited.returncode == 0, limited.stderr[-2000:]
    assert 'the same command resumes it' in limited.stdout
    assert (work_dir / 'class_ap.csv').is_file()
    last = Path((work_dir / 'last_checkpoint').read_text())
    before = torch.load(last)['meta']['iter']
    again = run_tool(*command, '--time-limit', '0.03')
    assert again.returncode == 0, again.stderr[-2000:]
    last = Path((work_dir / 'last_checkpoint').read_text())
    assert torch.load(last)['meta']['iter'] > before
