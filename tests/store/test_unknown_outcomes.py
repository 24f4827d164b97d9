"""Replies that are lost, late or never come: what was acknowledged is kept, and every call has an end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress

import anyio
import pytest

from later.clock import Clock
from later.core.errors import StoreUnavailable
from later.core.task import Status
from later.store.base import Movement
from later.store.keys import Lane
from later.store.redis import RedisStore
from tests.contract.world import HOUR, completed, thought
from tests.proxy import Proxy, between
from tests.servers import Server

LONG_AGO = 1_700_000_000_000
ADDS = 3_000
CALLERS = 16
CANCELLATIONS = 10_000
DEADLINE_S = 0.5


@pytest.fixture
async def line(on_server: Server) -> AsyncIterator[Proxy]:
    async with between(on_server.url) as line:
        yield line


@pytest.fixture
async def far(line: Proxy) -> AsyncIterator[RedisStore]:
    """A store at the other end of the line."""
    store = RedisStore(line.url, clock=Clock(), holder="far")
    async with store.session():
        await store.open()
        yield store


async def test_an_acknowledged_add_is_kept_and_none_is_kept_twice(
    store: RedisStore, far: RedisStore, line: Proxy, lane: Lane, rng: random.Random
) -> None:
    """One caller in two repeats what had no answer; the other never knows whether it was kept."""
    acknowledged: set[str] = set()
    unanswered: set[str] = set()
    line.cut_share = 0.01

    async def add(caller: int) -> None:
        for at in range(caller, ADDS, CALLERS):
            task = thought(f"t{at}", due=LONG_AGO + at)
            for _ in range(20 if caller % 2 else 1):
                try:
                    await far.add(task)
                except StoreUnavailable:
                    unanswered.add(task.id)
                else:
                    acknowledged.add(task.id)
                    break

    async with anyio.create_task_group() as disturbed:
        disturbed.start_soon(reset_now_and_then, line, rng)
        async with anyio.create_task_group() as callers:
            for caller in range(CALLERS):
                callers.start_soon(add, caller)
        disturbed.cancel_scope.cancel()
    assert line.cuts > ADDS / 200
    assert acknowledged & unanswered  # some were repeated
    assert unanswered - acknowledged  # of some nobody knows
    kept: list[str] = []
    while tasks := (await store.claim(lane, limit=50, lease=HOUR)).tasks:
        kept += [task.id for task in tasks]
    assert len(kept) == len(set(kept))
    assert acknowledged <= set(kept) <= acknowledged | unanswered
    counts = await store.counts()
    assert {name: count for name, count in counts.items() if count} == {"running": len(kept)}


@pytest.mark.slow
async def test_no_reply_is_given_to_another_question(store: RedisStore) -> None:
    """Whoever is cancelled while it waits leaves a reply behind, which must not be the next one's."""
    for at in range(100):
        await store.add(thought(f"t{at}", due=LONG_AGO, owner=f"o{at}"))

    async def ask(at: int) -> None:
        match at % 3:
            case 0:
                found = await store.get(f"o{at % 100}", f"t{at % 100}")
                assert found is not None
                assert found.owner == f"o{at % 100}"
            case 1:
                again = await store.add(thought(f"t{at % 100}", due=LONG_AGO, owner=f"o{at % 100}"))
                assert (again.kept, again.task.owner) == (True, f"o{at % 100}")
            case _:
                page = await store.page(f"o{at % 100}", statuses=list(Status), cursor=None, limit=9)
                assert [task.id for task in page.tasks] == [f"t{at % 100}"]

    async def disturb(caller: int) -> None:
        rng = random.Random(caller)
        for at in range(caller, CANCELLATIONS, CALLERS):
            cut = asyncio.create_task(ask(at))
            for _ in range(rng.randint(0, 6)):
                await asyncio.sleep(0)
            cut.cancel()
            await asyncio.wait([cut])
            assert cut.cancelled() or cut.exception() is None
            await ask(at + 1)

    async with anyio.create_task_group() as callers:
        for caller in range(CALLERS):
            callers.start_soon(disturb, caller)
    async with anyio.create_task_group() as all_at_once:  # no connection was lost to the pool
        for at in range(200):
            all_at_once.start_soon(ask, at)


@pytest.mark.parametrize("trouble", ["half open", "half open from the first", "slow"])
async def test_no_call_outlasts_its_deadline(
    on_server: Server, line: Proxy, lane: Lane, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr("later.store.calls.REPLY_S", DEADLINE_S)
    store = RedisStore(line.url, clock=Clock(), holder="far")
    async with store.session():
        await store.open()
        await store.add(thought("other", due=LONG_AGO))
        tasks = (await store.claim(lane, limit=1, lease=HOUR)).tasks
        calls: list[Awaitable[object]] = [  # what is not here is several, one after the other
            store.ping(),
            store.add(thought(due=LONG_AGO)),
            store.claim(lane, limit=1, lease=HOUR),
            store.extend(tasks, lease=HOUR),
            store.settle([completed(task) for task in tasks]),
            store.recover(lane, limit=1),
            store.move("ana", "other", Movement(states=frozenset(Status), to=Status.CANCELLED)),
            store.get("ana", "other"),
            store.head(lane),
            store.counts(),
            store.outbox.read(1),
        ]
        if trouble != "half open":
            line.drop()
        if trouble == "slow":
            on_server.ask("SCRIPT", "FLUSH")  # so that a script needs two replies
            line.delay_s = DEADLINE_S * 0.9  # each reply by itself is in time
        else:
            line.block()
        took: list[float] = []
        async with anyio.create_task_group() as all_at_once:
            for call in calls:
                all_at_once.start_soon(ended, call, took)
    assert len(took) == len(calls)
    assert max(took) < DEADLINE_S + 1


async def ended(call: Awaitable[object], took: list[float]) -> None:
    """Note how long it takes, whether it is answered or not."""
    began = time.monotonic()
    with suppress(StoreUnavailable):
        await call
    took.append(time.monotonic() - began)


async def reset_now_and_then(line: Proxy, rng: random.Random) -> None:
    while True:
        await anyio.sleep(rng.uniform(0.05, 0.15))
        line.drop()
