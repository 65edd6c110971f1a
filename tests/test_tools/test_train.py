"""The options of tools/train.py, without a process of its own."""

import os
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from mmengine.config import Config

from project.engine import DETRRunner
from project.utils.errors import UserError
from tests.helpers.training import TOY_CONFIG, load_tool


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv('LOCAL_RANK', '0')
    return load_tool('train')


@pytest.fixture
def config(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Applies a command line and returns the config."""

    def apply(*arguments: str) -> Config:
        command = ['train.py', str(TOY_CONFIG), *arguments]
        monkeypatch.setattr('sys.argv', command)
        args = tool.parse_args()
        cfg = tool.load_config(args)
        tool.apply_options(cfg, args)
        return cfg

    return apply


def test_without_options_the_config_stays(config: Any) -> None:
    cfg = config()
    expected = Config.fromfile(TOY_CONFIG)
    expected.merge_from_dict(
        dict(launcher='none', work_dir='work_dirs/toy_h-detr')
    )
    assert cfg.to_dict() == expected.to_dict()


def test_work_dir_of_the_config_stands_unless_another_is_given(
    config: Any,
) -> None:
    own = ('--cfg-options', 'work_dir=own')
    assert config(*own).work_dir == 'own'
    assert config('--work-dir', 'given', *own).work_dir == 'given'


def test_amp(config: Any) -> None:
    wrapper = config('--amp').optim_wrapper
    assert wrapper.type == 'AmpOptimWrapper'
    assert wrapper.loss_scale == 'dynamic'
    assert 'dtype' not in wrapper
    wrapper = config('--amp', 'bf16', '--auto-scale-lr').optim_wrapper
    assert wrapper.type == 'AmpOptimWrapper'
    assert wrapper.dtype == 'bfloat16'
    assert config('--amp=fp16').optim_wrapper.dtype == 'float16'


def test_amp_before_the_config(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, amp in ((['--amp'], ''), (['--amp', 'bf16'], 'bf16')):
        command = ['train.py', *words, str(TOY_CONFIG)]
        monkeypatch.setattr('sys.argv', command)
        args = tool.parse_args()
        assert (args.config, args.amp) == (str(TOY_CONFIG), amp)


def test_an_unknown_precision(
    config: Any, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        config('--amp', 'int8')
    assert 'int8' in capsys.readouterr().err


def test_auto_scale_lr(config: Any) -> None:
    assert not config().auto_scale_lr.enable
    assert config('--auto-scale-lr').auto_scale_lr.enable
    with pytest.raises(UserError, match='base_batch_size'):
        config('--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None')


def test_resume(config: Any, tmp_path: Path) -> None:
    cfg = config('--resume', '--cfg-options', 'load_from=x.pth')
    assert cfg.resume
    assert cfg.load_from is None
    assert cfg.start_from == 'x.pth'
    path = tmp_path / 'epoch_3.pth'
    path.touch()
    cfg = config('--resume', str(path))
    assert cfg.resume
    assert cfg.load_from == str(path)


def test_resume_from_a_missing_file(config: Any) -> None:
    with pytest.raises(SystemExit, match=r'no\.pth does not exist'):
        config('--resume', 'no.pth')


def test_options_of_the_config(config: Any) -> None:
    cfg = config('--cfg-options', 'data_root=x', 'classes=a,b')
    assert cfg.data_root == 'x'
    assert cfg.classes == ('a', 'b')  # in force at once


def test_an_option_that_the_config_cannot_take(config: Any) -> None:
    with pytest.raises(UserError, match='--cfg-options does not fit'):
        config('--cfg-options', 'param_scheduler.7.gamma=1')


def test_configs_without_a_runner_get_ours(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'plain.py'
    path.write_text("model = dict(type='DINO')\n")
    monkeypatch.setattr('sys.argv', ['train.py', str(path)])
    cfg = tool.load_config(tool.parse_args())
    assert cfg.runner_type == DETRRunner.__name__


def test_a_folder_of_another_config_is_refused_at_once(
    tool: ModuleType, config: Any, tmp_path: Path
) -> None:
    """One of the same config the runner refuses, unless told otherwise."""
    cfg = config('--work-dir', str(tmp_path))
    tool.check_work_dir(cfg)
    (tmp_path / 'last_checkpoint').touch()
    with pytest.raises(UserError, match='checkpoints of another config'):
        tool.check_work_dir(cfg)
    overwritten = config(
        '--work-dir', str(tmp_path), '--cfg-options', 'overwrite=True'
    )
    tool.check_work_dir(overwritten)
    (tmp_path / TOY_CONFIG.name).touch()
    tool.check_work_dir(cfg)


@pytest.mark.parametrize('option', ['--overwrite', '--resume'])
def test_another_folder_is_used_when_asked_for(
    tool: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
) -> None:
    (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
    command = ['train.py', str(TOY_CONFIG), '--work-dir', str(tmp_path)]
    monkeypatch.setattr('sys.argv', [*command, option, '--traceback'])
    monkeypatch.setattr(tool, 'build_runner', BuiltError.raise_it)
    with pytest.raises(BuiltError):
        tool.main()


class BuiltError(Exception):
    """Tells that the runner would have been built."""

    @classmethod
    def raise_it(cls, cfg: Config) -> None:
        raise cls


@pytest.mark.parametrize(
    ('options', 'env', 'expected'),
    [
        ([], {}, '0'),
        (['--local-rank=2'], {}, '2'),
        (['--launcher=slurm'], {'SLURM_LOCALID': '3'}, '3'),
        (['--launcher=mpi'], {'OMPI_COMM_WORLD_LOCAL_RANK': '4'}, '4'),
        (['--launcher=pytorch', '--local-rank=2'], {'LOCAL_RANK': '1'}, '1'),
    ],
)
def test_each_process_knows_its_rank_on_the_machine(
    tool: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    env: dict[str, str],
    expected: str,
) -> None:
    monkeypatch.delenv('LOCAL_RANK')
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr('sys.argv', ['train.py', str(TOY_CONFIG), *options])
    # It would ask for a signal when the parent of the tests ends.
    monkeypatch.setattr('ctypes.CDLL', mock.Mock())
    tool.parse_args()
    assert os.environ['LOCAL_RANK'] == expected


def test_without_a_config_the_usage_is_shown(
    tool: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr('sys.argv', ['train.py'])
    with pytest.raises(SystemExit, match='2'):
        tool.parse_args()
    printed = capsys.readouterr().err
    assert printed.endswith('arguments are required: config\n')
