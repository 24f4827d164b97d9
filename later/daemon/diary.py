"""A task's milestones in the log: each by itself while they are few, one line a second when they are many."""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from later.clock import Clock
from later.core.lifecycle import Settlement
from later.core.task import Task
from later.store.base import Settled

FEW_A_SECOND = 20
REFUSED = ("settlement_stale", "settlement_gone", "lease_lost")
"""What comes of an attempt whose lease was lost meanwhile: nothing is changed by it."""

log = structlog.get_logger()


class Diary:
    """Writes what happened to tasks; the hot path pays for twenty lines a second and one, however many there are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = 0
        self._written = 0
        self._untold: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter(dict.fromkeys(("completed", "failed", "cancelled", *REFUSED), 0))
        """How often what has come of attempts since the start, in the words of the log."""

    def settled(self, settlement: Settlement, result: Settled) -> None:
        """A settlement was answered."""
        if result not in (Settled.DONE, Settled.ALREADY):
            self._note(f"settlement_{result}", settlement.task)
        elif settlement.status is not None:
            self._note(settlement.status.value, settlement.task, attempts=settlement.attempts)
        elif settlement.failures != settlement.task.failures:
            self._note("retry_scheduled", settlement.task, attempts=settlement.attempts, due=settlement.due)
        else:
            self._note("put_back", settlement.task)

    def lost(self, task: Task) -> None:
        """A lease was lost while its task was being performed."""
        self._note("lease_lost", task)

    def tell(self) -> None:
        """Sum up what was not written one by one."""
        if self._untold:
            log.info("tasks_settled", **dict(sorted(self._untold.items())))
            self._untold.clear()

    def _note(self, event: str, task: Task, **facts: int | None) -> None:
        self.outcomes[event] += 1
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written < FEW_A_SECOND:
            self._written += 1
            log.info(f"task_{event}", task=task.name, action=task.action, **facts)
        else:
            if not self._untold:
                asyncio.get_running_loop().call_later(1.0, self.tell)
            self._untold[event] += 1
