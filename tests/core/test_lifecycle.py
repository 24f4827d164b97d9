"""From what came of an attempt to what is recorded: one decision for each outcome."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from later.core.lifecycle import (
    FAILURES_KEPT,
    REASON_CHARACTERS,
    NotPerformed,
    Outcome,
    Performed,
    PutBack,
    Receipt,
    Settlement,
    Withdrawn,
    judge,
    settle,
)
from later.core.retry import RetryPolicy, backoff, ceiling
from later.core.task import Failure, Status, Task

DAY = 86_400_000
NOW = 1_790_000_000_000
POLICY = RetryPolicy(attempts=4, within=3 * DAY, base=5_000, cap=3_600_000, blamed=3)
BEFORE = (Failure(at=NOW - 9, reason="421 busy"),)
TASK = Task(
    owner="ana",
    id="milk",
    uid="u1",
    queue="default",
    status=Status.RUNNING,
    action="email",
    due=NOW - 100,
    nominal=NOW - 5_000,
    created=NOW - DAY,
    attempts=1,
    crashes=5,
    blamed=2,
    claim=7,
    failures=BEFORE,
)


def settled(outcome: Outcome, task: Task = TASK, *, started: int | None = NOW - 50, **policy: int) -> Settlement:
    rules = replace(POLICY, **policy)
    return settle(task, outcome, started=started, now=NOW, rng=random.Random(1), policy=rules)


class TestJudge:
    def test_most_tasks_are_performed(self) -> None:
        assert judge(TASK, POLICY) is None

    def test_what_its_owner_has_withdrawn_is_not_performed(self) -> None:
        assert judge(replace(TASK, cancel=True), POLICY) == Withdrawn()
        assert judge(replace(TASK, cancel=True, blamed=99), POLICY) == Withdrawn()

    @pytest.mark.parametrize("blamed", [3, 4, 10**6])
    def test_what_has_ended_several_daemons_is_not_performed_again(self, blamed: int) -> None:
        outcome = judge(replace(TASK, crashes=blamed + 2, blamed=blamed), POLICY)
        assert isinstance(outcome, NotPerformed)
        assert outcome.permanent
        assert outcome.reason == f"{blamed + 2} daemons ended while performing it, so it is not tried again"

    def test_crashes_in_company_are_blamed_on_nobody(self) -> None:
        assert judge(replace(TASK, crashes=10**6), POLICY) is None

    def test_such_a_task_fails_without_an_attempt(self) -> None:
        task = replace(TASK, blamed=3)
        outcome = judge(task, POLICY)
        assert outcome is not None
        settlement = settled(outcome, task, started=None)
        assert (settlement.status, settlement.due, settlement.started) == (Status.FAILED, None, None)
        assert (settlement.attempts, settlement.crashes, settlement.blamed) == (1, 5, 3)
        assert [failure.reason for failure in settlement.failures] == ["421 busy", outcome.reason]


class TestPerformed:
    def test_it_is_completed_with_its_receipt(self) -> None:
        receipt = Receipt(detail="250 OK", data={"queue_id": "4Fx"})
        assert settled(Performed(receipt=receipt)) == Settlement(
            task=TASK,
            status=Status.COMPLETED,
            due=None,
            attempts=2,
            crashes=5,
            blamed=2,
            failures=BEFORE,
            started=NOW - 50,
            receipt=receipt,
        )


class TestPutBack:
    def test_it_is_as_if_the_attempt_had_not_begun(self) -> None:
        settlement = settled(PutBack())
        assert (settlement.status, settlement.due) == (None, TASK.due)
        assert (settlement.attempts, settlement.crashes, settlement.failures) == (1, 5, BEFORE)
        assert settlement.blamed == 2
        assert settlement.receipt is None

    def test_without_a_due_time_it_is_due_now(self) -> None:
        assert settled(PutBack(), replace(TASK, due=None)).due == NOW


class TestWithdrawn:
    @pytest.mark.parametrize("started", [None, NOW - 50])
    def test_it_is_cancelled_and_the_attempt_does_not_count(self, started: int | None) -> None:
        settlement = settled(Withdrawn(), started=started)
        assert (settlement.status, settlement.due, settlement.receipt) == (Status.CANCELLED, None, None)
        assert (settlement.attempts, settlement.failures) == (1, BEFORE)


class TestNotPerformed:
    def test_it_is_tried_again_after_a_pause(self) -> None:
        settlement = settled(NotPerformed(reason="451 try later"))
        assert settlement.status is None
        assert settlement.due == NOW + backoff(POLICY, 2, random.Random(1))
        assert settlement.attempts == 2
        assert settlement.failures == (*BEFORE, Failure(at=NOW, reason="451 try later"))

    def test_an_attempt_that_ended_with_a_word_ends_the_row_of_crashes(self) -> None:
        settlement = settled(NotPerformed(reason="no"))
        assert (settlement.crashes, settlement.blamed) == (0, 0)

    def test_the_pause_is_within_its_bounds(self) -> None:
        for seed in range(200):
            outcome = NotPerformed(reason="no")
            later = settle(TASK, outcome, started=NOW, now=NOW, rng=random.Random(seed), policy=POLICY)
            assert later.due is not None
            assert NOW <= later.due <= NOW + ceiling(POLICY, 2)

    def test_not_before_the_other_side_wants_it(self) -> None:
        assert settled(NotPerformed(reason="slow down", retry_after=DAY)).due == NOW + DAY
        soon = settled(NotPerformed(reason="slow down", retry_after=1))
        assert soon.due == NOW + backoff(POLICY, 2, random.Random(1))

    def test_for_good_is_for_good(self) -> None:
        settlement = settled(NotPerformed(reason="550 no such user", permanent=True), replace(TASK, attempts=0))
        assert (settlement.status, settlement.due, settlement.attempts) == (Status.FAILED, None, 1)

    def test_the_last_attempt_of_the_budget_fails(self) -> None:
        assert settled(NotPerformed(reason="no"), replace(TASK, attempts=2)).status is None
        settlement = settled(NotPerformed(reason="no"), replace(TASK, attempts=3))
        assert (settlement.status, settlement.due, settlement.attempts) == (Status.FAILED, None, 4)

    def test_the_time_of_the_budget_counts_from_the_nominal_moment(self) -> None:
        snoozed = replace(TASK, nominal=NOW - 2 * DAY, due=NOW - 1)
        assert settled(NotPerformed(reason="no", retry_after=DAY - 1), snoozed).status is None
        assert settled(NotPerformed(reason="no", retry_after=DAY + 1), snoozed).status is Status.FAILED

    def test_without_a_nominal_moment_it_counts_from_the_beginning(self) -> None:
        task = replace(TASK, nominal=None, created=NOW - 2 * DAY)
        assert settled(NotPerformed(reason="no", retry_after=DAY - 1), task).status is None
        assert settled(NotPerformed(reason="no", retry_after=DAY + 1), task).status is Status.FAILED

    def test_a_long_reason_is_shortened(self) -> None:
        settlement = settled(NotPerformed(reason="x" * 100_000))
        assert settlement.failures[-1].reason == "x" * REASON_CHARACTERS

    def test_the_chain_keeps_the_first_cause_and_the_latest(self) -> None:
        task = replace(TASK, attempts=0, failures=())
        for attempt in range(1, 101):
            settlement = settled(NotPerformed(reason=f"no. {attempt}"), task, attempts=1_000)
            task = replace(task, attempts=settlement.attempts, failures=settlement.failures)
            assert len(task.failures) == min(attempt, FAILURES_KEPT)
        assert [failure.reason for failure in task.failures] == ["no. 1", *(f"no. {at}" for at in range(92, 101))]


def test_nothing_but_the_task_and_the_arguments_decides() -> None:
    for outcome in (Performed(receipt=Receipt(detail="ok")), PutBack(), Withdrawn(), NotPerformed(reason="no")):
        assert settled(outcome) == settled(outcome)
        assert settled(outcome).task is TASK
