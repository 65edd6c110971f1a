"""Learning rates and schedules that were meant for another batch."""

from typing import Any

import pytest
from mmengine.config import Config

from project.preflight.batch import other_batch


def sentences(
    per_process: int,
    processes: int = 1,
    enable: bool = False,
    accumulated: int | None = None,
    **train_cfg: Any,
) -> list[str]:
    wrapper = dict(optimizer=dict(type='AdamW', lr=2e-4))
    if accumulated:
        wrapper['accumulative_counts'] = accumulated
    cfg = Config(
        dict(
            train_dataloader=dict(batch_size=per_process),
            train_cfg=train_cfg or dict(max_epochs=12),
            optim_wrapper=wrapper,
            auto_scale_lr=dict(base_batch_size=16, enable=enable),
        )
    )
    return other_batch(cfg, processes)


@pytest.mark.parametrize(
    'given',
    [
        dict(per_process=16),
        dict(per_process=2, processes=8),
        dict(per_process=2, accumulated=8),
        dict(per_process=1, processes=4, accumulated=4),
        dict(per_process=2, enable=True),
        dict(per_process=16, max_iters=1000),
    ],
)
def test_the_batch_that_was_meant(given: dict) -> None:
    assert sentences(**given) == []


def test_another_batch_with_epochs() -> None:
    (told,) = sentences(2)
    assert 'learning rate 0.0002' in told
    assert 'steps of 16 images, and these have 2' in told
    assert 'would be 2.5e-05: --auto-scale-lr sets that' in told
    assert 'base_batch_size=2' in told


def test_accumulation_is_part_of_the_batch() -> None:
    (told,) = sentences(1, 2, accumulated=4)
    assert 'these have 8' in told
    # mmengine's scaling would count 2 images.
    assert 'set optim_wrapper.optimizer.lr=0.0001' in told
    (told,) = sentences(2, accumulated=4, enable=True)
    assert 'base_batch_size to 4' in told


def test_another_batch_with_iterations() -> None:
    first, second = sentences(4, max_iters=1000)
    assert '1000 iterations were meant for batches of 16' in first
    assert 'to 4 times theirs' in first
    assert 'would be 5e-05' in second
    (only,) = sentences(4, max_iters=1000, enable=True)
    assert only == first


def test_nothing_is_known() -> None:
    cfg = Config(dict(train_dataloader=dict(batch_size=2)))
    assert other_batch(cfg, 1) == []
