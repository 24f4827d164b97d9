"""What lies in Redis: which keys a task has while it lives, and that none is left when it has ended."""

from __future__ import annotations

import json

import pytest
import redis.asyncio as redis
from redis.crc import key_slot

from later.core.task import Status
from later.store import keys
from later.store.base import Movement
from later.store.keys import Lane, Layout
from later.store.redis import RedisStore
from tests.contract.world import LEASE, ServerWorld, completed, failed, retried, thought

LONG_AGO = 1_700_000_000_000
EVERYWHERE = frozenset({Status.CREATED, Status.PENDING, Status.RUNNING, Status.FAILED})
CANCEL = Movement(states=EVERYWHERE, to=Status.CANCELLED)
READS = ("TIME", "XLEN", "HGETALL", "ZSCORE")


async def test_a_pending_task_is_a_record_a_place_and_an_entry_of_its_owner(
    store: RedisStore, raw: redis.Redis
) -> None:
    task = thought(due=LONG_AGO, to="ana@example.org", rule="in 3d")
    await store.add(task)
    assert await everything(raw) == {
        "later:meta",
        "later:{0}:task:ana/milk",
        "later:{0}:due:default",
        "later:{0}:user:ana",
    }
    record = await raw.hgetall("later:{0}:task:ana/milk")
    assert json.loads(record.pop("spec")) == {
        "action": "inbox",
        "message": "think of milk",
        "to": "ana@example.org",
        "rule": "in 3d",
    }
    assert record == {
        "uid": task.uid,
        "queue": "default",
        "created": str(LONG_AGO),
        "nominal": str(LONG_AGO),
        "format": "1",
    }
    assert await raw.zrange("later:{0}:due:default", 0, -1, withscores=True) == [("ana/milk", LONG_AGO)]
    assert await raw.zrange("later:{0}:user:ana", 0, -1, withscores=True) == [("milk", LONG_AGO)]


async def test_the_set_a_task_is_in_is_its_state(store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
    await store.add(thought(due=None))
    assert await sets_with(raw, "ana/milk") == ["later:{0}:created"]
    await store.move("ana", "milk", Movement(states=EVERYWHERE, to=Status.PENDING, due=LONG_AGO))
    assert await sets_with(raw, "ana/milk") == ["later:{0}:due:default"]
    [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
    assert await sets_with(raw, "ana/milk") == ["later:{0}:running:default"]
    await store.settle([retried(task, LONG_AGO)])
    assert await sets_with(raw, "ana/milk") == ["later:{0}:due:default"]
    [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
    await store.settle([failed(task)])
    assert await sets_with(raw, "ana/milk") == ["later:{0}:failed"]


async def test_what_clients_pull_lies_in_their_owners_queue(store: RedisStore, raw: redis.Redis) -> None:
    await store.add(thought(due=LONG_AGO, queue="reports"))
    assert await sets_with(raw, "ana/milk") == ["later:{0}:due:ana/reports"]


async def test_a_completed_task_leaves_nothing_but_its_past(store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
    await store.add(thought(due=LONG_AGO))
    await finish(store, lane)
    await only_its_past_is_left(raw)


async def test_a_task_that_was_retried_crashed_and_moved_leaves_nothing_but_its_past(
    store: RedisStore, raw: redis.Redis, lane: Lane
) -> None:
    await store.add(thought(due=LONG_AGO))
    [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
    await store.settle([retried(task, LONG_AGO)])
    await store.claim(lane, limit=1, lease=0)
    await store.recover(lane, limit=1)
    await store.move("ana", "milk", Movement(states=EVERYWHERE, to=Status.CREATED))
    await store.move("ana", "milk", Movement(states=EVERYWHERE, to=Status.PENDING, due=LONG_AGO))
    await finish(store, lane)
    await only_its_past_is_left(raw)


@pytest.mark.parametrize("due", [None, LONG_AGO], ids=["created", "pending"])
async def test_a_cancelled_task_leaves_nothing_but_its_past(
    store: RedisStore, raw: redis.Redis, due: int | None
) -> None:
    await store.add(thought(due=due))
    await store.move("ana", "milk", CANCEL)
    await only_its_past_is_left(raw)


async def test_a_withdrawn_task_leaves_nothing_but_its_past(store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
    await store.add(thought(due=LONG_AGO))
    [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
    await store.move("ana", "milk", CANCEL)
    await store.settle([retried(task, LONG_AGO)])
    await only_its_past_is_left(raw)


async def test_a_deleted_failure_leaves_nothing_but_its_past(store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
    await store.add(thought(due=LONG_AGO))
    [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
    await store.settle([failed(task)])
    await store.move("ana", "milk", CANCEL)
    await only_its_past_is_left(raw, transitions=2)


async def test_a_completion_is_one_transaction(store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
    for task_id in ("first", "milk"):  # the first leaves the scripts with the server
        await store.add(thought(task_id, due=LONG_AGO))
        [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
        if task_id == "first":
            await store.settle([completed(task)])
    async with raw.monitor() as monitor:
        await store.settle([completed(task)])
        said = await heard(monitor, raw)
    changes = [words for words in said if words[0] not in (*READS, "CLIENT")]
    assert [words[0] for words in changes] == ["MULTI", "EVALSHA", "ZREM", "DEL", "ZREM", "XADD", "EXEC"]
    assert [words[1] for words in changes[2:6]] == [
        "later:{0}:running:default",
        "later:{0}:task:ana/milk",
        "later:{0}:user:ana",
        "later:{0}:outbox",
    ]


async def test_no_command_walks_the_keys_or_watches_them(store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
    async with raw.monitor() as monitor:
        await store.add(thought("gone", due=None))
        await store.move("ana", "gone", CANCEL)
        await store.add(thought(due=LONG_AGO))
        tasks = (await store.claim(lane, limit=1, lease=0)).tasks
        await store.extend(tasks, lease=0)
        await store.recover(lane, limit=1)
        [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
        await store.adopt(lane)
        await store.page("ana", statuses=list(Status), cursor=None, limit=10)
        await store.settle([failed(task)])
        await store.counts()
        await store.failed_of("ana")
        await store.overdue(lane)
        await store.outbox.forget(await store.outbox.read(10))
        said = await heard(monitor, raw)
    walks = {"KEYS", "SCAN", "HSCAN", "SSCAN", "ZSCAN", "RANDOMKEY", "WATCH", "HKEYS", "BLPOP", "BZPOPMIN"}
    assert len(said) > 50
    assert {words[0] for words in said} & walks == set()


async def test_all_keys_of_an_owner_lie_in_one_slot(world: ServerWorld, raw: redis.Redis) -> None:
    store = await world.store(partitions=4)
    owners = [f"o{at}" for at in range(12)]
    for owner in owners:
        for task_id, due in (("held", None), ("pending", LONG_AGO), ("done", LONG_AGO - 1)):
            await store.add(thought(task_id, due=due, owner=owner))
    done = [task for lane in store.lanes for task in (await store.claim(lane, limit=3, lease=LEASE)).tasks]
    await store.settle([completed(task) for task in done])
    slots = {key_slot(f"later:{{{partition}}}:".encode()) for partition in range(4)}
    partitions = {store._layout.partition(owner) for owner in owners}
    assert partitions == {0, 1, 2, 3}
    found = await everything(raw) - {keys.META}
    assert {key_slot(key.encode()) for key in found} == slots
    for key in found:
        for owner in owners:
            if key.endswith(f":user:{owner}") or f":task:{owner}/" in key:
                assert key.startswith(f"later:{{{Layout(partitions=4, own_queues=frozenset()).partition(owner)}}}:")


def test_the_partition_is_the_crc16_that_redis_cluster_uses() -> None:
    layout = Layout(partitions=16384, own_queues=frozenset())
    for owner in ("ana", "a", "x" * 64, "a.b-c_d@e+f"):
        assert layout.partition(owner) == key_slot(owner.encode())


# What the tests are written in.


async def finish(store: RedisStore, lane: Lane) -> None:
    [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
    await store.settle([completed(task)])


async def only_its_past_is_left(raw: redis.Redis, *, transitions: int = 1) -> None:
    assert await everything(raw) - {"later:{0}:claims"} == {"later:meta", "later:{0}:outbox"}
    assert await raw.xlen("later:{0}:outbox") == transitions


async def everything(raw: redis.Redis) -> set[str]:
    return set(await raw.keys("*"))


async def sets_with(raw: redis.Redis, name: str) -> list[str]:
    """The sorted sets that name the task."""
    found = [key for key in await everything(raw) if await raw.type(key) == "zset"]
    return sorted([key for key in found if await raw.zscore(key, name) is not None])


async def heard(monitor: redis.client.Monitor, raw: redis.Redis) -> list[list[str]]:
    """The commands, those of scripts too, that the monitor has shown up to now."""
    await raw.echo("until here")
    said = []
    while (words := (await monitor.next_command())["command"].split(" "))[0] != "ECHO":
        said.append([words[0].upper(), *words[1:]])
    return said
