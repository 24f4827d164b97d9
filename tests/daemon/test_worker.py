"""The worker: whatever an action does, its task comes to the end or to the next time that it should."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from later.actions.base import PermanentFailure, TemporaryFailure
from later.core.lifecycle import Receipt
from later.core.retry import RetryPolicy
from later.core.task import Status, Task
from later.daemon.suspects import COMPANY, SUSPECT
from later.store.base import Movement
from later.store.keys import Lane
from tests.daemon.parts import EAGER, HOUR_MS, OWNER, PATIENT, Gate, Parts, Recorder, lasting, plain, task
from tests.waiting import wait_until

CIRCLE: dict[str, object] = {}
CIRCLE["again"] = CIRCLE


def raising(error: Callable[[], BaseException]) -> Recorder:
    """An action that always ends like this."""

    async def perform(task: Task) -> None:
        raise error()

    return Recorder(perform)


async def test_what_is_performed_is_completed_with_its_receipt(url: str) -> None:
    async def perform(task: Task) -> Receipt:
        return Receipt(detail="accepted by mx.example", data={"reply": "250 fine"})

    daemon = Parts(url, Recorder(perform))
    async with daemon.running():
        await daemon.add(task("t"))
        await daemon.settled(1)
        [past] = await daemon.past()
    assert past.task.status is Status.COMPLETED
    assert past.task.attempts == 1
    assert past.receipt == {"detail": "accepted by mx.example", "reply": "250 fine"}
    assert past.started is not None
    assert past.task.due is not None
    assert past.task.due <= past.started <= past.at


async def test_a_temporary_failure_is_tried_again_not_before_it_said(url: str) -> None:
    recorder = raising(lambda: TemporaryFailure("greylisted", retry_after=HOUR_MS))
    daemon = Parts(url, recorder, policy=replace(EAGER, attempts=2))
    async with daemon.running():
        await daemon.add(task("t"))
        waiting = await back_to(daemon, "t", Status.PENDING)
    assert waiting.due is not None
    assert HOUR_MS - 5_000 < waiting.due - daemon.store.now() <= HOUR_MS + EAGER.cap
    assert (waiting.attempts, [failure.reason for failure in waiting.failures]) == (1, ["greylisted"])
    assert waiting.nominal == task("t", due=waiting.nominal).due
    assert recorder.times == {"t": 1}


async def test_every_attempt_has_one_delivery_id_and_a_claim_of_its_own(url: str) -> None:
    async def perform(task: Task) -> None:
        if task.attempts < 2:
            raise TemporaryFailure("not yet")

    recorder = Recorder(perform)
    daemon = Parts(url, recorder, policy=EAGER)
    async with daemon.running():
        await daemon.add(task("t"))
        assert await daemon.settled(1) == {Status.COMPLETED: 1}
    assert [start.task.delivery_id for start in recorder.starts] == ["uid-t.1"] * 3
    claims = [start.task.claim for start in recorder.starts]
    assert claims == sorted(set(claims))
    assert [start.task.attempts for start in recorder.starts] == [0, 1, 2]


async def test_out_of_attempts_it_has_failed_with_the_chain_of_causes(url: str) -> None:
    reasons = iter(["no route", "refused", "timed out"])
    recorder = raising(lambda: TemporaryFailure(next(reasons)))
    daemon = Parts(url, recorder, policy=EAGER)
    async with daemon.running():
        await daemon.add(task("t"))
        assert await daemon.settled(1) == {Status.FAILED: 1}
        failed = await back_to(daemon, "t", Status.FAILED)
    assert failed.attempts == EAGER.attempts == recorder.times["t"]
    assert [failure.reason for failure in failed.failures] == ["no route", "refused", "timed out"]


async def test_out_of_time_it_has_failed(url: str) -> None:
    recorder = raising(lambda: TemporaryFailure("no route"))
    daemon = Parts(url, recorder, policy=RetryPolicy(attempts=100, within=300, base=1, cap=20))
    async with daemon.running():
        await daemon.add(task("t"))
        assert await daemon.settled(1) == {Status.FAILED: 1}
        [past] = await daemon.past()
    assert past.task.nominal is not None
    assert 1 < recorder.times["t"] < 100
    assert recorder.starts[-1].at - past.task.nominal <= 300 + 250


async def test_a_permanent_failure_is_not_tried_again(url: str) -> None:
    recorder = raising(lambda: PermanentFailure("no such address"))
    daemon = Parts(url, recorder, policy=PATIENT)
    async with daemon.running():
        await daemon.add(task("t"))
        assert await daemon.settled(1) == {Status.FAILED: 1}
        failed = await back_to(daemon, "t", Status.FAILED)
    assert [failure.reason for failure in failed.failures] == ["no such address"]
    assert recorder.times == {"t": 1}


async def test_an_action_that_is_not_here_is_tried_again_where_it_may_be(url: str) -> None:
    daemon = Parts(url, Recorder(name="email"), Recorder(name="inbox"))
    other = Parts(url, Recorder(name="emial"), holder="two")
    async with daemon.running():
        await daemon.add(task("t", action="emial"))
        waiting = await back_to(daemon, "t", Status.PENDING)
    assert [failure.reason for failure in waiting.failures] == [
        "no action 'emial'; known: email, inbox; did you mean email?"
    ]
    async with other.running():
        sooner = Movement(states=frozenset({Status.PENDING}), to=Status.PENDING, due=1)
        await other.store.move(OWNER, "t", sooner)
        assert await other.settled(1) == {Status.COMPLETED: 1}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (lambda: ValueError("an answer nobody foresaw"), "ValueError: an answer nobody foresaw"),
        (lambda: ExceptionGroup("two", [OSError("a"), OSError("b")]), "ExceptionGroup: two (2 sub-exceptions)"),
        (lambda: TimeoutError("theirs"), "TimeoutError: theirs"),
        (lambda: asyncio.CancelledError("a connection they share"), "CancelledError: a connection they share"),
        (lambda: RecursionError(), "RecursionError: "),
        (lambda: SystemExit(0), "SystemExit: 0"),
        (lambda: Unspeakable(), "Unspeakable: an error that cannot say what it is"),
    ],
)
async def test_an_action_may_raise_anything(url: str, error: Callable[[], BaseException], reason: str) -> None:
    broken = raising(error)
    fine = Recorder(name="fine")
    daemon = Parts(url, broken, fine, policy=EAGER)
    with capture_logs() as logs:
        async with daemon.running():
            await daemon.add(task("broken"))
            await daemon.settled(1)
            await daemon.add(task("fine", action="fine"))
            assert await daemon.settled(2) == {Status.FAILED: 1, Status.COMPLETED: 1}
            failed = await back_to(daemon, "broken", Status.FAILED)
    assert [failure.reason for failure in failed.failures] == [reason] * 3
    assert [(entry["task"], entry["log_level"]) for entry in logs if entry["event"] == "action_broke"] == [
        ("ada/broken", "error")
    ] * 3


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


@pytest.mark.parametrize("pause", ["120", 1.5, -5, float("nan"), float("inf"), 10**30, object()])
async def test_an_action_may_ask_for_any_pause(url: str, pause: object) -> None:
    recorder = raising(lambda: TemporaryFailure("busy", retry_after=pause))  # type: ignore[arg-type]
    daemon = Parts(url, recorder, policy=replace(EAGER, attempts=2))
    async with daemon.running():
        await daemon.add(task("t"))
        assert await daemon.settled(1) == {Status.FAILED: 1}
        failed = await back_to(daemon, "t", Status.FAILED)
    assert {failure.reason for failure in failed.failures} == {"busy"}


@pytest.mark.parametrize(
    ("receipt", "kept"),
    [
        (None, {"detail": "performed, without a receipt that can be kept"}),
        ("250 ok", {"detail": "performed, without a receipt that can be kept"}),
        (Receipt(detail="ok", data=[1, 2]), {"detail": "performed, without a receipt that can be kept"}),  # type: ignore[arg-type]
        (Receipt(detail="ok", data=CIRCLE), {"detail": "performed, without a receipt that can be kept"}),
        (Receipt(detail=7, data={}), {"detail": "7"}),  # type: ignore[arg-type]
        (
            Receipt(detail="ok", data={"at": Path("/here"), "raw": b"\xff"}),
            {"detail": "ok", "at": "/here", "raw": r"b'\xff'"},
        ),
    ],
)
async def test_an_action_may_return_anything(url: str, receipt: object, kept: object) -> None:
    class Careless(Recorder):
        async def perform(self, task: Task) -> Receipt:
            await super().perform(task)
            return receipt  # type: ignore[return-value]

    recorder = Careless()
    daemon = Parts(url, recorder)
    async with daemon.running():
        await daemon.add(task("t"))
        assert await daemon.settled(1) == {Status.COMPLETED: 1}
        [past] = await daemon.past()
    assert past.receipt == kept
    assert recorder.times == {"t": 1}


async def test_an_action_that_does_not_end_is_ended(url: str) -> None:
    recorder = Recorder(lasting(60))
    daemon = Parts(url, recorder, timeout=0.1, policy=replace(EAGER, attempts=1))
    async with daemon.running():
        await daemon.add(task("t"))
        assert await daemon.settled(1, within=10) == {Status.FAILED: 1}
        failed = await back_to(daemon, "t", Status.FAILED)
    assert [failure.reason for failure in failed.failures] == ["no end after 0.1 s (LATER_TIMEOUT_SECONDS)"]
    assert [each.id for each in recorder.cut_off] == ["t"]


async def test_what_has_ended_too_many_daemons_is_not_performed(url: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder)
    async with daemon.working(leases=False):
        await daemon.add(task("t"))
        await crash(daemon, SUSPECT + PATIENT.blamed, alone=True)
        await daemon.add(task("innocent"))
        await daemon.manager.tick()
        await daemon.settled(2)
        failed = await back_to(daemon, "t", Status.FAILED)
        assert await daemon.past_of("innocent") == [Status.COMPLETED]
    assert [failure.reason for failure in failed.failures] == [
        "6 daemons ended while performing it, so it is not tried again"
    ]
    assert recorder.times == {"innocent": 1}
    assert failed.attempts == 0


async def test_a_crash_is_not_charged_to_the_attempts(url: str) -> None:
    recorder = raising(lambda: TemporaryFailure("not yet"))
    daemon = Parts(url, recorder, policy=EAGER)
    async with daemon.working(leases=False):
        await daemon.add(task("t"))
        await crash(daemon, PATIENT.blamed - 1, alone=True)
        while not await daemon.past():
            await daemon.manager.tick()
        failed = await back_to(daemon, "t", Status.FAILED)
    assert (failed.attempts, recorder.times["t"]) == (3, 3)


async def test_what_may_have_ended_daemons_is_performed_in_small_company(url: str) -> None:
    gate = Gate()
    recorder = Recorder(gate)
    daemon = Parts(url, recorder)
    async with daemon.working(leases=False):
        await daemon.add(*(task(f"{at:02}") for at in range(20)))
        await crash(daemon, SUSPECT)
        await daemon.manager.tick()
        await wait_until(lambda: recorder.at_once == COMPANY)
        await wait_until(lambda: len(daemon.pool.attempts) == COMPANY)
        await crash(daemon, 1)  # of all that is claimed: those that stand aside have no part in it
        crashes = [(await daemon.store.get(OWNER, f"{at:02}")).crashes for at in range(20)]
        assert crashes == [SUSPECT + 1] * COMPANY + [SUSPECT] * (20 - COMPANY)
        gate.open()


async def test_what_has_ended_a_daemon_in_small_company_is_performed_alone(url: str) -> None:
    gate = Gate()
    recorder = Recorder(gate)
    daemon = Parts(url, recorder)
    async with daemon.working(leases=False):
        await daemon.add(*(task(f"{at}") for at in range(5)))
        await crash(daemon, SUSPECT + 1)
        await daemon.add(task("newcomer"))
        await daemon.manager.tick()
        await wait_until(lambda: recorder.at_once == 2)
        await wait_until(lambda: len(daemon.pool.attempts) == 2)
        assert sorted(start.task.id for start in recorder.starts) == ["0", "newcomer"]
        await crash(daemon, 1)  # of all that is claimed: those that stand aside have no part in it
        live = [await daemon.store.get(OWNER, each) for each in ("0", "1", "2", "3", "4", "newcomer")]
        assert [each.crashes for each in live] == [SUSPECT + 2, *[SUSPECT + 1] * 4, 1]
        assert [each.blamed for each in live] == [1, 0, 0, 0, 0, 0]
        gate.open()


async def test_a_suspect_that_was_withdrawn_meanwhile_is_not_performed(url: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder)
    async with daemon.working(leases=False):
        await daemon.add(task("t"))
        await crash(daemon, SUSPECT + 1)
        [claimed] = (await daemon.store.claim(daemon.store.lanes[0], limit=1, lease=30_000)).tasks
        await daemon.cancel("t")
        daemon.pool.start(claimed)
        await daemon.settled(1)
        assert await daemon.past_of("t") == [Status.CANCELLED]
    assert recorder.starts == []


async def test_a_suspect_waits_for_no_other_that_cannot_be_put_aside(url: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder, queues=("default", "slow"))
    async with daemon.working(leases=False), plain(url) as raw:
        await daemon.add(*(task(f"{at}", queue="slow") for at in range(2)), task("t"))
        for _ in range(SUSPECT + 1):
            for lane in daemon.store.lanes:
                await daemon.store.claim(lane, limit=10, lease=30_000)
            await daemon.leases.recover(every=True)
        await daemon.add(task("u"))
        slow = (await daemon.store.claim(Lane(0, "slow"), limit=2, lease=30_000)).tasks
        await raw.rename("later:{0}:running:slow", "aside")
        await raw.set("later:{0}:running:slow", "not a set")
        for each in slow:
            daemon.pool.start(each)
        async with anyio.create_task_group() as managing:
            managing.start_soon(daemon.managers[0].run)
            await wait_until(lambda: {"t", "u"} <= recorder.times.keys(), within=20)
            managing.cancel_scope.cancel()
        await raw.rename("aside", "later:{0}:running:slow")


async def test_those_that_stand_aside_have_their_turn_soon(url: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder)
    async with daemon.reachable():
        await daemon.add(*(task(f"{at}") for at in range(10)))
        await crash(daemon, SUSPECT + 1)
    async with daemon.running():
        assert await daemon.settled(10) == {Status.COMPLETED: 10}
    assert recorder.most_at_once == 1
    assert set(recorder.times.values()) == {1}


async def test_after_one_crash_all_are_performed_side_by_side(url: str) -> None:
    recorder = Recorder(Gate())
    daemon = Parts(url, recorder)
    async with daemon.working(leases=False):
        await daemon.add(*(task(f"{at}") for at in range(5)))
        await crash(daemon, 1)
        await daemon.manager.tick()
        await wait_until(lambda: recorder.at_once == 5)


async def test_a_task_withdrawn_before_it_is_performed_is_not(url: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder)
    async with daemon.working(leases=False):
        await daemon.add(task("t"))
        await daemon.claim_one()
        await daemon.cancel("t")
        await daemon.leases.recover(every=True)
        await daemon.manager.tick()
        await daemon.settled(1)
        assert await daemon.past_of("t") == [Status.CANCELLED]
    assert recorder.starts == []


async def test_an_action_that_will_not_be_cancelled_keeps_its_end(url: str) -> None:
    """What it answers in spite of being told to stop has been performed, and is recorded so."""
    gate = Gate()

    async def perform(task: Task) -> None:
        try:
            await gate(task)
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    recorder = Recorder(perform)
    daemon = Parts(url, recorder)
    async with daemon.running():
        await daemon.add(task("t"))
        await wait_until(lambda: len(recorder.starts) == 1)
        with anyio.fail_after(5):
            await daemon.pool.drain(0)
        assert await daemon.past_of("t") == [Status.COMPLETED]


async def back_to(daemon: Parts, task_id: str, status: Status) -> Task:
    """The task, once it stands there."""
    found: list[Task] = []

    async def stands() -> bool:
        there = await daemon.store.get(OWNER, task_id)
        if there is None or there.status is not status or not there.failures:
            return False
        found.append(there)
        return True

    await wait_until(stands)
    return found[-1]


async def crash(daemon: Parts, times: int, *, alone: bool = False) -> None:
    """Let the lease of everything that is due or claimed end so many times without a word."""
    for _ in range(times):
        claim = await daemon.store.claim(daemon.store.lanes[0], limit=100, lease=30_000)
        if alone:
            await daemon.store.extend(claim.tasks, lease=30_000, alone=True)
        await daemon.leases.recover(every=True)
