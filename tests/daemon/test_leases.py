"""Leases: kept as long as an action takes, lost without a trace, taken over when their holder has died."""

from __future__ import annotations

import os
import signal

import anyio
from structlog.testing import capture_logs

from later.core.task import Status
from later.store.base import Held
from later.store.embedded import EmbeddedServer
from tests.daemon.parts import OWNER, Gate, Parts, Recorder, lasting, plain, task
from tests.waiting import wait_until

LEASE_MS = 500


async def test_an_action_of_five_leases_runs_once(url: str) -> None:
    recorder = Recorder(lasting(5 * LEASE_MS / 1000))
    one = Parts(url, recorder, lease=LEASE_MS)
    other = Parts(url, recorder, lease=LEASE_MS, holder="there:2:0")  # would take over what is not kept
    async with one.running(), other.running():
        await one.add(*(task(f"{at}") for at in range(10)))
        assert await one.settled(10) == {Status.COMPLETED: 10}
        past = await one.past()
    assert set(recorder.times.values()) == {1}
    assert {each.task.crashes for each in past} == {0}


async def test_a_lost_lease_ends_the_attempt_and_settles_nothing(url: str) -> None:
    gate = Gate()
    recorder = Recorder(gate)
    daemon = Parts(url, recorder)
    with capture_logs() as logs:
        async with daemon.working(leases=False):
            await daemon.add(task("t"))
            await daemon.manager.tick()
            await wait_until(lambda: recorder.at_once == 1)
            await daemon.leases.recover(every=True)
            await daemon.leases.extend()
            await wait_until(lambda: daemon.pool.attempts == [])
            there = await daemon.store.get(OWNER, "t")
            assert there is not None
            assert (there.status, there.crashes, there.attempts) == (Status.PENDING, 1, 0)
            assert await daemon.past() == []
    assert [each.id for each in recorder.cut_off] == ["t"]
    assert [entry["event"] for entry in logs if entry["event"].startswith("task_")] == ["task_lease_lost"]


async def test_a_settlement_under_a_lost_lease_is_refused(url: str) -> None:
    gate = Gate()
    recorder = Recorder(gate)
    one, other = Parts(url, recorder), Parts(url, recorder, holder="there:2:0")
    with capture_logs() as logs:
        async with one.working(leases=False), other.working(leases=False):
            await one.add(task("t"))
            await one.manager.tick()
            await other.leases.recover(every=True)
            await other.manager.tick()
            await wait_until(lambda: recorder.at_once == 2)
            gate.open()
            await one.settled(1)
            await wait_until(lambda: one.pool.attempts == other.pool.attempts == [])
            [past] = await one.past()
    assert (past.task.holder, past.task.crashes) == ("there:2:0", 1)
    assert past.task.claim == max(start.task.claim for start in recorder.starts)
    events = sorted(entry["event"] for entry in logs if entry["event"].startswith("task_"))
    assert events in (["task_completed", "task_settlement_stale"], ["task_completed", "task_settlement_gone"])


async def test_the_old_and_the_new_attempt_of_one_task_are_told_apart(url: str) -> None:
    """A daemon that slept past its lease may claim the very task that it still performs."""
    gate = Gate()
    recorder = Recorder(gate)
    daemon = Parts(url, recorder)
    async with daemon.working(leases=False):
        await daemon.add(task("t"))
        await daemon.manager.tick()
        await daemon.leases.recover(every=True)
        await daemon.manager.tick()
        await wait_until(lambda: recorder.at_once == 2)
        await daemon.leases.extend()
        await wait_until(lambda: len(daemon.pool.attempts) == 1)
        assert [each.claim for each in recorder.cut_off] == [recorder.starts[0].task.claim]
        gate.open()
        assert await daemon.settled(1) == {Status.COMPLETED: 1}
        [past] = await daemon.past()
    assert past.task.claim == recorder.starts[1].task.claim


async def test_the_owners_end_reaches_a_running_attempt(url: str) -> None:
    recorder = Recorder(Gate())
    daemon = Parts(url, recorder, lease=1000)
    async with daemon.running():
        await daemon.add(task("t"), task("other"))
        await wait_until(lambda: recorder.at_once == 2)
        await daemon.cancel("t")
        await daemon.settled(1, within=5)
        assert await daemon.past_of("t") == [Status.CANCELLED]
        assert await daemon.store.get(OWNER, "t") is None
        assert [attempt.task.id for attempt in daemon.pool.attempts] == ["other"]
    assert recorder.cut_off[0].id == "t"


async def test_what_died_with_its_daemon_is_taken_over(url: str) -> None:
    recorder = Recorder()
    dead, alive = Parts(url, Recorder(), lease=LEASE_MS), Parts(url, recorder, lease=LEASE_MS, holder="there:2:0")
    async with dead.reachable():
        await dead.add(*(task(f"{at}") for at in range(5)))
        claim = await dead.store.claim(dead.store.lanes[0], limit=5, lease=LEASE_MS)
    assert len(claim.tasks) == 5
    with capture_logs() as logs:
        async with alive.running():
            assert await alive.settled(5, within=5) == {Status.COMPLETED: 5}
    assert {start.task.crashes for start in recorder.starts} == {1}
    assert {start.task.attempts for start in recorder.starts} == {0}
    assert [entry["count"] for entry in logs if entry["event"] == "leases_recovered"] == [5]


async def test_no_lease_is_taken_over_before_it_ends(url: str) -> None:
    dead, alive = Parts(url, Recorder()), Parts(url, Recorder(), holder="there:2:0")
    async with dead.reachable(), alive.reachable():
        await dead.add(task("t"))
        claimed = await dead.claim_one()
        await wait_until(lambda: alive.store.steady_for() > 0)
        assert (await alive.store.recover(alive.store.lanes[0], limit=100)).count == 0
        there = await alive.store.get(OWNER, "t")
        assert there is not None
        assert (there.status, there.claim) == (Status.RUNNING, claimed.claim)


async def test_after_a_server_that_froze_nobody_loses_a_lease(server: EmbeddedServer) -> None:
    recorder = Recorder(lasting(6 * LEASE_MS / 1000))
    one = Parts(server.url, recorder, lease=LEASE_MS)
    other = Parts(server.url, recorder, lease=LEASE_MS, holder="there:2:0")
    async with one.running(), other.running(), plain(server.url) as client:
        pid = int((await client.info("server"))["process_id"])
        await one.add(*(task(f"{at}") for at in range(10)))
        await wait_until(lambda: recorder.at_once == 10)
        os.kill(pid, signal.SIGSTOP)
        await anyio.sleep(2.5 * LEASE_MS / 1000)
        os.kill(pid, signal.SIGCONT)
        assert await one.settled(10) == {Status.COMPLETED: 10}
    assert set(recorder.times.values()) == {1}


async def test_a_recovery_that_was_under_way_as_the_server_froze_takes_no_lease(server: EmbeddedServer) -> None:
    queues = ("default", "slow")  # the first one's answer tells of the gap before the second is asked
    one = Parts(server.url, Recorder(), lease=LEASE_MS, queues=queues)
    other = Parts(server.url, Recorder(), lease=LEASE_MS, holder="there:2:0", queues=queues)
    async with one.reachable(), other.reachable(), plain(server.url) as client:
        pid = int((await client.info("server"))["process_id"])
        await other.leases.recover(every=True)  # so that the server knows the script
        await looking_out(other)
        await one.add(task("t"), task("s", queue="slow"))
        claims = [await one.store.claim(lane, limit=1, lease=LEASE_MS) for lane in one.store.lanes]
        claimed = [each for claim in claims for each in claim.tasks]
        os.kill(pid, signal.SIGSTOP)
        async with anyio.create_task_group() as under_way:
            under_way.start_soon(other.leases.recover)
            await anyio.sleep(2 * LEASE_MS / 1000)
            os.kill(pid, signal.SIGCONT)
        assert list(await one.store.extend(claimed, lease=LEASE_MS)) == [Held.KEPT, Held.KEPT]


async def test_who_was_stopped_while_the_server_froze_takes_no_lease(server: EmbeddedServer) -> None:
    """It has missed nothing that it knows of, and nobody could extend meanwhile."""
    one = Parts(server.url, Recorder(), lease=LEASE_MS)
    other = Parts(server.url, Recorder(), lease=LEASE_MS, holder="there:2:0")
    async with one.reachable(), other.reachable(), plain(server.url) as client:
        pid = int((await client.info("server"))["process_id"])
        await looking_out(other)
        await one.add(task("t"))
        claimed = await one.claim_one()
        os.kill(pid, signal.SIGSTOP)
        await anyio.sleep(2 * LEASE_MS / 1000)  # the other one is stopped as well: it does not look out
        os.kill(pid, signal.SIGCONT)
        await other.leases.recover()
        assert list(await one.store.extend([claimed], lease=LEASE_MS)) == [Held.KEPT]


async def test_who_looks_out_takes_over_what_has_ended(url: str) -> None:
    dead, alive = Parts(url, Recorder(), lease=LEASE_MS), Parts(url, Recorder(), lease=LEASE_MS, holder="there:2:0")
    async with dead.reachable(), alive.reachable():
        await dead.add(task("t"))
        claimed = await dead.claim_one()
        await looking_out(alive)
        assert list(await dead.store.extend([claimed], lease=LEASE_MS)) == [Held.LOST]


async def looking_out(daemon: Parts) -> None:
    """Return once it has looked for leases that have ended for so long that it takes them over."""
    until = anyio.current_time() + 2 * LEASE_MS / 1000
    while anyio.current_time() < until:
        await daemon.leases.recover()
        await anyio.sleep(LEASE_MS / 10_000)


async def test_the_leases_of_an_earlier_boot_are_recovered_at_once(url: str) -> None:
    daemon = Parts(url, Recorder(), lease=3_600_000)
    async with daemon.reachable():
        await daemon.add(*(task(f"{at}") for at in range(250)))
        await daemon.store.claim(daemon.store.lanes[0], limit=250, lease=3_600_000)
        await daemon.leases.recover(every=True)
        assert (await daemon.store.counts())["running"] == 0
        assert (await daemon.store.counts())["pending"] == 250
