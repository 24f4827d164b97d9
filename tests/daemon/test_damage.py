"""Somebody's garbage in the store of a daemon at work: put aside or waited for, and everything else is on time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio as redis
from structlog.testing import capture_logs

from later.core.task import Status
from later.store import codec, keys
from tests.daemon.parts import HOUR_MS, OWNER, Gate, Parts, Recorder, plain, task
from tests.waiting import wait_until

LATE_MS = 1000
"""On a busy machine; alone it is some milliseconds."""

DUE, RUNNING, QUARANTINE = keys.due(0, "default"), keys.running(0, "default"), keys.quarantine(0)
USER, CREATED, FAILED = keys.user(0, OWNER), keys.created(0), keys.failed(0)
SLOW = ("default", "slow")


async def test_garbage_delays_nobody_and_is_put_aside_or_repaired(url: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder)
    with capture_logs() as logs:
        async with daemon.running(), plain(url) as raw:
            bad = await spoil(daemon, raw)
            begin = daemon.store.now() + 300
            neighbours = [task(f"{at}", due=begin + 20 * at) for at in range(60)]
            await daemon.add(*neighbours)
            await raw.zadd(DUE, dict.fromkeys(bad - EARLY, begin + 600))
            await daemon.settled(len(neighbours))
            await wait_until(lambda: {one["task"] for one in logs if one["event"] == "task_quarantined"} == bad)
            assert {start.task.id for start in recorder.starts} == {one.id for one in neighbours}
            assert max(-start.early_ms for start in recorder.starts) < LATE_MS
            assert await quarantined(raw) == bad
            assert await mended(daemon) > 0
            assert await damages(daemon) == 0
            assert await quarantined(raw) == bad - EARLY - {"noslash", f"{OWNER}/gone"}
            await wait_until(lambda: {"early", "far", "endless"} <= set(recorder.times))
    assert set(recorder.times.values()) == {1}


EARLY = {f"{OWNER}/early", f"{OWNER}/never"}


async def spoil(daemon: Parts, raw: redis.Redis) -> set[str]:
    """Everything at once; returns the names that are to be quarantined when they are due."""
    now = daemon.store.now()
    bad = ["string", "list", "gone", "no-uid", "no-spec", "no-queue", "large", "wide", "early"]
    for task_id in (*bad, "far", "endless"):
        await daemon.add(task(task_id, due=now + HOUR_MS))
    record = {task_id: keys.task(0, f"{OWNER}/{task_id}") for task_id in bad}
    for task_id in ("string", "list", "gone"):
        await raw.delete(record[task_id])
    await raw.set(record["string"], "not a hash")
    await raw.rpush(record["list"], "not a hash")
    await raw.hset(record["large"], "notes", "x" * 10_000_000)
    await raw.hset(record["wide"], mapping={f"f{at}": at for at in range(100_000)})
    for field in ("uid", "spec", "queue"):
        await raw.hdel(record[f"no-{field}"], field)
    await raw.zadd(USER, {"early": now, "far": now, "endless": now})
    await raw.zadd(DUE, {f"{OWNER}/far": "1e300", f"{OWNER}/endless": "+inf"})
    await raw.zadd(DUE, {f"{OWNER}/early": "-1e300", f"{OWNER}/never": "-inf"})
    for key in (RUNNING, CREATED, FAILED, USER):
        await raw.zadd(key, {"nobody/1": "1e300", "nobody/2": "-1e300", "nobody/3": "+inf", "nobody/4": "-inf"})
    return {*(f"{OWNER}/{task_id}" for task_id in bad), *EARLY, "noslash"}


@pytest.mark.parametrize("key", [keys.due(0, "slow"), keys.running(0, "slow")])
async def test_a_damaged_queue_is_waited_for_and_the_other_goes_on(url: str, key: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder, queues=SLOW)
    with capture_logs() as logs:
        async with daemon.running(), plain(url) as raw:
            await raw.set(key, "not a set")
            slow = task("slow", queue="slow")
            if key == keys.running(0, "slow"):
                await daemon.add(slow)
            await daemon.add(*(task(f"{at}", due=daemon.store.now() + 50 * at) for at in range(20)))
            await daemon.settled(20)
            assert max(-start.early_ms for start in recorder.starts) < LATE_MS
            assert [entry["key"] for entry in logs if entry["event"] == "store_damaged"] == [key]
            assert await mended(daemon) > 0
            if key == keys.due(0, "slow"):
                await daemon.add(slow)
            await daemon.settled(21)
    assert recorder.times["slow"] == 1
    assert "store_lost" not in [entry["event"] for entry in logs]


@pytest.mark.parametrize("key", [DUE, RUNNING, QUARANTINE, CREATED, FAILED, keys.outbox(0), keys.claims(0), USER])
async def test_a_key_of_the_wrong_type_ends_no_daemon_and_after_the_repair_all_is_performed(url: str, key: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder)
    with capture_logs() as logs:
        async with daemon.reachable(), plain(url) as raw:
            await daemon.add(*(task(f"{at}") for at in range(3)))
            await raw.delete(key)
            await raw.rpush(key, "not what it should be")
        async with daemon_again(url, recorder) as running, plain(url) as raw:
            if key in (DUE, RUNNING, QUARANTINE):
                await wait_until(
                    lambda: [one for one in logs if one["event"] == "store_damaged" and one["key"] == key] != []
                )
            await mended(running)
            await running.settled(3)
            assert await damages(running) == 0
    assert recorder.times == Counter({"0": 1, "1": 1, "2": 1})


@asynccontextmanager
async def daemon_again(url: str, recorder: Recorder) -> AsyncIterator[Parts]:
    daemon = Parts(url, recorder, holder="here:2:0")
    async with daemon.running():
        yield daemon


async def test_what_came_of_a_task_waits_while_its_queue_is_damaged(url: str) -> None:
    gate = Gate()
    recorder = Recorder(gate)
    daemon = Parts(url, recorder, queues=SLOW)
    with capture_logs():
        async with daemon.running(), plain(url) as raw:
            await daemon.add(task("slow", queue="slow"))
            await wait_until(lambda: recorder.at_once == 1)
            await raw.set(keys.running(0, "slow"), "not a set")
            gate.open()
            await daemon.add(*(task(f"{at}") for at in range(5)))
            await daemon.settled(5)
            assert [attempt.task.id for attempt in daemon.pool.attempts] == ["slow"]
            await daemon.leases.extend()
            assert [attempt.ending for attempt in daemon.pool.attempts] == [None]
            await mended(daemon)
            await wait_until(lambda: daemon.pool.attempts == [])
            await daemon.settled(6)
            assert (await daemon.past_of("slow")) == [Status.COMPLETED]


async def test_leases_of_a_damaged_queue_keep_none_of_the_others(url: str) -> None:
    dead, daemon = Parts(url, Recorder(), queues=SLOW), Parts(url, Recorder(), queues=SLOW, holder="here:2:0")
    with capture_logs():
        async with dead.reachable(), daemon.reachable(), plain(url) as raw:
            await dead.add(task("slow", queue="slow"))
            await dead.store.claim(dead.store.lanes[1], limit=1, lease=0)
            await raw.set(keys.running(0, "default"), "not a set")
            await daemon.leases.recover(every=True)
            assert await raw.zrange(keys.due(0, "slow"), 0, -1) == [f"{OWNER}/slow"]


async def test_an_examination_of_many_tasks_delays_nobody(url: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder)
    async with daemon.running(), plain(url) as raw:
        await many(raw, 3000, due=daemon.store.now() + HOUR_MS)
        begin = daemon.store.now() + 100
        await daemon.add(*(task(f"{at}", due=begin + 10 * at) for at in range(100)))
        while len(recorder.starts) < 100:
            assert await damages(daemon) == 0
        assert max(-start.early_ms for start in recorder.starts) < LATE_MS


async def many(raw: redis.Redis, count: int, *, due: int) -> None:
    """So many more of the first task there is."""
    pattern = task("pattern", due=due)
    fields = dict(zip(*[iter(codec.pack(pattern, lane="default"))] * 2, strict=True))
    async with raw.pipeline(transaction=False) as pipeline:
        for at in range(count):
            pipeline.hset(keys.task(0, f"{OWNER}/many-{at}"), mapping=fields)
            pipeline.zadd(USER, {f"many-{at}": due})
            pipeline.zadd(DUE, {f"{OWNER}/many-{at}": due})
        await pipeline.execute()


async def mended(daemon: Parts) -> int:
    return sum([damage["mended"] async for damage in damages_of(daemon, mend=True)])


async def damages(daemon: Parts) -> int:
    return sum([damage["count"] async for damage in damages_of(daemon, mend=False)])


async def damages_of(daemon, *, mend):
    cursor = None
    while True:
        part = await daemon.store.examine(cursor, mend=mend)
        for damage in part.damages:
            yield damage
        if (cursor := part.next) is None:
            return


async def quarantined(raw: redis.Redis) -> set[str]:
    return set(await raw.zrange(QUARANTINE, 0, -1))
