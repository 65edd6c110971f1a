"""Detectors are timed in turn, on the same images."""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from mmdet.datasets import CocoDataset

from tests.helpers.training import TOY_CONFIG, load_tool

benchmark = load_tool('analysis_tools/benchmark')
benchmarking = load_tool('analysis_tools/_benchmarking')
variants = import_module('_variants')


OPTIONS = ('--shape', '64', '96', '--repeats', '2', '--device', 'cpu')


def run(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    options = ['--cfg-options', 'model.num_queries=5']
    benchmark.main([*OPTIONS, *map(str, arguments), *options])
    return capsys.readouterr().out


def test_inference_of_two_backends(capsys: pytest.CaptureFixture) -> None:
    printed = run(capsys, f'{TOY_CONFIG}@pytorch', TOY_CONFIG)
    rows = re.findall(
        r'([\d.]+) \| +([\d.]+) \| +([\d.]+) \| +\| (\d): .*toy', printed
    )
    assert [row[3] for row in rows] == ['1', '2']
    for seconds, ratio, rate, _ in rows:
        assert float(seconds) > 0
        assert float(ratio) > 0
        assert float(rate) == pytest.approx(1 / float(seconds), rel=0.05)
    assert float(rows[0][1]) == 1
    assert 'image 64x96, batch 1' in printed
    (shares,) = re.findall(r'^1: network (.*)%, post-.* (.*)%$', printed, re.M)
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.2)


def test_training_is_written_down(
    capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    run(
        capsys,
        TOY_CONFIG,
        *('--mode', 'training', '--gts', '3', '--batch-size', '2'),
        *('--out', tmp_path, '--cpu-time'),
    )
    content = json.loads((tmp_path / 'benchmark.json').read_text())
    assert content['settings']['boxes'] == 3
    (row,) = content['rows']
    assert sum(row['shares'].values()) == pytest.approx(1)
    assert list(row['shares']) == [
        'network',
        'matching and losses',
        'backward',
        'clipping',
        'optimiser',
    ]
    assert min(row['shares'].values()) > 0
    assert (tmp_path / 'benchmark.png').stat().st_size > 1000


def test_variants_of_a_config(
    capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    """Recomputed layers need less memory; mixed precision is the config's."""
    option = 'optim_wrapper.type=AmpOptimWrapper@optim_wrapper.dtype=bfloat16'
    recomputing = 'model.backbone.with_cp=True@model.decoder.num_cp=2@pytorch'
    run(
        capsys,
        TOY_CONFIG,
        f'{TOY_CONFIG}@{recomputing}',
        f'{TOY_CONFIG}@{option}',
        *('--mode', 'training', '--memory', '--out', tmp_path),
        *('--shape', '256', '384', '--repeats', '1'),
    )
    content = json.loads((tmp_path / 'benchmark.json').read_text())
    plain, recomputed, mixed = (row['peak_mib'] for row in content['rows'])
    assert recomputed < plain
    assert mixed != plain


def test_a_worker_loads_as_many_images_as_are_asked_for(
    capsys: pytest.CaptureFixture,
    toy_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    load = CocoDataset.__getitem__

    def note(dataset: CocoDataset, index: int) -> dict:
        seen.append(load(dataset, index)['data_samples'].img_id)
        return load(dataset, index)

    monkeypatch.setattr(CocoDataset, '__getitem__', note)
    options = ['--mode', 'data', '--batch-size', '3', *OPTIONS]
    config = f'{TOY_CONFIG}@data_root={toy_data}'
    benchmark.main([config, *options])
    (_, _, rate) = re.findall(
        r'([\d.]+) \| +([\d.]+) \| +([\d.]+) \|', capsys.readouterr().out
    )[0]
    assert float(rate) > 0
    assert len(seen) == 9  # one run more, to warm up
    assert len(set(seen)) == 8  # all training images


def test_data_that_is_not_there_is_told(tmp_path: Path) -> None:
    config = f'{TOY_CONFIG}@data_root={tmp_path / "none"}/'
    with pytest.raises(SystemExit, match=r'none/ of .* does not exist'):
        benchmark.main([config, '--mode', 'data', *OPTIONS])


def test_unknown_backend_is_told_with_those_there_are() -> None:
    with pytest.raises(SystemExit, match=r"'cudnn' .*, cpp, .*pytorch"):
        benchmark.main([f'{TOY_CONFIG}@cudnn', *OPTIONS])


def test_variants_run_in_turn() -> None:
    calls: list[str] = []
    variants = {name: lambda name=name: calls.append(name) for name in 'ab'}
    seconds = benchmarking.time_in_turn(variants, 2, benchmarking.Clock('cpu'))
    assert ''.join(calls) == 'ababab'
    assert [len(times) for times in seconds.values()] == [2, 2]


class Event:
    """An event of a GPU, each a millisecond after the one before."""

    log: ClassVar[list[str]] = []

    def __init__(self, device: torch.device, enable_timing: bool) -> None:
        assert device.type == 'cuda'
        assert enable_timing

    def record(self) -> None:
        self.log.append('record')
        self.time = self.log.count('record')

    def synchronize(self) -> None:
        self.log.append('wait')

    def elapsed_time(self, later: 'Event') -> float:
        return later.time - self.time


def test_nothing_waits_for_a_gpu_before_the_end_of_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, 'Event', Event)
    monkeypatch.setattr(Event, 'log', [])
    words = [str(TOY_CONFIG), '--mode', 'training', '--batch-size', '1']
    args = benchmark.parse_args([*words, *OPTIONS])
    clock = benchmarking.Clock('cuda')
    phases = variants.build_variant(words[0], args, 'cpu', clock)()
    assert ' '.join(Event.log).startswith('record ' * 8 + 'wait')
    assert Event.log.count('record') == 8
    # A millisecond from an event to the next, and eight events.
    assert sum(phases.values()) == pytest.approx(7e-3)
    assert phases['matching and losses'] == pytest.approx(1e-3)
    assert phases['clipping'] == pytest.approx(1e-3)


def test_missing_config_is_named() -> None:
    with pytest.raises(SystemExit, match=r'Error: The config no\.py does no'):
        benchmark.main(['no.py'])
    with pytest.raises(SystemExit, match=r'config mmdet::no\.py is not found'):
        benchmark.main(['mmdet::no.py'])
