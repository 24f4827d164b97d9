"""Real servers for the tests of the store: each test on both kinds, emptied before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
import redis.asyncio as redis

from later.store.keys import Lane
from later.store.redis import RedisStore
from tests.contract.world import ServerWorld
from tests.servers import KINDS, Server, served


@pytest.fixture(scope="session", params=KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One server for all tests that leave it as it was."""
    with served(request.param) as server:
        yield server


@pytest.fixture
def on_server(running: Server) -> Server:
    running.ask("FLUSHALL")
    return running


@pytest.fixture
async def world(on_server: Server) -> AsyncIterator[ServerWorld]:
    async with AsyncExitStack() as stack:
        yield ServerWorld(on_server, stack)


@pytest.fixture
async def store(world: ServerWorld) -> RedisStore:
    return await world.store("one")


@pytest.fixture
def raw(world: ServerWorld) -> redis.Redis:
    """Redis itself, to look at keys and to spoil them."""
    return world.raw


@pytest.fixture
def lane() -> Lane:
    """The queue `default`."""
    return Lane(0, "default")
