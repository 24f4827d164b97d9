"""100,000 tasks that came due while no daemon ran: drained oldest first, within the pool and in bounded memory."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from later.clock import Clock
from later.store.redis import RedisStore
from tests.daemon.parts import plain, task
from tests.program import Program, installed
from tests.servers import served

TASKS = 100_000
CALLERS = 32
WORKERS = 50
LONG_AGO = 1_700_000_000_000
GROWTH_MIB = 50
BATCHES = 4 * WORKERS
"""A task may be overtaken by those that are performed beside it, and by a batch of settlements."""


@dataclass
class Watch:
    """The most that was ever seen."""

    running: int = 0
    rss_mib: float = 0.0


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_backlog_is_drained_oldest_first_within_its_bounds(rng: random.Random) -> None:
    with (
        served("valkey", appendonly="yes", appendfsync="always") as server,
        installed(LATER_REDIS_URL=server.url, LATER_WORKERS=str(WORKERS)) as program,
    ):
        program.start()
        before = rss_mib(program)
        assert program.stop() == 0
        await fill(server.url, rng)
        program.start()
        began = time.monotonic()
        async with watching(server.url, program) as seen:
            with anyio.fail_after(400):
                while (done := len(past(program))) < TASKS:
                    await anyio.sleep(0.5)
        took = time.monotonic() - began
        print(f"{done / took:.0f} tasks/s; RSS {before:.0f} MiB idle, {seen.rss_mib:.0f} MiB at most")
        order = past(program)
        assert len(set(order)) == TASKS
        assert max(abs(at - due) for at, due in enumerate(order)) <= BATCHES
        assert WORKERS / 2 < seen.running <= WORKERS
        assert seen.rss_mib - before < GROWTH_MIB
        assert program.stop() == 0


async def fill(url: str, rng: random.Random) -> None:
    """The tasks, each of another millisecond long ago, in no order."""
    store = RedisStore(url, clock=Clock(), holder="nobody")
    numbers = list(range(TASKS))
    rng.shuffle(numbers)

    async def add(caller: int) -> None:
        for at in numbers[caller::CALLERS]:
            await store.add(task(f"{at}", due=LONG_AGO + at, action="inbox"))

    async with store.session(), anyio.create_task_group() as callers:
        await store.open()
        for caller in range(CALLERS):
            callers.start_soon(add, caller)


@asynccontextmanager
async def watching(url: str, program: Program) -> AsyncIterator[Watch]:
    seen, over = Watch(), anyio.Event()

    async def look() -> None:
        async with plain(url) as server:
            while not over.is_set():
                seen.running = max(seen.running, await server.zcard("later:{0}:running:default"))
                seen.rss_mib = max(seen.rss_mib, rss_mib(program))
                await anyio.sleep(0.005)

    async with anyio.create_task_group() as eyes:
        eyes.start_soon(look)
        try:
            yield seen
        finally:
            over.set()


def past(program: Program) -> list[int]:
    """The due times of what is completed, as their distance from the first, in the order of completion."""
    with closing(sqlite3.connect(f"file:{program.state / 'history.db'}?mode=ro", uri=True)) as history:
        rows = history.execute("SELECT due FROM past WHERE status = 'completed' ORDER BY number")
        return [due - LONG_AGO for (due,) in rows]


def rss_mib(program: Program) -> float:
    assert program.daemon is not None
    pages = int(Path(f"/proc/{program.daemon.pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20
