"""The daemon's life: the order of stopping, and signals to the real program."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import anyio
import pytest
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from structlog.testing import capture_logs

from later.daemon.pool import Attempt, Pool
from later.daemon.serve import Loop, serve
from tests.acceptance.api import Api
from tests.acceptance.sink import Sink, sink
from tests.daemon.parts import task
from tests.program import Program, installed
from tests.waiting import wait_until


class House:
    """A daemon without tasks of its own: loops that note when they begin and end."""

    def __init__(self) -> None:
        self.diary: list[str] = []
        self.gate = anyio.Event()
        self.pool = Pool(5, self._work)

    async def serve(self, *services: tuple[str, Loop], grace: float = 5.0) -> int:
        return await serve(
            pool=self.pool,
            lifelines=[("keep leases", self.loop("leases"))],
            services=[("take work in", self.loop("manager")), *services],
            grace=grace,
            ready=lambda: self.diary.append("ready"),
            stopping=lambda: self.diary.append("stopping"),
        )

    def loop(self, name: str) -> Loop:
        async def run(*, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
            self.diary.append(f"{name} begins")
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                self.diary.append(f"{name} ends")

        return run

    async def _work(self, attempt: Attempt) -> None:
        self.diary.append("work begins")
        try:
            await self.gate.wait()
        finally:
            self.diary.append("work ends")

    async def until(self, word: str) -> None:
        await wait_until(lambda: word in self.diary)


async def test_services_end_first_then_work_then_lifelines() -> None:
    house, status = House(), []
    with capture_logs():
        async with anyio.create_task_group() as outside:

            async def run() -> None:
                status.append(await house.serve())

            outside.start_soon(run)
            await house.until("ready")
            house.pool.start(task("t"))
            await house.until("work begins")
            os.kill(os.getpid(), signal.SIGTERM)
            await house.until("manager ends")
            await anyio.wait_all_tasks_blocked()
            assert house.diary[-1] == "manager ends"
            house.gate.set()
    assert status == [0]
    assert house.diary == [
        *("leases begins", "manager begins", "ready", "work begins"),
        *("stopping", "manager ends", "work ends", "leases ends"),
    ]


async def test_ctrl_c_stops_as_well() -> None:
    house = House()
    with capture_logs():
        async with anyio.create_task_group() as outside:
            outside.start_soon(house.serve)
            await house.until("ready")
            os.kill(os.getpid(), signal.SIGINT)
    assert house.diary[-1] == "leases ends"


async def test_a_second_signal_stops_at_once_with_status_1() -> None:
    house, status = House(), []
    with capture_logs() as logs:
        async with anyio.create_task_group() as outside:

            async def run() -> None:
                status.append(await house.serve(grace=3600.0))

            outside.start_soon(run)
            await house.until("ready")
            house.pool.start(task("t"))
            await house.until("work begins")
            os.kill(os.getpid(), signal.SIGTERM)
            await house.until("manager ends")
            os.kill(os.getpid(), signal.SIGINT)
    assert status == [1]
    assert [(entry["event"], entry["running"]) for entry in logs] == [("stopping", 1), ("stopped_at_once", 1)]


async def test_a_loop_that_ends_by_itself_ends_the_daemon() -> None:
    async def runs_dry(*, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        task_status.started()

    house = House()
    with pytest.raises(ExceptionGroup) as ended, anyio.fail_after(5):
        await house.serve(("look at nothing", runs_dry))
    assert leaves(ended.value) == ["this has ended by itself: look at nothing"]
    assert house.diary[-1] == "leases ends"


async def test_a_loop_that_breaks_ends_the_daemon() -> None:
    async def breaks(*, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        task_status.started()
        raise ZeroDivisionError("a fault")

    house = House()
    with pytest.raises(ExceptionGroup) as ended, anyio.fail_after(5):
        await house.serve(("divide", breaks))
    assert leaves(ended.value) == ["a fault"]


def leaves(group: BaseExceptionGroup) -> list[str]:
    """What has really happened, in the middle of all groups."""
    found: list[str] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return found


# The real program.


@pytest.fixture
def arrivals() -> Iterator[Sink]:
    with sink() as arrivals:
        yield arrivals


@pytest.fixture
def program(arrivals: Sink) -> Iterator[Program]:
    with installed(**arrivals.settings, LATER_LEASE_SECONDS="30") as program:
        yield program


async def test_what_is_running_may_finish(program: Program, arrivals: Sink) -> None:
    program.start()
    add(program, "t", "wait for the gate")
    arrivals.wait_for("begun", 1)
    assert program.daemon is not None
    program.daemon.send_signal(signal.SIGTERM)
    await wait_until(lambda: not (program.state / "api.sock").exists())
    assert program.daemon.poll() is None
    assert arrivals.lines("done") == []
    arrivals.open_gate()
    assert program.daemon.wait(20) == 0
    assert [line["kind"] for line in arrivals.lines()] == ["begun", "done"]
    assert [event["task"].partition("/")[2] for event in program.events("task_completed")] == ["t"]
    program.start()
    assert [past["id"] for past in program.json("history")["tasks"]] == ["t"]
    assert program.stop() == 0


def test_what_outlasts_the_grace_is_put_back_uncounted(program: Program, arrivals: Sink) -> None:
    program.start(LATER_GRACE_SECONDS="0.2")
    add(program, "t", "wait for the gate")
    arrivals.wait_for("begun", 1)
    assert program.stop() == 0
    assert program.events("attempts_put_back")[0]["count"] == 1
    arrivals.open_gate()
    program.start()
    arrivals.wait_for("done", 1)
    begun = arrivals.lines("begun")
    assert [(line["attempts"], line["crashes"]) for line in begun] == [(0, 0), (0, 0)]
    assert len({line["delivery_id"] for line in begun}) == 1
    assert program.stop() == 0


def test_the_second_signal_stops_at_once_and_loses_nothing(program: Program, arrivals: Sink) -> None:
    program.start()
    for each in ("a", "b"):
        add(program, each, "wait for the gate")
    add(program, "c", "later", due_in="1h")
    arrivals.wait_for("begun", 2)
    daemon = program.daemon
    assert daemon is not None
    daemon.send_signal(signal.SIGTERM)
    program.wait_for_log("stopping")
    began = time.monotonic()
    assert program.stop(signal.SIGTERM) == 1
    assert time.monotonic() - began < 5
    arrivals.open_gate()
    program.start()
    arrivals.wait_for("done", 2)
    assert sorted(line["id"] for line in arrivals.lines("done")) == ["a", "b"]
    assert [each["id"] for each in program.json("list")["tasks"]] == ["c"]
    assert program.stop() == 0


def add(program: Program, task_id: str, message: str, *, due_in: str = "0s") -> None:
    api = Api(program.state / "api.sock")
    api.add(id=task_id, message=message, action="sink", **{"in": due_in})
