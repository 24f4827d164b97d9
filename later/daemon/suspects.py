"""Tasks that may end daemons are kept apart, so that none is blamed for what its neighbour does."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace

from later.core.errors import StoreUnavailable
from later.core.task import Millis, Task
from later.daemon.pool import Attempt
from later.daemon.worker import Worker
from later.store.base import Held, Store

SUSPECT = 2
"""After one crash all are tried again side by side; after a second one of them may be to blame."""
COMPANY = 8
"""How many suspects are performed at a time. One that crashes in such company as well is then performed alone."""
ASIDE_MS: Millis = 2_000
"""How long, at most, a suspect stands aside before it asks again."""


class Suspects:
    """Stands before the worker: lets few suspects in at a time and puts the others aside."""

    def __init__(self, worker: Worker, store: Store, rng: random.Random, *, lease: Millis) -> None:
        self._worker = worker
        self._store = store
        self._rng = rng
        self._lease = lease
        self._room = COMPANY
        self._aside = 0
        self._all_aside = asyncio.Event()

    async def work(self, attempt: Attempt) -> None:
        """`Worker.work`, for a suspect when there is room for it."""
        task = attempt.task
        if task.crashes < SUSPECT:
            await self._worker.work(attempt)
        elif _share(task) > self._room or not await self._worked_apart(attempt):
            await self._put_aside(task)

    async def _worked_apart(self, attempt: Attempt) -> bool:
        """Take up the room and work, once nobody else would have a part in a crash; False if that cannot be."""
        share = _share(attempt.task)
        self._room -= share
        try:
            await asyncio.sleep(0)  # those of the same claim begin in the same turn of the event loop
            await self._let_all_be_aside()
            may_work = await self._may_be_blamed(attempt)
            if may_work:
                await self._worker.work(attempt)
            return may_work
        finally:
            self._room += share

    async def _let_all_be_aside(self) -> None:
        """Whoever still has a lease would share in a crash; but where the store is damaged that may last for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ASIDE_MS / 1000):
                while self._aside:
                    self._all_aside.clear()
                    await self._all_aside.wait()

    async def _may_be_blamed(self, attempt: Attempt) -> bool:
        """Whether the store has noted that a crash from now on is this task's own, where it is performed alone."""
        if _share(attempt.task) < COMPANY:
            return True
        try:
            [held] = await self._store.extend([attempt.task], lease=self._lease, alone=True)
        except StoreUnavailable:
            return False
        if held is Held.CANCEL:
            attempt.task = replace(attempt.task, cancel=True)
        return held is not Held.LOST

    async def _put_aside(self, task: Task) -> None:
        self._aside += 1
        try:
            await self._worker.put_aside(task, self._store.now() + self._rng.randint(ASIDE_MS // 2, ASIDE_MS))
        finally:
            self._aside -= 1
            if not self._aside:
                self._all_aside.set()


def _share(task: Task) -> int:
    """How much of the room it takes."""
    return 1 if task.crashes == SUSPECT else COMPANY
