"""Performs an action, and puts whatever comes of it into our words."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any

import structlog

from later.actions.base import PermanentFailure, TemporaryFailure
from later.actions.registry import Registry
from later.core.errors import InvalidTask
from later.core.lifecycle import NotPerformed, Outcome, Performed, Receipt
from later.core.task import Millis, Task
from later.daemon.pool import Attempt, Lost

log = structlog.get_logger()


class Performer:
    """Anybody's action may raise and return anything, and take for ever; the daemon and the task outlive it."""

    def __init__(self, actions: Registry, *, timeout: float) -> None:
        self._actions = actions
        self._timeout = timeout

    async def perform(self, attempt: Attempt) -> Outcome | None:
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
        try:
            action = self._actions.get(task.action)
        except InvalidTask as missing:  # not the task's fault: a daemon that has it may be next, or one that is mended
            return NotPerformed(reason=missing.message)
        allowed = asyncio.timeout(self._timeout)
        try:
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
