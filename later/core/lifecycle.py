"""What came of an attempt, and what that means for its task: the decisions, without carrying them out."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from later.core.retry import RetryPolicy, backoff
from later.core.task import Failure, Millis, Status, Task

FAILURES_KEPT = 10
REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the other side answered: one sentence for people and, if there is more, fields for programs."""

    detail: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Performed:
    """The action was performed."""

    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class NotPerformed:
    """The action failed: for good, or to be tried again (not before `retry_after` milliseconds)."""

    reason: str
    permanent: bool = False
    retry_after: Millis | None = None


@dataclass(frozen=True, slots=True)
class PutBack:
    """The daemon stops; the attempt is as if it had not begun."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The owner asked for the task to be cancelled while it was running."""


Outcome: TypeAlias = Performed | NotPerformed | PutBack | Withdrawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What the store is to record of one claimed task.

    `status` is the final transition, written to the outbox; None where the task only moves to a later time. `due`
    is when it starts next; None where there is no next time. `started` is when the attempt began, if there was one.
    """

    task: Task
    status: Status | None
    due: Millis | None
    attempts: int
    crashes: int
    blamed: int
    failures: tuple[Failure, ...]
    started: Millis | None = None
    receipt: Receipt | None = None


def judge(task: Task, policy: RetryPolicy) -> Outcome | None:
    """What is already decided about a claimed task before it is performed; None means: perform it."""
    if task.cancel:
        return Withdrawn()
    if task.blamed >= policy.blamed:
        return NotPerformed(
            reason=f"{task.crashes} daemons ended while performing it, so it is not tried again",
            permanent=True,
        )
    return None


def settle(
    task: Task,
    outcome: Outcome,
    *,
    started: Millis | None,
    now: Millis,
    rng: random.Random,
    policy: RetryPolicy,
) -> Settlement:
    """What to record of this outcome of an attempt that began at `started` (None: there was none)."""
    as_it_was = Settlement(
        task=task,
        status=None,
        due=task.due if task.due is not None else now,
        attempts=task.attempts,
        crashes=task.crashes,
        blamed=task.blamed,
        failures=task.failures,
        started=started,
    )
    match outcome:
        case PutBack():
            return as_it_was
        case Withdrawn():
            return replace(as_it_was, status=Status.CANCELLED, due=None)
        case Performed(receipt=receipt):
            return replace(as_it_was, status=Status.COMPLETED, due=None, attempts=task.attempts + 1, receipt=receipt)
        case NotPerformed():
            return _after_failure(as_it_was, outcome, now=now, rng=rng, policy=policy)


def _after_failure(
    settlement: Settlement, outcome: NotPerformed, *, now: Millis, rng: random.Random, policy: RetryPolicy
) -> Settlement:
    task = settlement.task
    attempts = task.attempts + (settlement.started is not None)
    failures = _chain(task.failures, Failure(at=now, reason=outcome.reason[:REASON_CHARACTERS]))
    next_at = now + max(backoff(policy, attempts, rng), outcome.retry_after or 0)
    began = task.nominal if task.nominal is not None else task.created
    over = outcome.permanent or policy.exhausted(attempts=attempts, began=began, next_at=next_at)
    return replace(
        settlement,
        status=Status.FAILED if over else None,
        due=None if over else next_at,
        attempts=attempts,
        crashes=task.crashes if settlement.started is None else 0,
        blamed=task.blamed if settlement.started is None else 0,
        failures=failures,
    )


def _chain(failures: tuple[Failure, ...], latest: Failure) -> tuple[Failure, ...]:
    """The first cause and the latest ones: what started it and what it has come to."""
    chain = (*failures, latest)
    return chain if len(chain) <= FAILURES_KEPT else (chain[0], *chain[-(FAILURES_KEPT - 1) :])
