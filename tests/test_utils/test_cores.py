import os

import pytest

from project.utils.cores import num_cores


def test_cores_are_those_that_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 3, 5})
    assert num_cores() == 3


def test_systems_that_know_no_affinity_count_all_cores(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delattr(os, 'sched_getaffinity', raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 10)
    assert num_cores() == 10
