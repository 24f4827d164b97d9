"""The manager: never early, never asleep past a due time, never more than there are places."""

from __future__ import annotations

import random
import statistics
import time

import anyio
import pytest
from structlog.testing import capture_logs

from later.actions.base import TemporaryFailure
from later.core.errors import StoreUnavailable
from later.core.task import Status, Task
from later.daemon import manager
from later.store.base import Overdue
from later.store.keys import Lane
from tests.daemon.parts import EAGER, HOUR_MS, OWNER, Gate, Parts, Recorder, commands, lasting, plain, task
from tests.proxy import between
from tests.waiting import wait_until


async def test_nothing_starts_before_it_is_due(url: str, rng: random.Random) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder)
    async with daemon.running():
        begin = daemon.store.now() + 100
        await daemon.add(*(task(f"{at}", due=begin + rng.randrange(1500)) for at in range(300)))
        await daemon.settled(300)
    assert [start.task.id for start in recorder.starts if start.early_ms > 0] == []
    assert set(recorder.times.values()) == {1}
    assert len(recorder.times) == 300


async def test_a_sooner_task_wakes_the_manager(url: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder)
    took_ms = []
    async with daemon.running():
        await daemon.add(task("far", due=daemon.store.now() + 3 * HOUR_MS))
        for at in range(9):
            await asleep(daemon)
            added = time.time() * 1000
            await daemon.add(task(f"near-{at}", due=int(added) + 20))
            await daemon.settled(at + 1)
            took_ms.append(recorder.starts[-1].at - added)
    assert statistics.median(took_ms) <= 50
    assert "far" not in recorder.times


async def test_a_retry_wakes_the_manager(url: str) -> None:
    async def perform(task: Task) -> None:
        if not task.attempts:
            raise TemporaryFailure("not yet", retry_after=200)

    recorder = Recorder(perform)
    daemon = Parts(url, recorder, policy=EAGER)
    async with daemon.running():
        await daemon.add(task("far", due=daemon.store.now() + 3 * HOUR_MS))
        await asleep(daemon)
        await daemon.add(task("t"))
        await daemon.settled(1, within=5)
    first, second = recorder.starts
    assert 200 <= second.at - first.at < 2_000
    assert second.early_ms <= 0


async def test_what_a_stopping_daemon_puts_back_wakes_the_others(url: str) -> None:
    recorder = Recorder()
    stopping, other = Parts(url, cut_off := Recorder(Gate())), Parts(url, recorder, holder="there:2:0")
    async with other.working(), anyio.create_task_group() as managers:
        async with stopping.working():
            await stopping.add(task("t"))
            await stopping.manager.tick()
            await wait_until(lambda: cut_off.at_once == 1)
            await managers.start(other.manager.run)
            await asleep(other)
        await other.settled(1, within=5)
        managers.cancel_scope.cancel()
    [start] = recorder.starts
    assert (start.task.attempts, start.task.crashes) == (0, 0)


async def test_a_wake_up_that_is_lost_costs_no_more_than_one_look(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "PEEK_S", 0.3)
    recorder = Recorder()
    daemon = Parts(url, recorder)
    async with daemon.running(wakes=False):
        await daemon.add(task("far", due=daemon.store.now() + 3 * HOUR_MS))
        await daemon.add(task("near"))
        await daemon.settled(1)
    assert recorder.times == {"near": 1}


async def test_1028_due_tasks_never_exceed_the_places(url: str) -> None:
    recorder = Recorder(lasting(0.05))
    daemon = Parts(url, recorder)
    async with daemon.reachable():
        await daemon.add(*(task(f"{at}") for at in range(1028)))
    with capture_logs() as logs:
        async with daemon.running():
            assert await daemon.settled(1028, within=60) == {Status.COMPLETED: 1028}
    assert recorder.most_at_once == 50
    assert set(recorder.times.values()) == {1}
    warnings = [entry for entry in logs if entry["event"] == "all_workers_busy"]
    assert 1 <= len(warnings) <= 5
    for warning in warnings:
        assert warning["log_level"] == "warning"
        assert 0 < warning["overdue"] <= 1028 - 50
        assert warning["late_ms"] > 0
        assert warning["workers"] == 50


async def test_managers_of_several_queues_share_the_places(url: str) -> None:
    recorder = Recorder(lasting(0.05))
    daemon = Parts(url, recorder, workers=10, queues=["default", "other", "third"])
    async with daemon.reachable():
        for queue in ("default", "other", "third"):
            await daemon.add(*(task(f"{queue}-{at}", queue=queue) for at in range(40)))
    async with daemon.running():
        await daemon.settled(120, within=60)
    assert recorder.most_at_once == 10
    assert set(recorder.times.values()) == {1}


async def test_no_claim_takes_more_than_a_batch(url: str) -> None:
    gate = Gate()
    daemon = Parts(url, Recorder(gate), workers=50, batch=7)
    async with daemon.working():
        await daemon.add(*(task(f"{at}") for at in range(30)))
        for taken in (7, 14, 21, 28, 30):
            await daemon.manager.tick()
            assert len(daemon.pool.attempts) == taken
        gate.open()
        await daemon.settled(30)


async def test_the_manager_does_not_wait_for_one_to_start_the_next(url: str) -> None:
    gate = Gate()
    slow, quick = Recorder(gate, name="slow"), Recorder(name="quick")
    daemon = Parts(url, slow, quick)
    async with daemon.running():
        now = daemon.store.now()
        await daemon.add(task("first", due=now, action="slow"), task("second", due=now + 1, action="quick"))
        await daemon.add(task("third", due=now + 100, action="quick"))
        await wait_until(lambda: len(quick.finished) == 2)
        assert [each.id for each in quick.finished] == ["second", "third"]
        assert (slow.at_once, slow.finished) == (1, [])
        gate.open()
        await daemon.settled(3)


async def test_a_place_that_is_left_while_the_store_is_asked_is_seen(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    daemon = Parts(url, Recorder(gate), workers=1)
    overdue = daemon.store.overdue

    async def answered_late(lane: Lane) -> Overdue:
        answer = await overdue(lane)
        gate.open()
        await wait_until(lambda: daemon.pool.free == 1)
        return answer

    monkeypatch.setattr(daemon.store, "overdue", answered_late)
    async with daemon.working():
        await daemon.add(task("first"), task("second"))
        await daemon.manager.tick()
        with anyio.fail_after(0.5):
            await daemon.manager.tick()
        await daemon.settled(2)


async def test_until_its_time_a_task_can_be_cancelled(url: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder, wakeup_before=0.5)
    async with daemon.running():
        due = daemon.store.now() + 600
        await daemon.add(task("withdrawn", due=due), task("kept", due=due + 1))
        await wait_until(lambda: daemon.store.now() > due - 60)
        await daemon.cancel("withdrawn")
        await daemon.settled(2)
        assert await daemon.past_of("withdrawn") == [Status.CANCELLED]
    assert recorder.times == {"kept": 1}


async def test_without_the_time_to_make_ready_nothing_is_early_or_lost(url: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder, wakeup_before=0)
    async with daemon.running():
        begin = daemon.store.now() + 50
        await daemon.add(*(task(f"{at}", due=begin + 20 * at) for at in range(20)))
        await daemon.settled(20)
    assert [start.task.id for start in recorder.starts if start.early_ms > 0] == []


async def test_a_claim_whose_reply_is_lost_is_adopted(url: str) -> None:
    gate = Gate()
    recorder = Recorder(gate)
    async with between(url) as proxy:
        daemon = Parts(proxy.url, recorder, workers=5)
        async with daemon.running():
            await asleep(daemon)
            proxy.cut_reply_to(daemon.store.holder)  # which only a claim tells
            await daemon.add(*(task(f"{at}") for at in range(12)))
            await wait_until(lambda: len(recorder.starts) == 5)
            assert proxy.cuts == 1
            gate.open()
            await daemon.settled(12)
    assert set(recorder.times.values()) == {1}
    assert {start.task.crashes for start in recorder.starts} == {0}
    assert recorder.most_at_once == 5


async def test_what_is_adopted_has_a_lease_of_its_own_again(url: str) -> None:
    gate = Gate()
    recorder = Recorder(gate)
    async with between(url) as proxy:
        daemon = Parts(proxy.url, recorder, lease=500)
        async with daemon.working(leases=False):
            await daemon.manager.tick()  # so that the server knows the script, and the reply to be cut is the answer
            await daemon.add(task("t"))
            proxy.cut_reply_to(daemon.store.holder)
            with pytest.raises(StoreUnavailable):
                await daemon.manager.tick()
            claimed = await daemon.store.get(OWNER, "t")
            assert claimed is not None
            assert claimed.lease_until is not None
            await wait_until(lambda: daemon.store.now() > claimed.lease_until)
            await daemon.manager.tick()
            adopted = await daemon.store.get(OWNER, "t")
            assert adopted is not None
            assert adopted.claim == claimed.claim
            assert (adopted.lease_until or 0) > daemon.store.now()
            gate.open()
    assert recorder.times == {"t": 1}


async def test_what_is_settled_while_claims_are_looked_through_is_not_performed_again(url: str) -> None:
    gate = Gate()
    recorder = Recorder(gate)
    async with between(url) as proxy:
        daemon = Parts(proxy.url, recorder)
        async with daemon.running():
            await daemon.add(task("known"))
            await wait_until(lambda: len(recorder.starts) == 1)
            await asleep(daemon)
            proxy.cut_reply_to(daemon.store.holder)  # which only a claim tells
            proxy.hold_reply_to("ZSCORE")  # the question for what is claimed in the daemon's name
            await daemon.add(task("unknown"))
            await wait_until(lambda: proxy.held == 1)
            gate.open()
            await wait_until(lambda: daemon.pool.attempts == [])
            proxy.release()
            await daemon.settled(2)
    assert recorder.times == {"known": 1, "unknown": 1}


async def test_an_idle_daemon_leaves_its_server_alone(url: str) -> None:
    daemon = Parts(url, Recorder())
    async with daemon.running():
        await daemon.add(task("far", due=daemon.store.now() + 3 * HOUR_MS))
        await asleep(daemon)
        before, began, worked = await commands(url), time.monotonic(), time.process_time()
        await anyio.sleep(3)
        worked = time.process_time() - worked
        spent = await commands(url) - before
        per_minute = spent.total() * 60 / (time.monotonic() - began)
    assert per_minute <= 60, spent
    assert worked < 0.15


async def test_it_says_how_long_it_has_not_looked(url: str) -> None:
    daemon = Parts(url, Recorder())
    async with daemon.running():
        await asleep(daemon)
        await wait_until(lambda: daemon.manager.idle_for() > 0.1)
        await daemon.add(task("near"))
        await daemon.settled(1)
        assert daemon.manager.idle_for() < 0.1


async def asleep(daemon: Parts) -> None:
    """Return once the daemon hears of sooner tasks and has nothing to do but wait."""

    async def listening() -> bool:
        async with plain(daemon.store.url) as server:
            return dict(await server.pubsub_numsub("later:{0}:wake"))["later:{0}:wake"] > 0

    await wait_until(listening)
    await anyio.sleep(0.05)
