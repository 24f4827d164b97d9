"""The pool: its places, and how an attempt is ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import anyio
import pytest
from structlog.testing import capture_logs

from later.core.lifecycle import PutBack, Withdrawn
from later.daemon import pool as pools
from later.daemon.pool import Attempt, Lost, Pool
from tests.daemon.parts import task
from tests.waiting import wait_until


class Work:
    """What workers do here: wait until they are let go, or cancelled."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.reasons: list[object] = []
        self.let_go = anyio.Event()

    async def __call__(self, attempt: Attempt) -> None:
        self.begun.append(attempt.task.id)
        performing = attempt.performing = asyncio.current_task()
        assert performing is not None
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            if attempt.ending is None:
                raise
            performing.uncancel()
            self.reasons.append(attempt.ending)
        finally:
            attempt.performing = None
            self.ended.append(attempt.task.id)


async def test_a_place_is_held_until_the_work_is_over() -> None:
    work = Work()
    async with Pool(3, work) as pool:
        pool.start(task("a"))
        pool.start(task("b"))
        assert (pool.places, pool.free) == (3, 1)
        work.let_go.set()
        await wait_until(lambda: pool.free == 3)
    assert work.ended == ["a", "b"]


async def test_one_claim_has_one_place_and_another_claim_of_the_task_has_another() -> None:
    work = Work()
    async with Pool(3, work) as pool:
        for claim in (1, 1, 2):
            pool.start(replace(task("a"), claim=claim))
        assert pool.claims == {("ada/a", 1), ("ada/a", 2)}
        work.let_go.set()
    assert work.begun == ["a", "a"]


async def test_reserved_places_are_nobody_elses() -> None:
    async with Pool(5, Work()) as pool:
        with pool.reserved(3) as mine, pool.reserved(3) as theirs:
            assert (mine, theirs, pool.free) == (3, 2, 0)
        assert pool.free == 5


async def test_whoever_waits_for_room_is_told_of_a_place_that_was_only_reserved() -> None:
    async with Pool(1, Work()) as pool, anyio.create_task_group() as waiting:
        with pool.reserved(1):
            waiting.start_soon(pool.wait_for_room, 60.0)
            await anyio.wait_all_tasks_blocked()


async def test_waiting_for_room_ends_as_a_place_is_left_or_with_the_time() -> None:
    work = Work()
    async with Pool(1, work) as pool:
        pool.start(task("a"))
        with anyio.fail_after(5):
            await pool.wait_for_room(0.01)
        assert pool.free == 0
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(pool.wait_for_room, 60.0)
            await anyio.wait_all_tasks_blocked()
            work.let_go.set()
        assert pool.free == 1


@pytest.mark.parametrize("ending", [PutBack(), Withdrawn(), Lost()])
async def test_an_attempt_is_ended_once_and_for_the_first_reason(ending: PutBack | Withdrawn | Lost) -> None:
    work = Work()
    async with Pool(1, work) as pool:
        pool.start(task("a"))
        await wait_until(lambda: work.begun == ["a"])
        [attempt] = pool.attempts
        attempt.end(ending)
        attempt.end(Withdrawn())
    assert work.reasons == [ending]


async def test_an_attempt_that_is_not_performing_is_left_alone() -> None:
    attempt = Attempt(task("a"))
    attempt.end(Lost())
    assert attempt.ending is None


async def test_draining_lets_work_end_by_itself() -> None:
    work = Work()
    async with Pool(2, work) as pool:
        pool.start(task("a"))
        async with anyio.create_task_group() as stopping:
            stopping.start_soon(pool.drain, 60.0)
            await anyio.wait_all_tasks_blocked()
            assert work.ended == []
            work.let_go.set()
    assert (work.ended, work.reasons) == (["a"], [])


async def test_draining_puts_back_what_outlasts_the_grace() -> None:
    work = Work()
    with capture_logs() as logs:
        async with Pool(2, work) as pool:
            pool.start(task("a"))
            pool.start(task("b"))
            with anyio.fail_after(5):
                await pool.drain(0.05)
    assert work.reasons == [PutBack(), PutBack()]
    assert [(entry["event"], entry["count"]) for entry in logs] == [("attempts_put_back", 2)]


async def test_draining_gives_up_on_settlements_that_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "SETTLE_S", 0.05)

    async def never_answered(attempt: Attempt) -> None:
        await anyio.sleep_forever()

    with capture_logs() as logs:
        async with Pool(1, never_answered) as pool:
            pool.start(task("a"))
            with anyio.fail_after(5):
                await pool.drain(0)
    assert logs[-1]["event"] == "settlements_given_up"
