"""The number of a claim, on which the fence rests: it only grows, whatever becomes of the counter."""

from __future__ import annotations

import pytest
import redis.asyncio as redis

from later.store import keys
from later.store.base import Settled
from later.store.keys import Lane
from later.store.redis import RedisStore
from tests.contract.world import HOUR, LEASE, completed, thought

LONG_AGO = 1_700_000_000_000
COUNTER = keys.claims(0)


@pytest.fixture(autouse=True)
async def ten_tasks(store: RedisStore) -> None:
    for at in range(10):
        await store.add(thought(f"t{at}", due=LONG_AGO + at))


async def test_it_is_the_time_in_microseconds_or_the_last_and_one_more(
    store: RedisStore, raw: redis.Redis, lane: Lane
) -> None:
    first = await number(store, lane)
    seconds, _ = await raw.time()
    assert abs(first / 1e6 - seconds) < 60
    assert int(await raw.get(COUNTER)) == first
    ahead = first + HOUR * 1000  # as after a failover to a server whose clock is behind
    await raw.set(COUNTER, ahead)
    assert [await number(store, lane) for _ in range(3)] == [ahead + 1, ahead + 2, ahead + 3]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw.delete(COUNTER),
        lambda raw: raw.set(COUNTER, 1),
        lambda raw: raw.decrby(COUNTER, 5_000_000),
        lambda raw: raw.set(COUNTER, "garbage"),
        lambda raw: raw.set(COUNTER, ""),
        lambda raw: raw.set(COUNTER, "nan"),
        lambda raw: raw.set(COUNTER, "inf"),
        lambda raw: raw.set(COUNTER, 1e300),
        lambda raw: raw.set(COUNTER, -(2**62)),
        lambda raw: raw.lpush(COUNTER, 1),
    ],
    ids=["deleted", "set back", "rolled back", "garbage", "empty", "nan", "inf", "huge", "negative", "list"],
)
async def test_it_grows_although_the_counter_is_spoiled(store: RedisStore, raw: redis.Redis, lane: Lane, spoil) -> None:
    numbers = [await number(store, lane)]
    for _ in range(3):
        await raw.delete(COUNTER)
        await spoil(raw)
        numbers.append(await number(store, lane))
        numbers.append(await number(store, lane))
    assert numbers == sorted(set(numbers))
    assert numbers[-1] < 2**53


async def test_the_counter_may_be_lost_between_two_lives_of_one_id(
    store: RedisStore, raw: redis.Redis, lane: Lane
) -> None:
    [frozen] = (await store.claim(lane, limit=1, lease=0)).tasks
    await store.recover(lane, limit=1)
    await raw.delete(COUNTER)
    [present] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
    assert (present.id, present.claim > frozen.claim) == (frozen.id, True)
    assert await store.settle([completed(frozen)]) == [Settled.STALE]


async def test_a_claim_that_finds_nothing_takes_no_number(store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
    await store.claim(lane, limit=10, lease=LEASE)
    before = await raw.get(COUNTER)
    await store.claim(lane, limit=10, lease=LEASE)
    assert await raw.get(COUNTER) == before


async def number(store: RedisStore, lane: Lane) -> int:
    [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
    return task.claim
