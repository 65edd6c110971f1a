# Copyright (c) mmdetr authors. All rights reserved.
import re

import pytest

from tests.helpers.training import load_tool

benchmark = load_tool('analysis_tools/benchmark_attention')


def test_table(capsys: pytest.CaptureFixture) -> None:
    benchmark.main(['pytorch', '--shape', '64', '96'])
    rows = re.findall(
        r'([\d.]+) \| +([\d.]+) \| (\w+), (\d+) queries, (.*), pytorch',
        capsys.readouterr().out,
    )
    # 8 x 12, 4 x 6, 2 x 3 and 1 x 2 pixels.
    queries = [('encoder', '128'), ('decoder', '900')]
    passes = ['forward', 'forward, backward']
    assert [row[2:] for row in rows] == [
        (*pair, done) for pair in queries for done in passes
    ]
    assert all(float(row[0]) > 0 for row in rows)
    assert {row[1] for row in rows} == {'1.0'}


def test_unknown_backend_is_told() -> None:
    with pytest.raises(SystemExit, match=r"no backend 'cudnn'"):
        benchmark.main(['cudnn'])
