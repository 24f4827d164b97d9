"""Keeps the leases of what is running here, and puts back what died elsewhere."""

from __future__ import annotations

import asyncio
import math
import random
from contextlib import suppress

import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from later.core.errors import StoreDamaged, StoreUnavailable
from later.core.lifecycle import Withdrawn
from later.core.task import Millis
from later.daemon.patience import Patience
from later.daemon.pool import Lost, Pool
from later.store.base import Held, Store
from later.store.keys import Lane

RECOVERED_AT_A_TIME = 100

log = structlog.get_logger()


class Leases:
    """Extends first and recovers afterwards, so that a daemon that was stopped for long finds its own leases alive."""

    def __init__(self, store: Store, pool: Pool, rng: random.Random, *, lease: Millis) -> None:
        self._store = store
        self._pool = pool
        self._lease = lease
        self._patience = Patience(rng, longest_s=lease / 3000)  # or others would take over before it extends again
        self._looked = self._awake_since = -math.inf

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Every third of a lease, until cancelled."""
        task_status.started()
        while True:
            try:
                await self.extend()
                await self.recover()
                self._patience.reset()
                await asyncio.sleep(self._lease / 3000)
            except StoreUnavailable:
                await self._patience.pause()

    async def extend(self) -> None:
        """Let the leases of all that is running here end later; end the attempts that have lost theirs."""
        attempts = self._pool.attempts
        if not attempts:
            return
        answers = await self._store.extend([attempt.task for attempt in attempts], lease=self._lease)
        for attempt, held in zip(attempts, answers, strict=True):
            if held is Held.LOST:
                attempt.end(Lost())
            elif held is Held.CANCEL:
                attempt.end(Withdrawn())

    async def recover(self, *, every: bool = False) -> None:
        """Put tasks whose lease has ended back to due.

        After a gap in contact or a step of the server's clock this waits one lease: until then other holders may not
        have been able to extend theirs. So it does after this daemon was stopped itself, as it cannot know of gaps
        then. `every` is for a start on a server that nobody else can have used.
        """
        awake_s = math.inf if every else self._awake_for()
        for lane in self._store.lanes:
            with suppress(StoreDamaged):  # the other lanes go on
                await self._recover(lane, awake_s, every=every)

    async def _recover(self, lane: Lane, awake_s: float, *, every: bool) -> None:
        recovered = RECOVERED_AT_A_TIME
        # Asked before each call: it may have been the last one's answer that told of a gap or a step.
        while recovered == RECOVERED_AT_A_TIME and (
            every or min(self._store.steady_for(), awake_s) * 1000 >= self._lease
        ):
            recovered = (await self._store.recover(lane, limit=RECOVERED_AT_A_TIME, every=every)).count
            if recovered:
                log.warning("leases_recovered", queue=lane.queue, count=recovered)

    def _awake_for(self) -> float:
        """Seconds for which this was asked as often as `run` asks it, within a third of a lease."""
        now = asyncio.get_running_loop().time()
        if now - self._looked > 2 * self._lease / 3000:
            self._awake_since = now
        self._looked = now
        return now - self._awake_since
