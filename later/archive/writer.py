"""The archive's writer: moves final transitions from the outbox into SQL. Loses none, and keeps none twice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from later.archive.archive import Archive
from later.core.errors import Unavailable
from later.core.past import Transition
from later.core.retry import RetryPolicy, backoff

BATCH = 500
RECHECK_S = 15.0
CATCH_UP_S = 2.0
PATIENCE = RetryPolicy(attempts=0, within=0, base=100, cap=5_000)

log = structlog.get_logger()


class Outbox(Protocol):
    """The final transitions that nobody has kept elsewhere yet, in order. The first two raise StoreUnavailable."""

    async def read(self, limit: int) -> Sequence[Transition]:
        """The oldest ones; as many as the limit, or more, where some were left."""

    async def forget(self, transitions: Sequence[Transition]) -> None:
        """Delete those that are kept elsewhere now."""

    async def wait(self, seconds: float) -> None:
        """Sleep until there may be more, or the time is over."""


class Writer:
    """The only one who takes from the outbox: first the row is durable, then the entry is deleted."""

    def __init__(self, outbox: Outbox, archive: Archive, rng: random.Random) -> None:
        self._outbox = outbox
        self._archive = archive
        self._rng = rng
        self._turn = anyio.Lock()
        self._stuck = False
        self._refused: set[tuple[int, str]] = set()  # they stay in the outbox and are not tried again
        self._reads = 0
        self._emptied = 0  # the number of the last read after which nothing older was left

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Until cancelled. What cannot be moved now waits in the outbox."""
        task_status.started()
        failures = 0
        while True:
            try:
                async with self._turn:
                    moved = await self._move()
                failures = 0
                if not moved:
                    await self._outbox.wait(RECHECK_S)
            except Unavailable:
                failures += 1
                await anyio.sleep(backoff(PATIENCE, failures, self._rng) / 1000)

    async def catch_up(self) -> bool:
        """Move all that is in the outbox by now, whether `run` is running or not.

        For a reader who misses a task that may just have finished. False: that was not possible in two seconds (a
        transaction under way is waited for), so that nobody can say yet whether it has.
        """
        since = self._reads
        with anyio.move_on_after(CATCH_UP_S):
            try:
                while self._emptied <= since:
                    async with self._turn:
                        if self._emptied <= since:  # else somebody has just done it for us
                            await self._move()
            except Unavailable:
                return False
        return self._emptied > since

    async def _move(self) -> int:
        """One batch, from reading to forgetting; how many were not refused before."""
        self._reads += 1
        batch = await self._outbox.read(BATCH)
        fresh = [one for one in batch if (one.partition, one.key) not in self._refused]
        if fresh:
            kept = await self._keep(fresh)
            await self._outbox.forget(kept)
            log.debug("transitions_archived", count=len(kept))
        if len(batch) < BATCH or not fresh:
            self._emptied = self._reads
        return len(fresh)

    async def _keep(self, transitions: Sequence[Transition]) -> Sequence[Transition]:
        try:
            kept = await self._archive.insert(transitions)
        except Unavailable as error:
            if not self._stuck:
                self._stuck = True
                log.error("archive_stuck", error=error.message)
            raise
        if self._stuck:
            self._stuck = False
            log.info("archive_back")
        if len(kept) < len(transitions):
            names = {(one.partition, one.key) for one in transitions}
            self._refused |= names - {(one.partition, one.key) for one in kept}
        return kept
