"""Performs one claimed task: perform → decide → record."""

from __future__ import annotations

import asyncio
import random

import structlog

from later.actions.base import PermanentFailure, TemporaryFailure
from later.actions.registry import Registry
from later.core.errors import InvalidTask
from later.core.lifecycle import NotPerformed, Outcome, Performed, judge, settle
from later.core.retry import RetryPolicy
from later.core.task import Task
from later.daemon.diary import Diary
from later.daemon.pool import Attempt, Lost
from later.daemon.settler import Settler
from later.store.base import Store

log = structlog.get_logger()


class Worker:
    """Knows how to take a task from claimed to settled."""

    def __init__(
        self,
        *,
        store: Store,
        actions: Registry,
        settler: Settler,
        policy: RetryPolicy,
        rng: random.Random,
        timeout: float,
        diary: Diary,
    ) -> None:
        self._store = store
        self._actions = actions
        self._settler = settler
        self._policy = policy
        self._rng = rng
        self._timeout = timeout
        self._diary = diary

    async def work(self, attempt: Attempt) -> None:
        """Perform the task, decide what that means, and have it recorded."""
        task = attempt.task
        outcome = judge(task, self._policy)
        started = None if outcome else self._store.now()
        outcome = outcome or await self._perform(attempt)
        if outcome is None:
            self._diary.lost(task)
            return
        settlement = settle(task, outcome, started=started, now=self._store.now(), rng=self._rng, policy=self._policy)
        self._diary.settled(settlement, await self._settler.record(settlement))

    async def _perform(self, attempt: Attempt) -> Outcome | None:
        """What came of performing the action; None if the lease was lost meanwhile."""
        attempt.performing = asyncio.current_task()
        try:
            return await self._outcome(attempt.task)
        except asyncio.CancelledError:
            if attempt.ending is None:
                raise
            if attempt.performing is not None:
                attempt.performing.uncancel()
            return None if isinstance(attempt.ending, Lost) else attempt.ending
        finally:
            attempt.performing = None

    async def _outcome(self, task: Task) -> Outcome:
        try:
            action = self._actions.get(task.action)
            async with asyncio.timeout(self._timeout):
                return Performed(receipt=await action.perform(task))
        except TemporaryFailure as failure:
            return NotPerformed(reason=str(failure), retry_after=failure.retry_after)
        except (PermanentFailure, InvalidTask) as failure:
            return NotPerformed(reason=str(failure), permanent=True)
        except TimeoutError:
            return NotPerformed(reason=f"no end after {self._timeout:g} s (LATER_TIMEOUT_SECONDS)")
        except Exception as error:
            # Anybody's action may raise anything; the daemon and the task outlive it.
            log.exception("action_broke", task=task.name, action=task.action)
            return NotPerformed(reason=f"{type(error).__name__}: {error}")
