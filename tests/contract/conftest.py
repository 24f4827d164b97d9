"""The worlds of the contract tests: both servers, emptied before each test, and the model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from later.store.base import Store
from later.store.keys import Lane
from tests.contract.world import ModelWorld, ServerWorld, World
from tests.servers import KINDS, Server, served


@pytest.fixture(scope="session", params=["model", *KINDS])
def ground(request: pytest.FixtureRequest) -> Iterator[Server | None]:
    """A running server, or None for the model."""
    if request.param == "model":
        yield None
        return
    with served(request.param) as server:
        yield server


@pytest.fixture
async def world(ground: Server | None) -> AsyncIterator[World]:
    if ground is None:
        yield ModelWorld()
        return
    ground.ask("FLUSHALL")
    async with AsyncExitStack() as stack:
        yield ServerWorld(ground, stack)


@pytest.fixture
async def store(world: World) -> Store:
    """The daemon that most tests look at."""
    return await world.store("one")


@pytest.fixture
def lane() -> Lane:
    """The queue `default`."""
    return Lane(0, "default")
