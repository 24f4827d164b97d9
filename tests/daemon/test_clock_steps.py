"""Clocks that are set while tasks run, the server's and a daemon's: nothing twice, nothing lost, nothing early."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import anyio
import pytest
from structlog.testing import capture_logs

from later.core.task import Status
from tests.acceptance.api import Api
from tests.acceptance.sink import sink
from tests.daemon.parts import Parts, Recorder, lasting, task
from tests.daemon.test_outages import in_ms
from tests.program import installed
from tests.servers import KINDS, Server, served
from tests.waiting import wait_until
from tests.wallclock import WallClock, wallclock

MINUTE_S, HOUR_S = 60, 3600
LEASE_MS = 1000
LONG_AGO = 1_700_000_000_000


@pytest.fixture
def clock() -> Iterator[WallClock]:
    with wallclock() as clock:
        yield clock


@pytest.fixture
def servers(clock: WallClock) -> Iterator[list[Server]]:
    """One of each kind, which go by the same clock."""
    with ExitStack() as running:
        yield [running.enter_context(served(kind, env=clock.env)) for kind in KINDS]


@pytest.mark.slow
async def test_no_step_of_the_servers_clock_has_anything_performed_twice(
    servers: list[Server], clock: WallClock
) -> None:
    async def survives(server: Server) -> None:
        recorder = Recorder(lasting(7.5 * LEASE_MS / 1000))
        one = Parts(server.url, recorder, lease=LEASE_MS)
        other = Parts(server.url, recorder, lease=LEASE_MS, holder="there:2:0")  # would take over what seems to end
        async with one.running(), other.running():
            await one.add(*(task(f"{at}", due=LONG_AGO) for at in range(20)))
            assert await one.settled(20) == {Status.COMPLETED: 20}
            assert {past.task.crashes for past in await one.past()} == {0}
        assert set(recorder.times.values()) == {1}

    with capture_logs() as logs:
        async with anyio.create_task_group() as at_once:
            for server in servers:
                at_once.start_soon(survives, server)
            for step in (MINUTE_S, -MINUTE_S, HOUR_S, -HOUR_S):
                await anyio.sleep(1.5 * LEASE_MS / 1000)
                clock.step(step)
    steps = [entry["seconds"] for entry in logs if entry["event"] == "server_clock_stepped"]
    assert Counter(round(step / 60) for step in steps) == {1: 8, 60: 8}  # two daemons on two servers, there and back


async def test_after_a_step_the_tasks_of_a_dead_daemon_come_back_as_ever(
    servers: list[Server], clock: WallClock
) -> None:
    """Also after a long one backwards, as their leases then end an hour from now, where no lease ends."""
    recorder = Recorder()
    dead = [Parts(server.url, Recorder()) for server in servers]
    alive = [Parts(server.url, recorder, lease=LEASE_MS, holder="there:2:0") for server in servers]
    for at, step in enumerate((MINUTE_S, HOUR_S, -HOUR_S)):
        for each in dead:
            async with each.reachable():
                await each.add(task(f"{at}", due=LONG_AGO))
                await each.claim_one()
        async with alive[0].running(), alive[1].running():
            clock.step(step)
            for each in alive:
                await each.settled(at + 1, within=5)
        alive = [Parts(server.url, recorder, lease=LEASE_MS, holder="there:2:0") for server in servers]
    assert recorder.times == {"0": 2, "1": 2, "2": 2}
    assert {start.task.crashes for start in recorder.starts} == {1}


@pytest.mark.slow
async def test_the_daemons_own_clock_decides_nothing(clock: WallClock) -> None:
    with (
        served("valkey") as server,
        sink() as arrivals,
        installed(
            LATER_REDIS_URL=server.url, LATER_LEASE_SECONDS=f"{LEASE_MS / 1000}", **arrivals.settings, **clock.env
        ) as program,
    ):
        program.start()
        api = Api(program.state / "api.sock")
        for at in range(40):
            api.add(id=f"{at}", message="take 0.5", action="sink", at=in_ms(500 + 100 * at))
        dead = Parts(server.url, Recorder())
        async with dead.reachable():
            for at, step in enumerate((HOUR_S, -2 * HOUR_S, HOUR_S)):
                await dead.add(task(f"orphan-{at}", due=LONG_AGO, action="sink"))
                await dead.store.claim(dead.store.lanes[0], limit=1, lease=LEASE_MS)
                clock.step(step)
                api.add(id=f"soon-{at}", message="note", action="sink", **{"in": "1s"})
                await anyio.sleep(1)
        await wait_until(lambda: len(arrivals.lines("done")) >= 46)
        begun = arrivals.lines("begun")
        assert set(Counter(line["id"] for line in begun).values()) == {1}
        since_boot = time.time() - time.monotonic()
        late_ms = [(line["monotonic"] + since_boot) * 1000 - line["due"] for line in begun if line["due"] != LONG_AGO]
        assert min(late_ms) >= -1  # the two clocks of this test are not read in the same instant
        assert max(late_ms) < 2000
        assert program.stop() == 0
