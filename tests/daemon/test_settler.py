"""The settler: together in one transaction, repeated until the store has answered, and never twice."""

from __future__ import annotations

import os
import signal

import anyio
import pytest
from structlog.testing import capture_logs

from later.core.lifecycle import Performed, Receipt, Settlement, settle
from later.core.task import Status, Task
from later.daemon.settler import BATCH
from later.store.base import Settled
from later.store.embedded import EmbeddedServer
from tests.daemon.parts import OWNER, PATIENT, Gate, Parts, Recorder, commands, plain, task
from tests.proxy import between
from tests.waiting import wait_until


async def test_what_is_ready_together_is_settled_in_one_transaction(url: str) -> None:
    daemon = Parts(url, Recorder())
    async with daemon.reachable():
        await recorded(daemon, await claim(daemon, 1))  # from now on the server knows the script
        claimed = await claim(daemon, BATCH)
        before = await commands(url)
        results = await recorded(daemon, claimed)
        spent = await commands(url) - before
    assert results == [Settled.DONE] * BATCH
    assert (spent["multi"], spent["exec"], spent["evalsha"] + spent["eval"]) == (1, 1, 1)
    assert spent["xadd"] == BATCH


async def test_no_transaction_is_longer_than_a_batch(url: str) -> None:
    daemon = Parts(url, Recorder())
    async with daemon.reachable():
        await recorded(daemon, await claim(daemon, 1))
        claimed = await claim(daemon, 2 * BATCH + 1)
        before = await commands(url)
        await recorded(daemon, claimed)
        assert (await commands(url) - before)["multi"] == 3


async def test_actions_that_end_together_are_settled_together(url: str) -> None:
    gate = Gate()
    recorder = Recorder(gate)
    daemon = Parts(url, recorder)
    async with daemon.running():
        await daemon.add(*(task(f"{at}") for at in range(50)))
        await wait_until(lambda: recorder.at_once == 50)
        before = await commands(url)
        gate.open()
        await wait_until(lambda: daemon.pool.attempts == [])
        spent = await commands(url) - before
    assert spent["xadd"] == 50
    assert spent["multi"] <= 4


async def test_one_that_is_ready_does_not_wait_for_others(url: str) -> None:
    gate = Gate()
    slow, quick = Recorder(gate, name="slow"), Recorder(name="quick")
    daemon = Parts(url, slow, quick)
    async with daemon.running():
        await daemon.add(task("slow", action="slow"), task("quick", action="quick"))
        await daemon.settled(1)
        assert await daemon.past_of("quick") == [Status.COMPLETED]
        gate.open()


async def test_a_settlement_whose_reply_is_lost_is_recorded_once(url: str) -> None:
    recorder = Recorder()
    async with between(url) as proxy:
        daemon = Parts(proxy.url, recorder)
        async with daemon.running():
            await daemon.add(task("0"))
            await daemon.settled(1)  # so that the server knows the script, and the reply to be cut is the answer
            proxy.cut_reply_to("EXEC")
            await daemon.add(*(task(f"{at}") for at in range(1, 20)))
            await daemon.settled(20)
            await wait_until(lambda: daemon.pool.attempts == [])
            assert proxy.cuts == 1
            past = [one.task.id for one in await daemon.past()]
    assert sorted(past, key=int) == [f"{at}" for at in range(20)]
    assert set(recorder.times.values()) == {1}


async def test_a_retry_whose_reply_is_lost_counts_one_attempt(url: str) -> None:
    async def perform(task: Task) -> None:
        raise ValueError("no")

    async with between(url) as proxy:
        daemon = Parts(proxy.url, Recorder(perform), Recorder(name="fine"))
        async with daemon.working(leases=False):
            await daemon.add(task("before", action="fine"))
            await daemon.manager.tick()
            await daemon.settled(1)
            await daemon.add(task("t"))
            proxy.cut_reply_to("EXEC")
            await daemon.manager.tick()
            await wait_until(lambda: daemon.pool.attempts == [])
            assert proxy.cuts == 1
            there = await daemon.store.get(OWNER, "t")
    assert there is not None
    assert (there.status, there.attempts, len(there.failures)) == (Status.PENDING, 1, 1)


async def test_settling_is_repeated_until_the_store_is_back(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("later.store.calls.REPLY_S", 0.2)
    gate = Gate()
    recorder = Recorder(gate)
    daemon = Parts(server.url, recorder, workers=5)
    with capture_logs() as logs:
        async with daemon.running(), plain(server.url) as client:
            pid = int((await client.info("server"))["process_id"])
            await daemon.add(*(task(f"{at}") for at in range(12)))
            await wait_until(lambda: recorder.at_once == 5)
            os.kill(pid, signal.SIGSTOP)
            gate.open()
            await wait_until(lambda: [entry["event"] for entry in logs].count("store_lost") == 1)
            await anyio.sleep(1)
            # Performed but not settled: as many as there are places, and not one more.
            assert (len(recorder.finished), len(daemon.pool.attempts)) == (5, 5)
            os.kill(pid, signal.SIGCONT)
            assert await daemon.settled(12) == {Status.COMPLETED: 12}
    assert set(recorder.times.values()) == {1}


async def claim(daemon: Parts, count: int) -> list[Task]:
    await daemon.add(*(task(f"{at}") for at in range(count)))
    taken = await daemon.store.claim(daemon.store.lanes[0], limit=count, lease=30_000)
    return list(taken.tasks)


async def recorded(daemon: Parts, claimed: list[Task]) -> list[Settled]:
    """What the settler answers when all of these have been performed at one moment."""
    results: dict[str, Settled] = {}

    async def record(settlement: Settlement) -> None:
        results[settlement.task.id] = await daemon.settler.record(settlement)

    async with anyio.create_task_group() as workers:
        for each in claimed:
            workers.start_soon(record, performed(daemon, each))
        await anyio.wait_all_tasks_blocked()
        await workers.start(daemon.settler.run)
        await wait_until(lambda: len(results) == len(claimed))
        workers.cancel_scope.cancel()
    return [results[each.id] for each in claimed]


def performed(daemon: Parts, claimed: Task) -> Settlement:
    outcome = Performed(receipt=Receipt(detail="noted"))
    now = daemon.store.now()
    return settle(claimed, outcome, started=now, now=now, rng=daemon.rng, policy=PATIENT)
