"""Performs one claimed task: perform → decide → record."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from later.actions.base import PermanentFailure, TemporaryFailure
from later.actions.registry import Registry
from later.core.errors import InvalidTask
from later.core.lifecycle import NotPerformed, Outcome, Performed, PutBack, Receipt, judge, settle
from later.core.retry import RetryPolicy
from later.core.task import Millis, Task
from later.daemon.diary import Diary
from later.daemon.pool import Attempt, Lost
from later.daemon.settler import Settler
from later.daemon.suspects import ASIDE_MS, Suspects
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
        self._suspects = Suspects()

    async def work(self, attempt: Attempt) -> None:
        """Perform the task, decide what that means, and have it recorded."""
        if self._suspects.include(attempt.task):
            async with self._suspects.alone() as alone:
                await (self._attempt(attempt) if alone else self._put_aside(attempt.task))
        else:
            await self._attempt(attempt)

    async def _attempt(self, attempt: Attempt) -> None:
        task = attempt.task
        outcome = judge(task, self._policy)
        started = None if outcome else self._store.now()
        outcome = outcome or await self._perform(attempt)
        if outcome is None:
            self._diary.lost(task)
            return
        settlement = settle(task, outcome, started=started, now=self._store.now(), rng=self._rng, policy=self._policy)
        self._diary.settled(settlement, await self._settler.record(settlement))

    async def _put_aside(self, task: Task) -> None:
        now = self._store.now()
        back = settle(task, PutBack(), started=None, now=now, rng=self._rng, policy=self._policy)
        later = replace(back, due=now + self._rng.randint(ASIDE_MS // 2, ASIDE_MS))
        self._diary.settled(later, await self._settler.record(later))

    async def _perform(self, attempt: Attempt) -> Outcome | None:
        """What came of performing the action; None if the lease was lost meanwhile."""
        performing = attempt.performing = asyncio.current_task()
        assert performing is not None
        try:
            return await self._outcome(attempt.task)
        except asyncio.CancelledError as error:
            if attempt.ending is not None:
                performing.uncancel()
                return None if isinstance(attempt.ending, Lost) else attempt.ending
            if performing.cancelling():
                raise
            return _broken(attempt.task, error)  # something that the action shares with others was cancelled
        finally:
            attempt.performing = None

    async def _outcome(self, task: Task) -> Outcome:
        allowed = asyncio.timeout(self._timeout)
        try:
            action = self._actions.get(task.action)
            async with allowed:
                return Performed(receipt=_kept(task, await action.perform(task)))
        except TemporaryFailure as failure:
            return NotPerformed(reason=_words(failure), retry_after=_millis(failure.retry_after))
        except (PermanentFailure, InvalidTask) as failure:
            return NotPerformed(reason=_words(failure), permanent=True)
        except TimeoutError as error:
            if not allowed.expired():  # it is one of the action's own
                return _broken(task, error)
            return NotPerformed(reason=f"no end after {self._timeout:g} s (LATER_TIMEOUT_SECONDS)")
        except (Exception, SystemExit) as error:
            return _broken(task, error)


# Anybody's action may raise and return anything; the daemon and the task outlive it.


def _broken(task: Task, error: BaseException) -> Outcome:
    log.error("action_broke", task=task.name, action=task.action, exc_info=error)
    return NotPerformed(reason=f"{type(error).__name__}: {_words(error)}")


def _kept(task: Task, receipt: object) -> Receipt:
    """The receipt as it can be written down; what was performed is not performed again for want of one."""
    try:
        if isinstance(receipt, Receipt):
            return Receipt(detail=str(receipt.detail), data=_plain(receipt.data) if receipt.data else {})
    except Exception as error:
        log.warning("receipt_unusable", task=task.name, action=task.action, exc_info=error)
    else:
        log.warning("receipt_unusable", task=task.name, action=task.action, given=type(receipt).__name__)
    return Receipt(detail="performed, without a receipt that can be kept")


def _plain(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same as JSON can say it."""
    said: Mapping[str, Any] = json.loads(json.dumps(dict(data), default=str, skipkeys=True, allow_nan=False))
    return said


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "an error that cannot say what it is"


def _millis(said: object) -> Millis | None:
    """A pause as an action says it, if it is one."""
    return int(said) if isinstance(said, int | float) and math.isfinite(said) else None
