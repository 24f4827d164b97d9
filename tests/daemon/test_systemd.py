"""What the daemon tells systemd, heard on a real notification socket."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import Program
from tests.servers import Server, served
from tests.servers import program as server_program

SOON_S = 20.0


class Systemd:
    """The other end of sd_notify(3)."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(SOON_S)

    def hears(self) -> str:
        """The next thing that is said."""
        return self._socket.recv(4096).decode()

    def has_heard(self) -> list[str]:
        """All that was said so far and not yet heard."""
        heard = []
        self._socket.setblocking(False)
        try:
            while True:
                heard.append(self.hears())
        except BlockingIOError:
            return heard
        finally:
            self._socket.settimeout(SOON_S)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(program: Program) -> Iterator[Systemd]:
    systemd = Systemd(str(program.home / "notify"))
    yield systemd
    systemd.close()


@pytest.fixture
def absent(program: Program) -> Iterator[Server]:
    """A server that has not been started yet."""
    home = program.home / "redis"
    home.mkdir()
    server = Server(server_program("valkey", home), home)
    yield server
    server.end()


def test_ready_is_said_when_the_store_answers_and_not_before(program: Program, systemd: Systemd, absent: Server):
    program.start(wait=False, NOTIFY_SOCKET=systemd.address, LATER_REDIS_URL=absent.url)
    program.wait_for_log("store_lost")
    assert systemd.has_heard() == []
    absent.start()
    assert systemd.hears() == "READY=1"
    program.run("health", LATER_REDIS_URL=absent.url)


def test_stopping_is_said_when_it_begins_and_nothing_after(program: Program, systemd: Systemd):
    program.start(NOTIFY_SOCKET=systemd.address)
    assert systemd.hears() == "READY=1"
    assert program.stop() == 0
    # The grace period of 20 s and 40 s more, whatever the unit allows.
    assert systemd.has_heard() == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=60000000"]


def test_life_is_reported_again_and_again(program: Program, systemd: Systemd):
    program.start(NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="300000")
    heard = [systemd.hears() for _ in range(6)]
    assert sorted(set(heard)) == ["READY=1", "WATCHDOG=1"]
    assert heard.count("READY=1") == 1


def test_no_life_is_reported_while_the_store_is_silent(program: Program, systemd: Systemd):
    with served("valkey") as server:
        program.start(NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="300000", LATER_REDIS_URL=server.url)
        while systemd.hears() != "WATCHDOG=1":
            pass
        server.send(signal.SIGSTOP)
        systemd.has_heard()
        try:
            program.wait_for_log("store_lost")
            assert len(systemd.has_heard()) <= 1  # one reply may have been under way
            assert systemd.has_heard() == []
        finally:
            server.send(signal.SIGCONT)
        assert systemd.hears() == "WATCHDOG=1"


def test_without_a_watchdog_only_the_milestones_are_said(program: Program, systemd: Systemd):
    program.start(NOTIFY_SOCKET=systemd.address)
    program.run("health")
    program.stop()
    assert [said.splitlines()[0] for said in systemd.has_heard()] == ["READY=1", "STOPPING=1"]


def test_a_socket_that_leads_nowhere_ends_no_daemon(program: Program):
    program.start(NOTIFY_SOCKET="/nowhere/at/all")
    assert program.stop() == 0
    assert program.events("systemd_not_told")


def test_a_socket_in_the_abstract_namespace_is_found(program: Program):
    systemd = Systemd(f"@later-{Path(program.home).name}")
    try:
        program.start(NOTIFY_SOCKET=systemd.address)
        assert systemd.hears() == "READY=1"
    finally:
        systemd.close()
