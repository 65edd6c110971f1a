"""Detectors are timed in turn, on one image."""

import re

import pytest

from tests.helpers.training import TOY_CONFIG, load_tool

benchmark = load_tool('analysis_tools/benchmark_inference')
benchmarking = load_tool('analysis_tools/_benchmarking')


def test_table(capsys: pytest.CaptureFixture) -> None:
    options = ['--shape', '64', '96', '--repeats', '2', '--device', 'cpu']
    options += ['--cfg-options', 'model.num_queries=5']
    benchmark.main([str(TOY_CONFIG), *options])
    (row,) = re.findall(
        r'([\d.]+) \| +([\d.]+) \| 1: .*toy', capsys.readouterr().out
    )
    assert float(row[0]) > 0
    assert float(row[1]) == 1


def test_variants_run_in_turn() -> None:
    calls: list[str] = []
    variants = {name: lambda name=name: calls.append(name) for name in 'ab'}
    seconds = benchmarking.time_in_turn(variants, 2, lambda: None)
    assert ''.join(calls) == 'ababab'
    assert [len(times) for times in seconds.values()] == [2, 2]


def test_missing_config_is_named() -> None:
    with pytest.raises(SystemExit, match=r'Error: The config no\.py does no'):
        benchmark.main(['no.py'])
