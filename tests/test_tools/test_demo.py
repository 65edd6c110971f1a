"""tools/demo.py with its long steps left out, and once with all of them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from mmengine.config import Config

from tests.helpers.configs import ROOT
from tests.helpers.training import load_tool

demo = load_tool('demo')
TINY = dict(train=8, val=4, size=64, seed=0)


def test_the_recipe_is_what_the_config_says() -> None:
    config = Config.fromfile(ROOT / demo.CONFIG)
    processes, batch = demo.CONFIG.stem.split('_')[2].split('-')[0].split('xb')
    assert int(processes) * int(batch) == demo.BATCH_SIZE
    assert config.train_dataloader.batch_size == int(batch)
    assert config.randomness.seed is not None
    assert config.model.backbone.get('init_cfg') is None
    assert (demo.SPEC['size'], demo.SPEC['size']) == config.scale
    assert Path(config.data_root) == demo.parse_args([]).data_root


def test_earlier_results_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    work_dir = tmp_path / 'demo'
    demo.keep_earlier_results(work_dir)
    assert capsys.readouterr().out == ''
    for number in (1, 2):
        work_dir.mkdir()
        (work_dir / 'result').write_text(str(number))
        demo.keep_earlier_results(work_dir)
        kept = tmp_path / f'demo_{number}'
        assert (kept / 'result').read_text() == str(number)
        assert str(kept) in capsys.readouterr().out
        assert not work_dir.exists()


def test_a_failed_step_ends_the_demo() -> None:
    with pytest.raises(SystemExit, match='sh ended with status 3'):
        demo.run('sh', '-c', 'exit 3')


def test_somebody_elses_folder_ends_the_demo(tmp_path: Path) -> None:
    (tmp_path / 'thesis.tex').write_text('years of work')
    with pytest.raises(SystemExit, match=r'Error: .* was not made by'):
        demo.prepare_data(tmp_path)


class Steps:
    """Stands in for the commands of the demo.

    Attributes:
        commands: What was to be run.
        mean_ap: What the test finds.
    """

    def __init__(self, work_dir: Path) -> None:
        self.commands: list[list[str]] = []
        self.mean_ap = 0.6
        self.work_dir = work_dir

    def run(self, *command: Any) -> None:
        self.commands.append([str(word) for word in command])
        if 'dist_train' in str(command[0]):
            self.work_dir.mkdir()
            (self.work_dir / 'last_checkpoint').write_text('epoch_12.pth')
        if 'dist_test' in str(command[0]):
            folder = self.work_dir / 'test' / '20260101_000000'
            folder.mkdir(parents=True)
            metrics = {'coco/bbox_mAP': self.mean_ap}
            (folder / 'metrics.json').write_text(json.dumps(metrics))


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps(tmp_path / 'demo')
    monkeypatch.setattr(demo, 'run', steps.run)
    monkeypatch.setattr(demo, 'SPEC', TINY)
    monkeypatch.chdir(ROOT)
    return steps


def paths(tmp_path: Path) -> list[str]:
    work_dir, data_root = tmp_path / 'demo', tmp_path / 'data'
    return ['--work-dir', str(work_dir), '--data-root', str(data_root)]


@pytest.mark.parametrize(('with_gpu', 'processes'), [(True, 1), (False, 2)])
def test_the_batch_is_the_same_with_and_without_gpu(
    steps: Steps,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_gpu: bool,
    processes: int,
) -> None:
    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: with_gpu)
    demo.main(paths(tmp_path))
    train = steps.commands[0]
    assert train[:3] == ['./dist_train.sh', str(demo.CONFIG), str(processes)]
    assert (
        f'train_dataloader.batch_size={demo.BATCH_SIZE // processes}' in train
    )


def test_all_steps_use_the_same_data_and_options(
    steps: Steps,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    demo.main([*paths(tmp_path), '--cfg-options', 'a.b=1'])
    assert (tmp_path / 'data' / 'shapes.json').is_file()
    for command in steps.commands[:3]:
        assert command[-2:] == [f'data_root={tmp_path}/data/', 'a.b=1']
    assert 'epoch_12.pth' in steps.commands[1]
    assert 'epoch_12.pth' in steps.commands[2]
    *_, result, detections, curves = capsys.readouterr().out.splitlines()
    assert 'bbox mAP 0.600 after' in result
    assert detections.endswith(f'{tmp_path}/demo/detections.png')
    assert curves.endswith(f'{tmp_path}/demo/training.png')


def test_a_low_ap_is_an_error(steps: Steps, tmp_path: Path) -> None:
    steps.mean_ap = 0.49
    with pytest.raises(SystemExit, match=r'should have reached 0\.5'):
        demo.main(paths(tmp_path))
    assert len(steps.commands) == 4  # the pictures tell what went wrong


@pytest.mark.slow
def test_the_demo_runs_from_end_to_end(tmp_path: Path) -> None:
    """One epoch on few images; `make demo` itself takes minutes."""
    script = (
        'import sys; sys.path.insert(0, "tools"); import demo\n'
        'demo.SPEC.update(train=16, val=4, size=64)\n'
        'demo.main(sys.argv[1:])'
    )
    options = ['--cfg-options', 'train_cfg.max_epochs=1']
    result = subprocess.run(
        [sys.executable, '-c', script, *paths(tmp_path), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'Average Precision' in result.stdout
    lines = (result.stdout + result.stderr).splitlines()
    progress = ('Epoch(', 'Saving checkpoint')
    others = [x for x in lines if not any(word in x for word in progress)]
    assert len(others) <= 60, '\n'.join(others)
    for name in ('detections.png', 'training.png'):
        path = tmp_path / 'demo' / name
        assert str(path) in result.stdout
        assert cv2.imread(str(path)) is not None
