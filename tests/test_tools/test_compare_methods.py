"""All methods under one budget: alike but for the method, resumable."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from tests.helpers.configs import read_config
from tests.helpers.toy import build_model, check_training_step, toy_batch
from tests.helpers.training import load_tool

compare = load_tool('analysis_tools/compare_methods')
# The modules that the tool imports, to be patched.
methods, comparison, report = map(
    import_module, ('_methods', '_comparison', '_comparison_report')
)

SOME = ('Rank-DETR', 'DETA', 'DINO', 'HPR-DINO, rank loss', 'DN-DETR')


@pytest.fixture(scope='module')
def configs() -> dict[str, Config]:
    return {name: methods.small_config(methods.METHODS[name]) for name in SOME}


def trained_size(backbone: nn.Module) -> int:
    return sum(p.numel() for p in backbone.parameters() if p.requires_grad)


@pytest.mark.slow
def test_every_method_is_small_and_trains() -> None:
    """Of one backbone, in which all is trained, and of one width."""
    backbones = set()
    for method in methods.METHODS.values():
        config = methods.small_config(method)
        model = build_model(config.model)
        check_training_step(model, *toy_batch(num_classes=7))
        backbones.add(trained_size(model.backbone))
        assert model.embed_dims == 64
        assert model.bbox_head.num_classes == 7
        assert len(model.encoder.layers) == 1
        assert len(model.decoder.layers) == 2
        num_parameters = sum(p.numel() for p in model.parameters())
        assert num_parameters < 2.5e6
    assert len(backbones) == 1


def test_only_the_model_differs(configs: dict[str, Config]) -> None:
    first, *others = (config.to_dict() for config in configs.values())
    first.pop('model')
    for config in others:
        config.pop('model')
        assert config == first


def test_what_is_a_methods_own_stays(configs: dict[str, Config]) -> None:
    for name, config in configs.items():
        method, small = methods.METHODS[name], config.model
        own = read_config(str(methods.ROOT / method.config)).model
        assert small.num_queries * 15 == own.num_queries
        assert small.get('dn_cfg', {}).get('box_noise_scale') == own.get(
            'dn_cfg', {}
        ).get('box_noise_scale')
        assert small.bbox_head.loss_bbox == own.bbox_head.loss_bbox
        if 'type' not in method.changes:
            assert small.type == own.type
            assert small.bbox_head.loss_cls == own.bbox_head.loss_cls
            assert small.train_cfg == own.train_cfg
        if name != 'DN-DETR':
            assert small.num_feature_levels == 3


def arguments(out: Path, *more: str) -> list[str]:
    return [
        *('--out', str(out), '--images', '4', '2', '--epochs', '1', '2'),
        *('--methods', 'Deformable DETR', 'DN-DETR', '--repeats', '1'),
        *('--seeds', '0', '--cfg-options', 'image_size=32', *more),
    ]


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interrupted in the second training, then repeated."""
    out = tmp_path_factory.mktemp('compared')
    note = comparison._NoteAP.after_val_epoch

    def interrupt(hook: Hook, runner: Runner, metrics: dict) -> None:
        note(hook, runner, metrics)
        if 'dn-detr' in runner.work_dir:
            raise KeyboardInterrupt

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison._NoteAP, 'after_val_epoch', interrupt)
        with pytest.raises(SystemExit):
            compare.main(arguments(out))
    assert len(read(out / 'results.json')['ap']['Deformable DETR']) == 1
    assert not (out / 'steps.json').exists()
    compare.main(arguments(out))
    torch.set_num_threads(threads)
    return out


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_results_are_written_down(finished: Path) -> None:
    results = read(finished / 'results.json')
    for name in ('Deformable DETR', 'DN-DETR'):
        assert list(results['ap'][name]) == ['0']
        assert list(results['ap'][name]['0']) == ['1', '2']
        assert all(0 <= ap <= 1 for ap in results['ap'][name]['0'].values())
        assert results['steps'][name]['seconds'] > 0
        assert results['steps'][name]['peak_mib'] > 0
    rows = (finished / 'table.md').read_text().splitlines()
    assert [row.split(' | ')[0] for row in rows[2:]] == [
        '| Deformable DETR',
        '| DN-DETR',
    ]
    assert 'DN-DETR' in (finished / 'side_by_side.svg').read_text()


def test_the_killed_training_went_on(finished: Path) -> None:
    """Its second log begins with the second epoch; the other has one."""
    logs = {
        name: sorted((finished / 'runs' / name).glob('seed-0/*/*.log'))
        for name in ('deformable-detr', 'dn-detr')
    }
    assert [len(found) for found in logs.values()] == [1, 2]
    first, second = (path.read_text() for path in logs['dn-detr'])
    assert 'Epoch(val) [2]' not in first
    assert 'Epoch(val) [1]' not in second
    assert 'Epoch(val) [2]' in second


def test_finished_trainings_are_skipped(
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(comparison, 'build_runner', None)
    monkeypatch.setattr(comparison, 'measure', None)
    compare.main(arguments(finished))
    assert '| DN-DETR | ' in capsys.readouterr().out


def test_other_settings_need_another_folder(finished: Path) -> None:
    with pytest.raises(SystemExit, match=r'with epochs=\[1, 2\], not \[1\]'):
        compare.main([*arguments(finished), '--epochs', '1'])


def test_unknown_method_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no 'DN'; expected .*'DN-DETR'"):
        compare.main(['--methods', 'DN', '--out', str(tmp_path)])


@pytest.mark.parametrize('evaluated', [['1'], ['1', '2']])
def test_training_without_its_evaluation_starts_anew(
    tmp_path: Path, evaluated: list[str]
) -> None:
    """A checkpoint is written before its evaluation."""
    checkpoint = tmp_path / 'run' / 'epoch_2.pth'
    checkpoint.parent.mkdir()
    checkpoint.touch()
    found = dict.fromkeys(evaluated, 0.1)
    comparison._drop_unevaluated(checkpoint.parent, [1, 2, 4], found)
    assert checkpoint.exists() == ('2' in evaluated)


def test_table_has_mean_and_range() -> None:
    trained = {
        'A': {'0': {'1': 0.1, '2': 0.2}, '1': {'1': 0.2, '2': 0.4}},
        'B': {'0': {'1': 0.05}},
    }
    steps = {'A': dict(seconds=0.1234, peak_mib=56.7)}
    head, _, first, second = report.table(
        ['1', '2'], trained, steps
    ).splitlines()
    assert (
        head == '| Method | AP after 1 | 2 epochs | Seeds | s per step | MiB |'
    )
    assert first == (
        '| A | 15.0 (10.0 to 20.0) | 30.0 (20.0 to 40.0) | 2 | 0.123 | 56.7 |'
    )
    assert second == '| B | 5.0 |  | 0 |  |  |'
