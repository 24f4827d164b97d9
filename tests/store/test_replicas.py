"""A server with a replica: what is acknowledged is on both, so that a failover loses nothing of it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from later.clock import Clock
from later.core.errors import StoreUnavailable
from later.core.task import Status
from later.store.base import Movement, Standing
from later.store.redis import RedisStore
from tests.contract.world import LEASE, thought
from tests.servers import KINDS, Server, served
from tests.waiting import wait_until

LONG_AGO = 1_700_000_000_000


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    """A server, and its replica."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rules = {"port": str(port), "bind": "127.0.0.1", "repl_diskless_sync_delay": "0"}
    with served(request.param, **rules) as master, served(request.param) as replica:
        replica.ask("REPLICAOF", "127.0.0.1", port)
        yield master, replica


@pytest.fixture
async def store(pair: tuple[Server, Server]) -> AsyncIterator[RedisStore]:
    master, replica = pair
    await wait_until(lambda: replica.ask("INFO", "replication")["master_link_status"] == "up")
    store = RedisStore(master.url, clock=Clock(), holder="one", replicas=1, lease=LEASE)
    async with store.session():
        yield store


async def test_what_is_acknowledged_outlives_the_server(pair: tuple[Server, Server], store: RedisStore) -> None:
    master, replica = pair
    for at in range(50):
        await store.add(thought(f"t{at}", due=LONG_AGO))
    await store.move("ana", "t0", Movement(states=frozenset(Status), to=Status.CANCELLED))
    master.end(signal.SIGKILL)
    replica.ask("REPLICAOF", "NO", "ONE")
    promoted = RedisStore(replica.url, clock=Clock(), holder="two")
    async with promoted.session():
        page = await promoted.page("ana", statuses=[Status.PENDING], cursor=None, limit=100)
    assert {task.id for task in page.tasks} == {f"t{at}" for at in range(1, 50)}


async def test_without_enough_replicas_nothing_is_acknowledged(pair: tuple[Server, Server], store: RedisStore) -> None:
    _, replica = pair
    replica.send(signal.SIGSTOP)
    task = thought(due=LONG_AGO)
    with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas"):
        await store.add(task)
    # Now it is there, and just as little on the replica; others ask over connections that have written nothing.
    again = [store.add(task), store.add(task), store.restore([Standing(task=task, since=LONG_AGO)]), store.restore([])]
    for refused in await asyncio.gather(*again, return_exceptions=True):
        assert isinstance(refused, StoreUnavailable)
    replica.send(signal.SIGCONT)
    assert (await store.add(task)).kept
