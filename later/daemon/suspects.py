"""Tasks that may end daemons are performed one at a time, so that none is blamed for what its neighbour does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from later.core.task import Millis
from later.daemon.pool import Attempt
from later.daemon.worker import Worker
from later.store.base import Store

SUSPECT = 2
"""After one crash all are tried again side by side; after a second one of them may be to blame."""
ASIDE_MS: Millis = 2_000
"""How long, at most, a suspect stands aside before it asks again."""


class Suspects:
    """Stands before the worker: lets one suspect in and puts the others aside."""

    def __init__(self, worker: Worker, store: Store, rng: random.Random) -> None:
        self._worker = worker
        self._store = store
        self._rng = rng
        self._here = 0
        self._left = asyncio.Event()

    async def work(self, attempt: Attempt) -> None:
        """`Worker.work`, for a suspect when it is alone."""
        if attempt.task.crashes < SUSPECT:
            await self._worker.work(attempt)
            return
        async with self._alone() as alone:
            if alone:
                await self._worker.work(attempt)
            else:
                aside = self._rng.randint(ASIDE_MS // 2, ASIDE_MS)
                await self._worker.put_aside(attempt.task, self._store.now() + aside)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[bool]:
        """Inside, whether this one may be performed; if so, all others have been put back by then."""
        self._here += 1
        first = self._here == 1
        try:
            await asyncio.sleep(0)  # those of the same claim begin in the same turn of the event loop
            while first and self._here > 1:
                self._left.clear()
                await self._left.wait()
            yield first
        finally:
            self._here -= 1
            self._left.set()
