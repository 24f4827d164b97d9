"""The manager: sleeps until a task is due, claims what is due for the free places, and starts it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from later.clock import Clock
from later.core.errors import StoreUnavailable
from later.core.task import Millis, Task
from later.daemon.patience import Patience
from later.daemon.pool import Pool
from later.store.base import Claim, Held, Store
from later.store.keys import Lane

PEEK_S = 15.0
"""A wake-up is only a hint; the head is looked at again at least this often."""
WARN_EVERY_S = 10.0

log = structlog.get_logger()


class Manager:
    """Serves one lane; several managers may share a pool."""

    def __init__(
        self,
        lane: Lane,
        *,
        store: Store,
        pool: Pool,
        clock: Clock,
        rng: random.Random,
        batch: int,
        lease: Millis,
        wakeup_before: float,
    ) -> None:
        self.lane = lane
        self._store = store
        self._pool = pool
        self._clock = clock
        self._batch = batch
        self._lease = lease
        self._wakeup_before = wakeup_before
        self._patience = Patience(rng)
        self._claim_unanswered = False
        self._warned = -math.inf
        self._looked = clock.monotonic()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Tick and rest until cancelled; a store that does not answer is waited for."""
        task_status.started()
        while True:
            try:
                next_due = await self.tick()
                self._patience.reset()
                await self._rest(next_due)
            except StoreUnavailable:
                await self._patience.pause()

    def idle_for(self) -> float:
        """Seconds since it last looked at its tasks."""
        return self._clock.monotonic() - self._looked

    async def tick(self) -> Millis | None:
        """Room → claim → start. Returns when the next task is due (None: there is none)."""
        await self._room()
        orphans = await self._orphans()  # before any place is held for an answer
        # A claim that is cut off would leave tasks leased to a daemon that does not know of them.
        with self._pool.reserved(self._batch) as places, anyio.CancelScope(shield=True):
            claim = await self._claim(places, orphans)
            for task in claim.tasks:
                self._pool.start(task)
        return claim.next_due

    async def _room(self) -> None:
        self._looked = self._clock.monotonic()
        while self._pool.free <= 0:
            await self._warn_if_overdue()
            if self._pool.free <= 0:  # none was left while the store was asked
                await self._pool.wait_for_room(1.0)
            self._looked = self._clock.monotonic()

    async def _orphans(self) -> Sequence[Task]:
        """What an unanswered claim took, if there was one."""
        if not self._claim_unanswered:
            return []
        known = self._pool.claims  # as of before the question: one that is settled meanwhile is no orphan
        held = await self._store.adopt(self.lane)
        return await self._extended([task for task in held if (task.name, task.claim) not in known])

    async def _extended(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Those whose lease begins anew; it may have ended since the claim, and others may have taken some over."""
        if not tasks:
            return tasks
        answers = await self._store.extend(tasks, lease=self._lease)
        return [
            replace(task, cancel=task.cancel or held is Held.CANCEL)
            for task, held in zip(tasks, answers, strict=True)
            if held is not Held.LOST
        ]

    async def _claim(self, places: int, orphans: Sequence[Task]) -> Claim:
        """Orphans come first: nothing more is claimed until all of them have a place."""
        if len(orphans) > places:
            return Claim(tasks=orphans[:places], next_due=orphans[places].due)
        self._claim_unanswered = True
        claim = await self._store.claim(self.lane, limit=places - len(orphans), lease=self._lease)
        self._claim_unanswered = False
        return Claim(tasks=[*orphans, *claim.tasks], next_due=claim.next_due)

    async def _rest(self, next_due: Millis | None) -> None:
        """Sleep until the next due time; a sooner task ends the sleep. Shortly before the time, make ready."""
        instant = math.inf if next_due is None else self._store.instant(next_due)
        if not self._near(instant):
            woken = await self._store.wait(self.lane, min(self._until(instant) - self._wakeup_before, PEEK_S))
            if woken or not self._near(instant) or await self._store.head(self.lane) != next_due:
                return
        if (seconds := self._until(instant)) > 0:
            await self._store.wait(self.lane, seconds)

    def _until(self, instant: float) -> float:
        return instant - self._clock.monotonic()

    def _near(self, instant: float) -> bool:
        return self._until(instant) <= self._wakeup_before

    async def _warn_if_overdue(self) -> None:
        if self._clock.monotonic() - self._warned < WARN_EVERY_S:
            return
        overdue = await self._store.overdue(self.lane)
        if overdue.count:
            self._warned = self._clock.monotonic()
            log.warning("all_workers_busy", overdue=overdue.count, late_ms=overdue.late, workers=self._pool.places)
