"""One helper reads all settings and says what is wrong with them."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from project.utils.errors import UserError
from project.utils.settings import (
    Count,
    Eps,
    IoU,
    Positive,
    Range,
    checked,
    read_setting,
    read_settings,
)


@dataclass(frozen=True)
class Inner:
    iou_threshold: IoU = 0.5


@dataclass(frozen=True)
class Outer:
    count: Count | None = None
    kind: Literal['a', 'b'] = 'a'
    flag: bool = False
    inner: Inner = Inner(0.7)
    other: Inner | None = None


def test_what_is_left_out_is_the_default() -> None:
    read = read_settings(Outer(), dict(_scope_='mmdet', inner={}), 'x')
    assert read == Outer()
    assert read_settings(Outer(flag=True), None, 'x') == Outer(flag=True)
    assert read_settings(Outer(), dict(other={}), 'x').other == Inner()


def test_a_computed_whole_number_is_one() -> None:
    count = read_settings(Outer(), dict(count=6.0), 'x').count
    assert count == 6
    assert isinstance(count, int)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (
            dict(inner=dict(iou_treshold=1)),
            "model.x.inner.iou_treshold: inner takes no 'iou_treshold': did "
            'you mean iou_threshold?',
        ),
        (
            dict(colour=1),
            "model.x.colour: x takes no 'colour'; it takes count, flag, "
            'inner, kind, other.',
        ),
        (
            dict(inner=dict(iou_threshold=2)),
            'model.x.inner.iou_threshold=2 should be an IoU, 0 to 1.',
        ),
        (
            dict(count=-1),
            'model.x.count=-1 should be a whole number, 0 or more.',
        ),
        (
            dict(count=True),
            'model.x.count=True should be a whole number, 0 or more.',
        ),
        (dict(kind='c'), "model.x.kind='c' should be one of 'a', 'b'."),
        (dict(flag='no'), "model.x.flag='no' should be True or False."),
        (dict(inner=3), 'model.x.inner=3 should be a dict of iou_threshold.'),
    ],
)
def test_a_wrong_setting_is_told_with_its_place(
    settings: dict, sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        read_settings(Outer(), settings, 'model.x')
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ('kind', 'right', 'wrong', 'expected'),
    [
        (Eps, 0.49, 0.5, 'a number, above 0 and below 0.5'),
        (Eps, 1e-9, 0, 'a number, above 0 and below 0.5'),
        (Positive, float('inf'), 0, 'a number, above 0'),
        (IoU, 1, float('nan'), 'an IoU, 0 to 1'),
        (Annotated[int, Range(-1, 3)], -1, 4, 'a whole number, -1 to 3'),
        (float, 0, '0', 'a number'),
        (list[int], (8, 11.0), 8, 'a list'),
    ],
)
def test_ranges(kind: Any, right: Any, wrong: Any, expected: str) -> None:
    read_setting(kind, right, 'x')
    with pytest.raises(UserError) as error:
        read_setting(kind, wrong, 'x')
    assert str(error.value) == f'x={wrong!r} should be {expected}.'


def test_arguments_are_checked_however_they_are_given() -> None:
    @checked('model', later=list[int])
    def build(
        count: Count, *, free: list[int] | dict | None = None, **kwargs: Any
    ) -> int:
        return count

    assert build(3, free={}, other=-1, later=[1]) == 3
    for args, kwargs, name in (
        ((-1,), {}, 'model.count=-1'),
        ((), dict(count=-1), 'model.count=-1'),
        ((1,), dict(later=[1, 'x']), r"model.later\[1\]='x'"),
    ):
        with pytest.raises(UserError, match=name):
            build(*args, **kwargs)
    with pytest.raises(TypeError, match=r'build\(\) missing 1 required'):
        build()
