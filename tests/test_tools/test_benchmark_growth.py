"""How cost grows is measured, written down and drawn."""

import json
from pathlib import Path

import pytest

from tests.helpers.training import TOY_CONFIG, load_tool

growth = load_tool('analysis_tools/benchmark_growth')


def test_queries_and_boxes(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    growth.main(
        [
            str(TOY_CONFIG),
            *('--shape', '64', '96', '--repeats', '1', '--device', 'cpu'),
            *('--vary', 'queries', 'gts', '--sizes', '10', '5'),
            *('--out', str(tmp_path)),
        ]
    )
    rows = json.loads((tmp_path / 'growth.json').read_text())['rows']
    assert [(row['axis'], row['part']) for row in rows] == [
        (axis, part)
        for axis in ('queries', 'gts')
        for part in ('whole', 'matching and losses')
    ]
    assert all(row['sizes'] == [5, 10] for row in rows)
    assert all(min(row['seconds']) > 0 for row in rows)
    assert capsys.readouterr().out.count('slope') == 4
    for axis in ('queries', 'gts'):
        assert f'>{axis}<' in (tmp_path / f'growth_{axis}.svg').read_text()


def test_slopes() -> None:
    found = growth.slopes([1, 2, 4], [3.0, 6.0, 24.0])
    assert found['slope'] == pytest.approx(1.5)
    assert found['last_slope'] == pytest.approx(2.0)


def test_one_size_has_no_slope(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        growth.parse_args(['x.py', '--sizes', '5', '--out', '/tmp'])
    assert '--sizes needs at least two' in capsys.readouterr().err
