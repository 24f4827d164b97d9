"""The wake-up: told when a task becomes its queue's head, and only then; heard by whoever waits for that lane."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest
import redis.asyncio as redis

from later.core.task import Status
from later.store import keys
from later.store.base import Movement
from later.store.keys import Lane
from later.store.redis import RedisStore
from tests.contract.world import LEASE, ServerWorld, retried, thought
from tests.waiting import wait_until

LONG_AGO = 1_700_000_000_000
EVERYWHERE = frozenset(Status)

Told = Callable[[], Awaitable[list[str]]]


@pytest.fixture
async def told(raw: redis.Redis) -> AsyncIterator[Told]:
    """The queues that were woken since the last time it was asked."""
    async with raw.pubsub() as pubsub:
        await pubsub.subscribe(keys.wake(0))

        async def since_then() -> list[str]:
            await raw.publish(keys.wake(0), "until here")
            found = []
            while (message := await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)) is None or message[
                "data"
            ] != "until here":
                found += [message["data"]] if message else []
            return found

        yield since_then


async def test_only_a_new_head_is_told(store: RedisStore, told: Told) -> None:
    await store.add(thought("first", due=LONG_AGO + 100))
    assert await told() == ["default"]
    await store.add(thought("later", due=LONG_AGO + 200))
    await store.add(thought("equal", due=LONG_AGO + 100))
    await store.add(thought("held", due=None))
    await store.add(thought("first", due=LONG_AGO + 50))  # kept
    assert await told() == []
    await store.add(thought("sooner", due=LONG_AGO + 99))
    assert await told() == ["default"]


async def test_each_queue_has_its_own_head(store: RedisStore, told: Told) -> None:
    await store.add(thought("quick", due=LONG_AGO))
    await store.add(thought("slow", due=LONG_AGO + 5, queue="slow"))
    await store.add(thought("pulled", due=LONG_AGO + 9, queue="reports"))
    assert await told() == ["default", "slow", "ana/reports"]


async def test_a_task_that_is_moved_to_the_head_is_told(store: RedisStore, told: Told) -> None:
    await store.add(thought("first", due=LONG_AGO + 100))
    await store.add(thought("second", due=LONG_AGO + 200))
    await store.add(thought("held", due=None))
    await told()
    await move(store, "second", LONG_AGO + 150)
    await move(store, "first", LONG_AGO + 300)
    assert await told() == []
    await move(store, "first", LONG_AGO + 10)
    assert await told() == ["default"]
    await move(store, "first", LONG_AGO + 5)
    await move(store, "held", LONG_AGO + 1)
    assert await told() == ["default", "default"]


async def test_what_is_put_back_as_the_new_head_is_told(store: RedisStore, lane: Lane, told: Told) -> None:
    for task_id in ("a", "b"):
        await store.add(thought(task_id, due=LONG_AGO))
    a, b = (await store.claim(lane, limit=2, lease=LEASE)).tasks
    await told()
    await store.settle([retried(a, LONG_AGO + 1)])
    assert await told() == [lane.queue]
    await store.settle([retried(b, LONG_AGO + 2)])
    assert await told() == []  # it stands behind


async def test_what_a_crash_left_is_told(store: RedisStore, lane: Lane, told: Told) -> None:
    await store.add(thought("a", due=LONG_AGO))
    await store.claim(lane, limit=1, lease=0)
    await told()
    await store.recover(lane, limit=10)
    assert await told() == [lane.queue]
    await store.recover(lane, limit=10)
    assert await told() == []


async def test_who_waits_for_the_lane_is_woken(store: RedisStore, lane: Lane, world: ServerWorld) -> None:
    other = await world.store("two")
    async with anyio.create_task_group() as listening:
        await listening.start(store.listen)
        await until_subscribed(world.raw)
        assert await store.wait(lane, 10)  # whoever has just begun to listen looks once more
        async with anyio.create_task_group() as adding:
            adding.start_soon(other.add, thought(due=LONG_AGO))
            assert await store.wait(lane, 10)
        assert not await store.wait(lane, 0)
        await other.add(thought("slow", due=LONG_AGO, queue="slow"))
        assert await store.wait(Lane(0, "slow"), 10)
        assert not await store.wait(lane, 0)
        listening.cancel_scope.cancel()


async def test_a_wake_up_before_the_wait_is_not_lost(store: RedisStore, lane: Lane, world: ServerWorld) -> None:
    async with anyio.create_task_group() as listening:
        await listening.start(store.listen)
        await until_subscribed(world.raw)
        assert await store.wait(lane, 10)
        await store.add(thought(due=LONG_AGO))
        await store.ping()
        assert await store.wait(lane, 10)
        listening.cancel_scope.cancel()


async def test_a_cut_connection_is_made_again_and_everybody_looks(
    store: RedisStore, lane: Lane, world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("later.store.wakes.RETRY_S", 0.01)
    async with anyio.create_task_group() as listening:
        await listening.start(store.listen)
        await until_subscribed(world.raw)
        assert await store.wait(lane, 10)
        await world.raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert await store.wait(lane, 10)
        await until_subscribed(world.raw)
        await store.add(thought(due=LONG_AGO))
        assert await store.wait(lane, 10)
        listening.cancel_scope.cancel()


async def move(store: RedisStore, task_id: str, due: int) -> None:
    await store.move("ana", task_id, Movement(states=EVERYWHERE, to=Status.PENDING, due=due))


async def until_subscribed(raw: redis.Redis) -> None:
    async def subscribed() -> bool:
        return dict(await raw.pubsub_numsub(keys.wake(0)))[keys.wake(0)] > 0

    await wait_until(subscribed)
