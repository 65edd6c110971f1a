"""Losses of float32, bf16 and fp16, from the same weights and images."""

import json
import math
from importlib import import_module
from pathlib import Path

import pytest
import torch

from tests.helpers.training import load_tool, toy_data

__all__ = ['toy_data']

compare = load_tool('analysis_tools/compare_precisions')
# A module that the tool imports, to be patched.
trainings = import_module('_precisions')


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return [
        *(str(data / 'annotations/train.json'), str(data / 'train')),
        *('--methods', 'DN-DETR', '--iterations', '2', '--out', str(out)),
        *('--cfg-options', 'image_size=64', *more),
    ]


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory, toy_data: Path) -> Path:
    out = tmp_path_factory.mktemp('precisions')
    threads = torch.get_num_threads()
    compare.main(arguments(toy_data, out))
    torch.set_num_threads(threads)
    return out


def test_trainings_differ_by_rounding(finished: Path) -> None:
    found = json.loads((finished / 'precisions.json').read_text())['DN-DETR']
    assert list(found) == list(compare.PRECISIONS)
    first = {precision: losses[0] for precision, losses in found.items()}
    assert len(set(first.values())) == 4
    full = first['fp32']
    assert first['rounded'] == pytest.approx(full, rel=1e-5)
    assert first['fp16'] == pytest.approx(full, rel=5e-3)
    assert first['bf16'] == pytest.approx(full, rel=2e-2)
    assert abs(first['fp16'] / full - 1) < abs(first['bf16'] / full - 1)


def test_table_and_picture(finished: Path) -> None:
    head, _, row = (finished / 'table.md').read_text().splitlines()
    assert head.split(' | ')[-3:] == ['rounded', 'bf16', 'fp16 |']
    assert row.startswith('| DN-DETR | ')
    assert row.count('%') == 3
    picture = (finished / 'precisions.svg').read_text()
    assert all(name in picture for name in ('DN-DETR', 'rounded', 'bf16'))


def test_what_is_trained_is_not_trained_again(
    finished: Path,
    toy_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(trainings, 'set_precision', None)
    compare.main(arguments(toy_data, finished))
    assert '| DN-DETR | ' in capsys.readouterr().out


def test_other_settings_need_another_folder(
    finished: Path, toy_data: Path
) -> None:
    words = arguments(toy_data, finished, '--iterations', '3')
    with pytest.raises(SystemExit, match='with iterations=2, not 3; name'):
        compare.main(words)


def test_ending_is_the_last_tenth() -> None:
    assert compare.ending([math.inf] * 18 + [1, 3]) == 2
    assert compare.ending([5]) == 5


def test_a_step_with_an_overflow_is_left_out() -> None:
    """And the scale of the loss becomes smaller."""
    weight = torch.nn.Parameter(torch.ones(2))
    wrapper = trainings.SlowFP16OptimWrapper(
        optimizer=torch.optim.SGD([weight], lr=1.0)
    )
    wrapper.update_params((weight * math.inf).sum())
    assert weight.tolist() == [1, 1]
    assert wrapper.loss_scaler.get_scale() < 2**16
    wrapper.update_params(weight.sum())
    assert weight.tolist() == [0, 0]
