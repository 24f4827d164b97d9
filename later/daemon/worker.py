"""Takes one claimed task to its settlement: judge → perform → settle → record."""

from __future__ import annotations

import random
from dataclasses import replace

from later.core.lifecycle import PutBack, Settlement, judge, settle
from later.core.retry import RetryPolicy
from later.core.task import Millis, Task
from later.daemon.diary import Diary
from later.daemon.performer import Performer
from later.daemon.pool import Attempt
from later.daemon.settler import Settler
from later.store.base import Store


class Worker:
    """What is done in one place of the pool."""

    def __init__(
        self,
        *,
        store: Store,
        performer: Performer,
        settler: Settler,
        policy: RetryPolicy,
        rng: random.Random,
        diary: Diary,
    ) -> None:
        self._store = store
        self._performer = performer
        self._settler = settler
        self._policy = policy
        self._rng = rng
        self._diary = diary

    async def work(self, attempt: Attempt) -> None:
        """Perform the task unless its fate is decided already, decide what came of it, and have that recorded."""
        task = attempt.task
        outcome = judge(task, self._policy)
        started = None if outcome else self._store.now()
        outcome = outcome or await self._performer.perform(attempt)
        if outcome is None:
            self._diary.lost(task)
            return
        now = self._store.now()
        await self._record(settle(task, outcome, started=started, now=now, rng=self._rng, policy=self._policy))

    async def put_aside(self, task: Task, until: Millis) -> None:
        """Let it come back then, as if this attempt had not begun."""
        back = settle(task, PutBack(), started=None, now=until, rng=self._rng, policy=self._policy)
        await self._record(replace(back, due=until))

    async def _record(self, settlement: Settlement) -> None:
        self._diary.settled(settlement, await self._settler.record(settlement))
