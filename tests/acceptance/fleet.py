"""Several daemons on one server: each the real program in a home of its own, and one sink for all of them."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import anyio

from later.api.principal import login_of
from later.clock import Clock
from later.core.task import Millis, Status, Task
from later.daemon.diary import REFUSED
from later.store.redis import RedisStore
from tests.acceptance.api import Api
from tests.acceptance.sink import Sink
from tests.program import Program, installed
from tests.servers import Server

ADDED_AT_A_TIME = 32
KEPT_FOR_GOOD = {"later:meta", "later:{0}:claims", "later:{0}:outbox"}
"""What a server holds when every task has come to its end."""


@asynccontextmanager
async def fleet(arrivals: Sink, environments: Sequence[Mapping[str, str]]) -> AsyncIterator[list[Program]]:
    """One daemon for each environment, all of them started; those that still run at the end are stopped."""
    with ExitStack() as homes:
        daemons = [homes.enter_context(installed(**{**arrivals.settings, **each})) for each in environments]
        try:
            for daemon in daemons:
                daemon.start(wait=False)
            for daemon in daemons:  # in a thread, as what lies between them and the server may be of this event loop
                await anyio.to_thread.run_sync(lambda daemon=daemon: daemon.wait_for_log("started", timeout=60))
            yield daemons
        finally:
            for daemon in daemons:
                daemon.daemon.terminate()
            await anyio.to_thread.run_sync(homes.close)


async def fill(url: str, due: Mapping[str, Millis], *, message: str) -> None:
    """Add these tasks for the sink, in the name of whoever runs this, many at a time."""
    store = RedisStore(url, clock=Clock(), holder="")
    waiting = iter(due.items())

    async def add() -> None:
        for task_id, moment in waiting:
            assert not (await store.add(_task(task_id, message=message, due=moment))).kept

    async with store.session():
        await store.open()
        async with anyio.create_task_group() as adders:
            for _ in range(ADDED_AT_A_TIME):
                adders.start_soon(add)


def _task(task_id: str, *, message: str, due: Millis) -> Task:
    now = int(time.time() * 1000)
    return Task(
        owner=login_of(os.getuid()),
        id=task_id,
        uid=f"uid-{task_id}",
        queue="default",
        status=Status.PENDING,
        action="sink",
        message=message,
        due=due,
        nominal=due,
        created=now,
        updated=now,
    )


def nothing_is_left(server: Server) -> bool:
    """Whether every task has come to its end, and every end is in some daemon's history."""
    if server.ask("DBSIZE") > len(KEPT_FOR_GOOD) or server.ask("XLEN", "later:{0}:outbox"):
        return False
    return set(server.ask("KEYS", "*")) <= KEPT_FOR_GOOD


def api(daemon: Program) -> Api:
    return Api(daemon.state / "api.sock")


async def past(daemon: Program) -> Counter[str]:
    """How often this daemon's own history has which task as completed."""
    rows = await anyio.to_thread.run_sync(lambda: api(daemon).all("/v1/history", status="completed"))
    return Counter(one["id"] for one in rows)


async def busy(daemon: Program) -> int:
    """How many of its places are taken."""
    return (await _stats(daemon))["workers"]["busy"]


async def outcomes(daemon: Program) -> Mapping[str, int]:
    """How often what has come of its attempts since its start."""
    return (await _stats(daemon))["outcomes"]


async def _stats(daemon: Program) -> Mapping[str, Any]:
    answer = await anyio.to_thread.run_sync(lambda: api(daemon).ask("GET", "/v1/stats"))
    return answer.body


async def refused(daemon: Program) -> int:
    """How many of its attempts changed nothing, as their lease was lost."""
    counted = await outcomes(daemon)
    return sum(counted[name] for name in REFUSED)


def complaints(daemon: Program) -> list[str]:
    """What in this daemon's log is an error, or no event at all."""
    lines = (daemon.home / "log").read_text().splitlines()
    return [line for line in lines if not line.startswith("{") or json.loads(line)["level"] in ("error", "critical")]
