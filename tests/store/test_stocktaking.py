"""Going through all live tasks: none is left out, each as it stands, and what cannot be read is named."""

from __future__ import annotations

import redis.asyncio as redis

from later.core.task import Status
from later.store.base import Movement, Standing
from later.store.keys import Lane
from later.store.redis import RedisStore
from tests.contract.world import LEASE, ServerWorld, failed, thought

LONG_AGO = 1_700_000_000_000
FAR = 4_000_000_000_000
PAUSE = Movement(states=frozenset({Status.PENDING}), to=Status.CREATED)


async def walked(
    store: RedisStore, owner: str | None = None, *, looked_at: int = 7
) -> tuple[list[Standing], list[str]]:
    found, unreadable, cursor = [], [], None
    while True:
        page = await store.walk(owner, cursor=cursor, looked_at=looked_at)
        found += page.found
        unreadable += page.unreadable
        cursor = page.next
        if cursor is None:
            return found, unreadable


async def test_every_task_comes_as_it_stands(world: ServerWorld, lane: Lane) -> None:
    store = await world.store(partitions=3)
    for at in range(40):
        await store.add(thought(f"t{at}", due=FAR if at % 3 else None, owner=f"o{at % 5}"))
    found, unreadable = await walked(store)
    assert unreadable == []
    names = {one.task.name for one in found}
    assert names == {f"o{at % 5}/t{at}" for at in range(40)}
    for one in found:
        assert one.task == await store.get(one.task.owner, one.task.id)
    of_one, _ = await walked(store, "o1")
    assert {one.task.name for one in of_one} == {name for name in names if name.startswith("o1/")}


async def test_one_owner_is_not_taken_for_another(store: RedisStore) -> None:
    for owner in ("ana", "ana-b", "an", "bana"):
        await store.add(thought(due=FAR, owner=owner))
    found, _ = await walked(store, "ana")
    assert [one.task.name for one in found] == ["ana/milk"]
    assert (await store.live_of("ana"), await store.live_of("nobody")) == (1, 0)


async def test_since_is_when_it_came_into_its_state(store: RedisStore, lane: Lane, world: ServerWorld) -> None:
    before = await world.now()
    await store.add(thought("failing", due=LONG_AGO))
    [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
    await store.settle([failed(task)])
    await store.add(thought("paused", due=FAR))
    await store.move("ana", "paused", PAUSE)
    await store.add(thought("waiting", due=FAR))
    found, _ = await walked(store)
    since = {one.task.id: one.since for one in found}
    after = await world.now()
    assert before <= since["failing"] <= after
    assert before <= since["paused"] <= after
    assert since["waiting"] == 1_700_000_000_000  # when it was last changed


async def test_what_cannot_be_read_is_named_and_the_others_come(store: RedisStore, raw: redis.Redis) -> None:
    await store.add(thought("sound", due=FAR))
    await store.add(thought("spoilt", due=FAR))
    await raw.hset("later:{0}:task:ana/spoilt", "created", "long ago")
    await raw.set("later:{0}:task:ana/text", "x")
    await raw.hset("later:{0}:task:ana/bare", "x", "y")
    await raw.hset("later:{0}:task:no-slash", "x", "y")
    await raw.hset("later:{0}:task:o w/x", "x", "y")
    await raw.hset("later:{5}:task:ana/sound2", "x", "y")
    found, unreadable = await walked(store)
    assert [one.task.id for one in found] == ["sound"]
    assert sorted(unreadable) == ["ana/bare", "ana/sound2", "ana/spoilt", "ana/text", "no-slash", "o w/x"]


async def test_a_record_in_no_state_is_named(store: RedisStore, raw: redis.Redis) -> None:
    await store.add(thought(due=None))
    await raw.zrem("later:{0}:created", "ana/milk")
    assert await walked(store) == ([], ["ana/milk"])


async def test_what_ended_while_one_came_by_is_not_missed(store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
    for at in range(60):
        await store.add(thought(f"t{at}", due=LONG_AGO))
    page = await store.walk(None, cursor=None, looked_at=5)
    assert page.next is not None
    seen = {one.task.id for one in page.found}
    await raw.delete(*(f"later:{{0}}:task:ana/t{at}" for at in range(60) if f"t{at}" not in seen))
    cursor = page.next
    while cursor is not None:
        page = await store.walk(None, cursor=cursor, looked_at=5)
        assert {one.task.id for one in page.found} <= seen
        assert page.unreadable == []
        cursor = page.next


async def test_failed_ones_are_listed_as_they_failed_also_where_they_came_to(store: RedisStore) -> None:
    for task_id, since in (("b", 2), ("c", 3), ("a", 1)):
        await store.restore([Standing(task=thought(task_id, due=FAR, status=Status.FAILED), since=since)])
    page = await store.page("ana", statuses=[Status.FAILED], cursor=None, limit=9)
    assert [task.id for task in page.tasks] == ["a", "b", "c"]
