"""A training never starts from random weights unasked."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import Sequential
from mmengine.registry import RUNNERS

from project.checkpoints.pretrained import (
    check_pretrained,
    correct_file_names,
    leave_out_replaced,
    pretrained_parts,
)
from project.engine import DETRRunner
from project.preflight import variables
from project.utils.errors import UserError
from tests.helpers.training import toy_config


@pytest.fixture
def make_runner(toy_data: Path, tmp_path: Path) -> Any:
    """Builds a runner whose backbone starts from a file."""

    def make(checkpoint: Path | str, **options: Any) -> DETRRunner:
        cfg = toy_config(toy_data, tmp_path / 'run')
        cfg.model.backbone.init_cfg = dict(
            type='Pretrained', checkpoint=str(checkpoint)
        )
        cfg.train_cfg.max_epochs = 1
        cfg.merge_from_dict(options)
        return RUNNERS.build(cfg)

    return make


def save_backbone(path: Path, runner: DETRRunner, **changes: Any) -> None:
    weights = {
        name: torch.full_like(value, 0.25)
        for name, value in runner.model.backbone.state_dict().items()
    }
    torch.save(dict(changes, state_dict=weights), path)


def conv1(runner: DETRRunner) -> torch.Tensor:
    return runner.model.backbone.conv1.weight.detach()


class _StartedError(Exception):
    """A training is about to take its first step."""


class _StopAtTheStart(Hook):
    def before_train(self, runner: DETRRunner) -> None:
        raise _StartedError


def begin(runner: DETRRunner) -> None:
    """Do all that a training does before its first step."""
    runner.register_hook(_StopAtTheStart(), priority='LOWEST')
    with pytest.raises(_StartedError):
        runner.train()


def sentence(runner: DETRRunner) -> str:
    with pytest.raises(UserError) as caught:
        runner.train()
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_ends_the_training_before_it_starts(
    make_runner: Any, tmp_path: Path
) -> None:
    message = sentence(make_runner(tmp_path / 'no.pth'))
    assert f'{tmp_path}/no.pth, from which model.backbone is' in message
    assert (
        '--cfg-options model.backbone.init_cfg.checkpoint='
        'https://download.pytorch.org/models/resnet18-f37072fd.pth' in message
    )


def test_the_option_of_the_message_is_the_right_one(
    make_runner: Any, tmp_path: Path
) -> None:
    """An address is taken without looking for a file of that name."""
    cfg = make_runner(tmp_path / 'no.pth').cfg
    cfg.merge_from_dict(
        {'model.backbone.init_cfg.checkpoint': 'torchvision://resnet18'}
    )
    assert not list(pretrained_parts(cfg))
    for address in ('https://a.b/c.pth', 's3://a/b.pth'):
        cfg.model.backbone.init_cfg.checkpoint = address
        assert not list(pretrained_parts(cfg))


def test_testing_needs_no_file(make_runner: Any, tmp_path: Path) -> None:
    runner = make_runner(tmp_path / 'no.pth')
    assert runner.test()


def test_a_file_is_loaded(make_runner: Any, tmp_path: Path) -> None:
    path = tmp_path / 'backbone.pth'
    runner = make_runner(path)
    save_backbone(path, runner)
    assert not (conv1(runner) == 0.25).all()
    begin(runner)
    assert (conv1(runner) == 0.25).all()


def test_pt_means_pth_where_only_that_exists(
    make_runner: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right, wrong = tmp_path / 'backbone.pth', tmp_path / 'backbone.pt'
    right.touch()
    with caplog.at_level(logging.WARNING):
        runner = make_runner(wrong)
    assert runner.cfg.model.backbone.init_cfg.checkpoint == str(right)
    assert runner.model.backbone.init_cfg['checkpoint'] == str(right)
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert f'{wrong}, from which model.backbone is to start' in log.read_text()

    wrong.touch()
    assert not correct_file_names(make_runner(wrong).cfg)
    wrong.unlink()
    right.unlink()
    assert f'{wrong}, from which' in sentence(make_runner(wrong))


def test_a_file_of_something_else_is_told(
    make_runner: Any, tmp_path: Path
) -> None:
    """mmengine would go on with random weights and a line in the log."""
    path = tmp_path / 'other.pth'
    torch.save({'encoder.conv1.weight': torch.zeros(8, 3, 7, 7)}, path)
    message = sentence(make_runner(path))
    assert f'{path} has none of the weights of model.backbone' in message
    assert "begin with 'encoder.conv1.weight'; expected 'conv1." in message

    torch.save(dict(model={'module.encoder.conv1.weight': None}), path)
    assert "begin with 'model'" in sentence(make_runner(path))


def test_other_shapes_are_other_weights(
    make_runner: Any, tmp_path: Path
) -> None:
    path = tmp_path / 'other.pth'
    torch.save({'conv1.weight': torch.zeros(64, 3, 7, 7)}, path)
    assert 'none of the weights' in sentence(make_runner(path))


@pytest.mark.parametrize('prefix', ['backbone', 'backbone.'])
def test_a_prefix_leads_to_the_weights(
    make_runner: Any, tmp_path: Path, prefix: str
) -> None:
    path = tmp_path / 'detector.pth'
    runner = make_runner(path, **{'model.backbone.init_cfg.prefix': prefix})
    torch.save(dict(state_dict=runner.model.state_dict()), path)
    expected = conv1(runner).clone()
    begin(runner)
    assert conv1(runner).equal(expected)
    runner = make_runner(path, **{'model.backbone.init_cfg.prefix': prefix})
    torch.save(runner.model.backbone.state_dict(), path)
    assert "expected 'backbone.conv1" in sentence(runner)


def test_what_converts_its_weights_is_left_alone(tmp_path: Path) -> None:
    """The names of Swin's files are not those of mmdet's module."""
    from mmdet.registry import MODELS

    path = tmp_path / 'swin.pth'
    torch.save({'patch_embed.proj.weight': torch.zeros(96, 3, 4, 4)}, path)
    backbone = dict(
        type='mmdet.SwinTransformer',
        depths=(1, 1),
        num_heads=(1, 1),
        out_indices=(0, 1),
        strides=(4, 2),
        convert_weights=True,
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    model = torch.nn.Module()
    model.backbone = MODELS.build(backbone)
    cfg = Config(dict(model=dict(backbone=backbone)))
    check_pretrained(cfg, model)
    path.unlink()
    with pytest.raises(UserError, match=r'checkpoint=FILE_OR_ADDRESS\.'):
        check_pretrained(cfg, model)


def save_detector(path: Path, runner: DETRRunner, *lost: str) -> None:
    """Save weights that no initialisation makes, without some."""
    weights = {
        name: value * 1.25 if value.is_floating_point() else value
        for name, value in runner.model.state_dict().items()
        if name not in lost
    }
    torch.save(dict(state_dict=weights), path)


def log_of(folder: Path) -> str:
    """What the runs in a folder have logged."""
    return ''.join(log.read_text() for log in folder.glob('*/*.log'))


@pytest.mark.parametrize('in_part', [False, True])
@pytest.mark.parametrize(
    'start', ['no.pth', 'https://no.invalid/resnet18.pth', 'torchvision://no']
)
def test_what_a_checkpoint_brings_need_not_be_there(
    make_runner: Any, tmp_path: Path, start: str, in_part: bool
) -> None:
    """Neither on the disk nor on the network."""
    path = tmp_path / 'detector.pth'
    lost = ['query_embedding.weight'] if in_part else []
    # Not even a converted backbone has counters.
    lost.append('backbone.bn1.num_batches_tracked')
    save_detector(path, make_runner(start), *lost)
    runner = make_runner(
        start,
        load_from=str(path),
        load_partially=in_part,
        **{'optim_wrapper.optimizer.lr': 0.0},
    )
    expected = torch.load(path)['state_dict']
    runner.train()
    found = runner.model.state_dict()
    for name in runner.model.backbone.state_dict():
        if not name.endswith('num_batches_tracked'):
            name = f'backbone.{name}'
            torch.testing.assert_close(found[name], expected[name])
    # The config goes into the checkpoints, and trainings may start from it.
    assert runner.cfg.model.backbone.init_cfg.checkpoint == str(start)
    line = f'{start}, from which model.backbone was to start, is not loaded'
    assert log_of(tmp_path / 'run').count(line) == 1


@pytest.mark.parametrize(
    'lost', ['backbone.conv1.weight', 'backbone.layer4.1.bn2.running_var']
)
def test_a_checkpoint_without_all_of_the_backbone_does_not_replace_it(
    make_runner: Any, tmp_path: Path, lost: str
) -> None:
    path = tmp_path / 'detector.pth'
    runner = make_runner(tmp_path / 'no.pth')
    save_detector(path, runner, lost)
    options = dict(load_from=str(path))
    message = sentence(
        make_runner(tmp_path / 'no.pth', load_partially=True, **options)
    )
    assert f'{tmp_path}/no.pth, from which model.backbone is' in message
    assert 'models/resnet18-f37072fd.pth' in message
    message = sentence(make_runner(tmp_path / 'no.pth', **options))
    assert f'{lost} is missing' in message


def test_a_backbone_of_other_shapes_does_not_replace_it(
    make_runner: Any, tmp_path: Path
) -> None:
    path = tmp_path / 'detector.pth'
    runner = make_runner(tmp_path / 'no.pth')
    weights = runner.model.state_dict()
    weights['backbone.conv1.weight'] = torch.zeros(64, 3, 7, 7)
    torch.save(dict(state_dict=weights), path)
    message = sentence(
        make_runner(
            tmp_path / 'no.pth', load_from=str(path), load_partially=True
        )
    )
    assert f'{tmp_path}/no.pth, from which model.backbone is' in message


def test_a_file_that_is_there_stays(make_runner: Any, tmp_path: Path) -> None:
    start, path = tmp_path / 'backbone.pth', tmp_path / 'detector.pth'
    runner = make_runner(start)
    save_backbone(start, runner)
    save_detector(path, runner)
    runner = make_runner(start, load_from=str(path))
    begin(runner)
    assert runner.model.backbone.init_cfg.checkpoint == str(start)
    assert 'was to start' not in log_of(tmp_path / 'run')


@pytest.mark.parametrize('part', ['model', 'model.encoder', 'model.decoder'])
def test_weights_that_would_be_drawn_over(
    make_runner: Any, tmp_path: Path, part: str
) -> None:
    """The detector draws its transformer's after all parts loaded theirs."""
    path, whole = tmp_path / 'part.pth', tmp_path / 'detector.pth'
    options = {
        'model.backbone.init_cfg': None,
        f'{part}.init_cfg': dict(type='Pretrained', checkpoint=str(path)),
    }
    runner = make_runner('', **options)
    torch.save(runner.model.state_dict(), whole)
    loaded = runner.model.get_submodule(part.partition('.')[2])
    torch.save(loaded.state_dict(), path)
    message = sentence(runner)
    assert f'{part}.init_cfg would load {path} in vain: HDETR draws' in message
    assert f'load_from={str(path)!r}' in message
    begin(make_runner('', **options, load_from=str(whole)))


def test_pretrained_weights_of_the_whole_model_are_replaced_too() -> None:
    init_cfg = dict(type='Pretrained', checkpoint='no.pth')
    model = Sequential(torch.nn.Linear(2, 2), init_cfg=init_cfg)
    weights = model.state_dict()
    cfg = Config(dict(model=dict(init_cfg=init_cfg)))
    assert not leave_out_replaced(
        cfg, model, {'0.weight': weights['0.weight']}
    )
    assert model.init_cfg
    assert len(leave_out_replaced(cfg, model, weights)) == 1
    assert model.init_cfg is None
    assert cfg.model.init_cfg.checkpoint == 'no.pth'


def test_official_weights_are_not_loaded_in_part(
    make_runner: Any, tmp_path: Path
) -> None:
    """None of their names would match, and nothing would say so."""
    path = tmp_path / 'official.pth'
    torch.save(dict(model={'transformer.level_embed': torch.zeros(1)}), path)
    start = 'torchvision://resnet18'
    options = dict(load_from=str(path), load_partially=True)
    message = sentence(make_runner(start, **options))
    assert 'python -m project convert' in message


def test_resuming_needs_no_pretrained_weights(
    make_runner: Any, tmp_path: Path
) -> None:
    start = tmp_path / 'backbone.pth'
    runner = make_runner(start)
    torch.save(runner.model.backbone.state_dict(), start)
    runner.train()
    start.unlink()
    options = {'train_cfg.max_epochs': 2, 'resume': True}
    for load_from in (None, str(tmp_path / 'run' / 'epoch_1.pth')):
        runner = make_runner(start, load_from=load_from, **options)
        runner.train()
        assert runner.epoch == 2
    line = f'{start}, from which model.backbone was to start, is not loaded'
    assert log_of(tmp_path / 'run').count(line) == 2


def test_nothing_to_resume_replaces_nothing(
    make_runner: Any, tmp_path: Path
) -> None:
    message = sentence(make_runner(tmp_path / 'no.pth', resume=True))
    assert 'models/resnet18-f37072fd.pth' in message


@pytest.fixture
def backends() -> list[dict]:
    return [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]


def test_tensorboard_stays_where_it_is_installed(
    backends: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variables, 'find_spec', lambda name: object())
    cfg = Config(dict(visualizer=dict(vis_backends=backends)))
    assert not variables.drop_missing_backends(cfg)
    assert len(cfg.visualizer.vis_backends) == 2
    assert not variables.drop_missing_backends(Config({}))


def test_a_run_goes_without_tensorboard(
    make_runner: Any,
    backends: list[dict],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(variables, 'find_spec', lambda name: None)
    runner = make_runner(
        tmp_path / 'unread.pth', **{'visualizer.vis_backends': backends}
    )
    for backend in backends:
        found = runner.visualizer.get_backend(backend['type'])
        assert (found is None) == (backend['type'] != 'LocalVisBackend')
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'pip install tensorboard' in log.read_text()
