"""One daemon for all tests here, asked by three: its own user on the socket, Ada with a token, and anybody."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx2
import pytest

from tests.asking import asking
from tests.program import Program, installed

TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="session")
def program() -> Iterator[Program]:
    """The daemon, on its socket and on a port; `email` fails there at the first attempt."""
    with installed(
        LATER_PORT=str(_free_port()),
        LATER_TOKEN=TOKEN,
        LATER_OWNER="ada",
        LATER_EMAIL__HOST="127.0.0.1",
        LATER_EMAIL__PORT="9",
        LATER_EMAIL__SECURITY="none",
        LATER_RETRY__ATTEMPTS="1",
    ) as program:
        program.start()
        yield program


@pytest.fixture(scope="session")
def me(program: Program) -> Iterator[httpx2.Client]:
    """The daemon's own user, on the socket."""
    with asking(program) as client:
        yield client


@pytest.fixture(scope="session")
def ada(program: Program) -> Iterator[httpx2.Client]:
    """The owner that the token names, over TCP."""
    with over_tcp(program, authorization=f"Bearer {TOKEN}") as client:
        yield client


@pytest.fixture(scope="session")
def anybody(program: Program) -> Iterator[httpx2.Client]:
    """Somebody on the network, without a token."""
    with over_tcp(program) as client:
        yield client


def over_tcp(program: Program, **headers: str) -> httpx2.Client:
    url = f"http://127.0.0.1:{program.env['LATER_PORT']}"
    return httpx2.Client(base_url=url, headers=headers, timeout=30, verify=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
