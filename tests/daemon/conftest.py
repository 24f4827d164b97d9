"""Real servers for the daemon's parts: one that all tests share, and one that a test may stop and kill."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from later.clock import Clock
from later.store.embedded import EmbeddedServer
from tests.servers import Server, served


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    with served("valkey") as server:
        yield server


@pytest.fixture
def url(shared_server: Server) -> str:
    """The address of a server that holds nothing."""
    shared_server.ask("FLUSHALL")
    return shared_server.url


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    """An embedded server of the test's own, empty, in a directory with a name short enough for its socket."""
    home = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    server = EmbeddedServer(home / "state", clock=Clock())
    async with server.running():
        yield server
    shutil.rmtree(home)
