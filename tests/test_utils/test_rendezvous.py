"""Machines say whom they wait for, and not for ever."""

import socket
import threading

import pytest

from project.utils.errors import UserError
from project.utils.rendezvous import (
    timeout_of_environment,
    told_if_slow,
    wait_for_master,
)


@pytest.fixture
def port() -> int:
    """A port at which nothing answers yet."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def test_a_master_that_answers_is_not_waited_for(
    port: int, capfd: pytest.CaptureFixture
) -> None:
    with socket.create_server(('127.0.0.1', port)):
        wait_for_master('127.0.0.1', str(port), 60)
    assert capfd.readouterr().err == ''


def test_a_master_that_comes_late_is_waited_for(
    port: int, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('project.utils.rendezvous.INTERVAL', 0.1)
    servers = []
    timer = threading.Timer(
        0.5, lambda: servers.append(socket.create_server(('127.0.0.1', port)))
    )
    timer.start()
    wait_for_master('127.0.0.1', str(port), 60)
    servers[0].close()
    said = capfd.readouterr().err
    assert said.count('\n') == 1
    assert f'Waiting for the first process at 127.0.0.1:{port} for' in said


@pytest.mark.parametrize('address', ['127.0.0.1', 'no.such.host.invalid'])
def test_a_master_that_never_answers_is_told(port: int, address: str) -> None:
    with pytest.raises(UserError, match=rf'answer at {address}:{port} \('):
        wait_for_master(address, str(port), 0.1)


def test_a_port_that_is_none_is_told() -> None:
    with pytest.raises(UserError, match=r'127\.0\.0\.1:x'):
        wait_for_master('127.0.0.1', 'x', 0.1)


@pytest.mark.parametrize('text', ['0', '-1', 'soon', '1.5'])
def test_the_timeout_is_a_number(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv('TIMEOUT', text)
    with pytest.raises(UserError, match=f"TIMEOUT is '{text}'"):
        timeout_of_environment()


def test_what_is_quick_is_not_told(capfd: pytest.CaptureFixture) -> None:
    with told_if_slow('Waiting.'):
        pass
    assert capfd.readouterr().err == ''


def test_what_is_slow_is_told(
    capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    monkeypatch.setattr('project.utils.rendezvous.TELL_AFTER', 0.01)
    monkeypatch.setattr(
        'project.utils.rendezvous.tell', lambda sentence: told.set()
    )
    with told_if_slow('Waiting.'):
        assert told.wait(60)
