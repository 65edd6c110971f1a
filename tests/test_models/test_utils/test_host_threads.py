"""Independent tasks of the host."""

import os
import threading

import pytest

from project.models.utils.host_threads import num_host_threads, run_in_threads


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: range(6))


@pytest.mark.usefixtures('cores')
@pytest.mark.parametrize(
    ('processes', 'threads'), [(None, 6), ('2', 3), ('4', 1), ('64', 1)]
)
def test_processes_share_the_cores(monkeypatch, processes, threads):
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)
    if processes:
        monkeypatch.setenv('LOCAL_WORLD_SIZE', processes)
    assert num_host_threads() == threads


@pytest.mark.usefixtures('cores')
def test_tasks_run_side_by_side_and_keep_their_order(monkeypatch):
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)
    barrier = threading.Barrier(3, timeout=30)
    tasks = [lambda i=i: (barrier.wait(), i)[1] for i in range(6)]
    assert run_in_threads(tasks) == list(range(6))
    assert run_in_threads([]) == []


@pytest.mark.usefixtures('cores')
def test_the_first_error_is_raised():
    def fail(sentence: str) -> None:
        raise ValueError(sentence)

    tasks = [lambda: None, lambda: fail('one'), lambda: fail('two')]
    with pytest.raises(ValueError, match='one'):
        run_in_threads(tasks)
