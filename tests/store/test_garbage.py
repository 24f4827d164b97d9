"""Somebody's garbage in Redis: a bad record goes to quarantine, its neighbours go on, and nothing is lost over it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio as redis
from structlog.testing import capture_logs

from later.core.errors import IdTaken, NotFound, StoreDamaged
from later.core.lifecycle import Receipt, Settlement
from later.core.task import MESSAGE_BYTES, OPTIONS_BYTES, PAYLOAD_BYTES, Status, Task
from later.store import codec, keys
from later.store.base import Held, Moved, Movement, Settled
from later.store.keys import Lane
from later.store.redis import RedisStore
from tests.contract.world import LEASE, ServerWorld, completed, failed, put_back, retried, thought

LONG_AGO = 1_700_000_000_000
EVERYWHERE = frozenset(Status)
BAD = "ana/bad"
RECORD, USER, OUTBOX = keys.task(0, BAD), keys.user(0, "ana"), keys.outbox(0)
DUE, RUNNING, CREATED = keys.due(0, "default"), keys.running(0, "default"), keys.created(0)
QUARANTINE = keys.quarantine(0)

Spoil = Callable[[redis.Redis], Awaitable[object]]


async def as_string(raw: redis.Redis) -> None:
    await raw.set(RECORD, "not a hash")


async def as_list(raw: redis.Redis) -> None:
    await raw.delete(RECORD)
    await raw.lpush(RECORD, "not a hash")


async def missing(raw: redis.Redis) -> None:
    await raw.delete(RECORD)


def without(field: str) -> Spoil:
    return lambda raw: raw.hdel(RECORD, field)


def having(field: str, value: str | bytes) -> Spoil:
    return lambda raw: raw.hset(RECORD, field, value)


UNREADABLE: dict[str, Spoil] = {
    "no uid": without("uid"),
    "no queue": without("queue"),
    "no spec": without("spec"),
    "no created": without("created"),
    "spec is not JSON": having("spec", "buy milk"),
    "spec is binary": having("spec", b"\xff\xfe\x00\x80"),
    "spec is empty": having("spec", ""),
    "spec is a list": having("spec", "[1,2]"),
    "spec is a number": having("spec", "7"),
    "spec has no action": having("spec", '{"message":"m"}'),
    "spec is too deep": having("spec", '{"action":"inbox","payload":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "created is no number": having("created", "yesterday"),
    "attempts are no number": having("attempts", "many"),
    "nominal is no number": having("nominal", "1e99999"),
    "window is no interval": having("window", "1"),
    "failures are not JSON": having("failures", "["),
    "failures are no pairs": having("failures", "[[1]]"),
}


async def wide(raw: redis.Redis) -> None:
    await raw.hset(RECORD, mapping={f"field{at}": at for at in range(100_000)})


BEYOND: dict[str, Spoil] = {
    "10 MB in a field": having("spec", "x" * 10_000_000),
    "10 MB in a field of its own": having("notes", "x" * 10_000_000),
    "100,000 fields": wide,
    "created in the year 30,000": having("created", "999999999999999"),
    "meant for minus infinity": having("nominal", "-9" + "0" * 300),
    "due at minus 1e300": lambda raw: raw.zadd(DUE, {BAD: "-1e300"}),
    "due at minus infinity": lambda raw: raw.zadd(DUE, {BAD: "-inf"}),
}
"""What no daemon of this version would write, and none should be handed."""

GONE: dict[str, Spoil] = {"a string": as_string, "a list": as_list, "missing": missing}


def spoiled(*kinds: dict[str, Spoil]) -> pytest.MarkDecorator:
    every = {name: spoil for kind in kinds for name, spoil in kind.items()}
    return pytest.mark.parametrize("spoil", every.values(), ids=every.keys())


@pytest.fixture
async def three(store: RedisStore) -> None:
    """Three due tasks; a test spoils the one in the middle."""
    for at, task_id in enumerate(["first", "bad", "last"]):
        await store.add(thought(task_id, due=LONG_AGO + at))


@pytest.mark.usefixtures("three")
class TestClaim:
    @spoiled(UNREADABLE, BEYOND, GONE)
    async def test_a_bad_record_is_quarantined_and_its_neighbours_are_claimed(
        self, store: RedisStore, raw: redis.Redis, lane: Lane, spoil: Spoil
    ) -> None:
        await spoil(raw)
        with capture_logs() as logs:
            claim = await store.claim(lane, limit=10, lease=LEASE)
        assert [(entry["event"], entry["task"]) for entry in logs] == [("task_quarantined", BAD)]
        assert [task.id for task in claim.tasks] == ["first", "last"]
        assert await raw.zrange(QUARANTINE, 0, -1) == [BAD]
        assert await raw.zscore(DUE, BAD) is None
        assert await raw.zscore(RUNNING, BAD) is None
        assert (await store.counts())["quarantined"] == 1
        assert list((await store.claim(lane, limit=10, lease=LEASE)).tasks) == []

    async def test_what_cannot_be_read_is_reported(self, store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
        await raw.hset(RECORD, "spec", "buy milk")
        with capture_logs() as logs:
            await store.claim(lane, limit=10, lease=LEASE)
        [report] = logs
        assert (report["event"], report["task"], report["log_level"]) == ("task_quarantined", BAD, "error")

    async def test_what_is_too_large_is_never_handed_over(
        self, store: RedisStore, raw: redis.Redis, lane: Lane
    ) -> None:
        await raw.hset(RECORD, "notes", "x" * 10_000_000)
        await raw.config_resetstat()
        await store.claim(lane, limit=10, lease=LEASE)
        assert (await raw.info("stats"))["total_net_output_bytes"] < 100_000

    async def test_the_largest_task_that_can_be_added_is_within_the_bounds(self, store: RedisStore, lane: Lane) -> None:
        hostile = "\x01" * MESSAGE_BYTES
        payload = {"content_type": "text/plain", "text": "\x01" * PAYLOAD_BYTES}
        options = {"x": "\x01" * (OPTIONS_BYTES // 6)}
        largest = thought("largest", due=LONG_AGO, message=hostile, payload=payload, options=options, to="\x01" * 1024)
        assert len(codec.pack_spec(largest.spec)) < codec.MOST_BYTES / 2
        await store.add(largest)
        assert largest.id in [task.id for task in (await store.claim(lane, limit=10, lease=LEASE)).tasks]

    async def test_without_a_quarantine_nothing_is_claimed_and_nothing_lost(
        self, store: RedisStore, raw: redis.Redis, lane: Lane
    ) -> None:
        await raw.set(RECORD, "not a hash")
        await raw.set(QUARANTINE, "not a set")
        before = await snapshot(raw)
        with pytest.raises(StoreDamaged, match=re.escape(QUARANTINE)):
            await store.claim(lane, limit=10, lease=LEASE)
        assert await snapshot(raw) == before

    @pytest.mark.parametrize("name", ["noslash", "/noowner", "noid/", ""])
    async def test_a_name_that_is_none_is_quarantined(
        self, store: RedisStore, raw: redis.Redis, lane: Lane, name: str
    ) -> None:
        """With a record that could be read, it would end the script that looks for its owner."""
        await raw.copy(RECORD, keys.task(0, name))
        await raw.zadd(DUE, {name: 1})
        claim = await store.claim(lane, limit=10, lease=LEASE)
        assert [task.id for task in claim.tasks] == ["first", "bad", "last"]
        assert await raw.zrange(QUARANTINE, 0, -1) == [name]


@pytest.mark.usefixtures("three")
class TestRecover:
    @spoiled(GONE, {"no uid": without("uid")})
    async def test_a_bad_record_is_quarantined_and_its_neighbours_are_recovered(
        self, store: RedisStore, raw: redis.Redis, lane: Lane, spoil: Spoil
    ) -> None:
        await store.claim(lane, limit=10, lease=0)
        await spoil(raw)
        await store.recover(lane, limit=10)
        assert await raw.zrange(QUARANTINE, 0, -1) == [BAD]
        assert await raw.zcard(RUNNING) == 0
        assert [task.id for task in (await store.claim(lane, limit=10, lease=LEASE)).tasks] == ["first", "last"]

    async def test_a_name_that_is_none_is_quarantined(self, store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
        await store.claim(lane, limit=10, lease=0)
        await raw.copy(RECORD, keys.task(0, "noslash"))
        await raw.zadd(RUNNING, {"noslash": 1})
        assert (await store.recover(lane, limit=10)).count == 4
        assert await raw.zrange(QUARANTINE, 0, -1) == ["noslash"]

    @pytest.mark.parametrize("crashes", ["many", "9223372036854775807", "1.5"])
    async def test_a_spoiled_counter_begins_again(
        self, store: RedisStore, raw: redis.Redis, lane: Lane, crashes: str
    ) -> None:
        await store.claim(lane, limit=10, lease=0)
        await raw.hset(RECORD, "crashes", crashes)
        await store.recover(lane, limit=10)
        assert [task.crashes for task in (await store.claim(lane, limit=10, lease=0)).tasks] == [1, 1, 1]

    async def test_without_its_owners_entry_a_task_is_due_now(
        self, store: RedisStore, raw: redis.Redis, lane: Lane
    ) -> None:
        await store.claim(lane, limit=10, lease=0)
        await raw.set(USER, "not a set")
        await store.recover(lane, limit=10)
        assert {task.id for task in (await store.claim(lane, limit=10, lease=0)).tasks} == {"first", "bad", "last"}

    @pytest.mark.parametrize("score", ["inf", "-inf", "1e300", "-5"])
    async def test_where_its_owners_entry_is_no_moment_a_task_is_due_now(
        self, store: RedisStore, raw: redis.Redis, lane: Lane, score: str
    ) -> None:
        await store.claim(lane, limit=10, lease=0)
        await raw.execute_command("ZADD", USER, score, "bad")
        await store.recover(lane, limit=10)
        assert [task.id for task in (await store.claim(lane, limit=10, lease=0)).tasks] == ["first", "last", "bad"]


@pytest.mark.usefixtures("three")
class TestSettle:
    @spoiled(GONE)
    async def test_its_neighbours_are_settled(
        self, store: RedisStore, raw: redis.Redis, lane: Lane, spoil: Spoil
    ) -> None:
        tasks = (await store.claim(lane, limit=10, lease=0)).tasks
        await spoil(raw)
        first, bad, last = await store.settle([completed(task) for task in tasks])
        assert (first, last) == (Settled.DONE, Settled.DONE)
        assert bad is (Settled.GONE if spoil is missing else Settled.QUARANTINED)
        await store.recover(lane, limit=10)
        assert await raw.zrange(QUARANTINE, 0, -1) == [BAD]
        assert await store.extend(tasks, lease=LEASE) == [Held.LOST] * 3

    async def test_a_record_too_large_for_the_outbox_is_quarantined(
        self, store: RedisStore, raw: redis.Redis, lane: Lane
    ) -> None:
        tasks = (await store.claim(lane, limit=10, lease=LEASE)).tasks
        await raw.hset(RECORD, mapping={f"field{at}": at for at in range(9000)})
        results = await store.settle([completed(task) for task in tasks])
        assert results == [Settled.DONE, Settled.QUARANTINED, Settled.DONE]
        assert await raw.hlen(RECORD) > 9000

    @pytest.mark.parametrize("outcome", [completed, failed, put_back, lambda task: retried(task, LONG_AGO)])
    async def test_a_spoiled_list_of_the_owner_is_in_nobodys_way(
        self, store: RedisStore, raw: redis.Redis, lane: Lane, outcome
    ) -> None:
        tasks = (await store.claim(lane, limit=10, lease=LEASE)).tasks
        await raw.set(USER, "not a set")
        assert await store.settle([outcome(task) for task in tasks]) == [Settled.DONE] * 3
        assert await raw.zcard(RUNNING) == 0

    @pytest.mark.parametrize(("key", "outcome"), [(keys.failed(0), failed), (DUE, put_back)], ids=["failed", "due"])
    async def test_where_one_goes_to_a_set_that_is_none_its_neighbours_are_settled(
        self, store: RedisStore, raw: redis.Redis, lane: Lane, key: str, outcome: Callable[[Task], Settlement]
    ) -> None:
        first, bad, last = (await store.claim(lane, limit=10, lease=LEASE)).tasks
        await raw.set(key, "not a set")
        results = await store.settle([completed(first), outcome(bad), completed(last)])
        assert results == [Settled.DONE, Settled.DAMAGED, Settled.DONE]
        await raw.delete(key)
        assert await store.settle([outcome(bad)]) == [Settled.DONE]

    async def test_without_an_outbox_nothing_is_settled_and_nothing_lost(
        self, store: RedisStore, raw: redis.Redis, lane: Lane
    ) -> None:
        tasks = (await store.claim(lane, limit=10, lease=LEASE)).tasks
        await raw.set(OUTBOX, "not a stream")
        before = await snapshot(raw)
        assert await store.settle([completed(task) for task in tasks]) == [Settled.DAMAGED] * 3
        assert await snapshot(raw) == before

    @pytest.mark.parametrize(
        "data",
        [
            {"when": object},
            {("a", 1): 2},
            {1: 2, "b": 3},
            {"nan": float("nan")},
            {"bytes": b"\xff"},
            {"half": "\ud800"},
        ],
        ids=["an object", "a tuple as key", "mixed keys", "nan", "bytes", "half a surrogate"],
    )
    async def test_a_plug_ins_receipt_may_say_anything(
        self, store: RedisStore, lane: Lane, data: dict[object, object]
    ) -> None:
        tasks = (await store.claim(lane, limit=10, lease=LEASE)).tasks
        odd = completed(tasks[1])
        object.__setattr__(odd, "receipt", Receipt(detail="odd", data=data))
        assert await store.settle([completed(tasks[0]), odd]) == [Settled.DONE] * 2
        past = await store.outbox.read(10)
        assert [one.receipt and one.receipt["detail"] for one in past] == ["kept", "odd"]


class TestAdd:
    @pytest.mark.parametrize("key", [USER, CREATED, DUE, OUTBOX])
    @pytest.mark.parametrize("due", [None, LONG_AGO], ids=["created", "pending"])
    async def test_what_could_not_be_kept_whole_is_not_kept_at_all(
        self, store: RedisStore, raw: redis.Redis, key: str, due: int | None
    ) -> None:
        """Half of it would make the next try believe that it is kept."""
        await raw.set(key, "garbage")
        before = await snapshot(raw)
        with pytest.raises(StoreDamaged):
            await store.add(thought("bad", due=due))
        assert await snapshot(raw) == before
        await raw.delete(key)
        assert not (await store.add(thought("bad", due=due))).kept

    @pytest.mark.parametrize("key", [DUE, QUARANTINE, "elsewhere"])
    async def test_a_record_that_will_never_be_performed_is_not_called_kept(
        self, store: RedisStore, raw: redis.Redis, key: str
    ) -> None:
        await store.add(thought("bad", due=LONG_AGO))
        await raw.delete(DUE)
        await raw.zadd(key, {"ana/other" if key == DUE else BAD: 1})
        with pytest.raises(IdTaken):
            await store.add(thought("bad", due=LONG_AGO))

    @spoiled({"a string": as_string, "a list": as_list})
    async def test_an_id_that_garbage_has_is_taken(self, store: RedisStore, raw: redis.Redis, spoil: Spoil) -> None:
        await spoil(raw)
        before = await snapshot(raw)
        with pytest.raises(IdTaken):
            await store.add(thought("bad", due=LONG_AGO))
        assert await snapshot(raw) == before


@pytest.mark.usefixtures("three")
class TestOwner:
    @spoiled(UNREADABLE, GONE)
    async def test_a_bad_record_is_not_shown_and_hides_nothing(
        self, store: RedisStore, raw: redis.Redis, spoil: Spoil
    ) -> None:
        await spoil(raw)
        with capture_logs():
            assert await store.get("ana", "bad") is None
            page = await store.page("ana", statuses=list(Status), cursor=None, limit=2)
        assert [task.id for task in page.tasks] == ["first", "last"]

    @spoiled(GONE)
    async def test_a_bad_record_cannot_be_moved(self, store: RedisStore, raw: redis.Redis, spoil: Spoil) -> None:
        await spoil(raw)
        for movement in (
            Movement(states=EVERYWHERE, to=Status.CANCELLED),
            Movement(states=EVERYWHERE, to=Status.PENDING, due=LONG_AGO),
        ):
            with pytest.raises(NotFound):
                await store.move("ana", "bad", movement)

    async def test_a_spoiled_list_of_the_owner_does_not_keep_a_task_alive(
        self, store: RedisStore, raw: redis.Redis
    ) -> None:
        await raw.set(USER, "not a set")
        moved = await store.move("ana", "bad", Movement(states=EVERYWHERE, to=Status.CANCELLED))
        assert moved == Moved(status=Status.CANCELLED)
        [past] = await store.outbox.read(10)
        assert (past.task.id, past.task.due) == ("bad", None)
        assert await raw.exists(RECORD) == 0

    async def test_a_task_that_cannot_be_moved_whole_stays_where_it_was(
        self, store: RedisStore, raw: redis.Redis
    ) -> None:
        await raw.set(CREATED, "not a set")
        with pytest.raises(StoreDamaged):
            await store.move("ana", "bad", Movement(states=EVERYWHERE, to=Status.CREATED))
        assert await raw.zscore(DUE, BAD) == LONG_AGO + 1

    async def test_a_holder_does_not_stumble_over_garbage_among_its_own(
        self, store: RedisStore, raw: redis.Redis, lane: Lane, world: ServerWorld
    ) -> None:
        await store.add(thought("other", due=LONG_AGO + 9, owner="bob"))
        await store.claim(lane, limit=10, lease=LEASE)
        await raw.set(RECORD, "not a hash")
        await raw.set(keys.user(0, "bob"), "not a set")
        await raw.zadd(RUNNING, {"noslash": 1})
        assert [task.id for task in await store.adopt(lane)] == ["first", "last", "other"]


class TestQuarantine:
    """What its owner can still do about a task that nobody can read."""

    @spoiled(UNREADABLE, BEYOND, {"a string": as_string, "a list": as_list})
    async def test_its_owner_may_delete_it(self, store: RedisStore, raw: redis.Redis, lane: Lane, spoil: Spoil) -> None:
        await store.add(thought("bad", due=LONG_AGO))
        await spoil(raw)
        with capture_logs():
            await store.claim(lane, limit=1, lease=LEASE)
        with pytest.raises(NotFound):
            await store.move("bob", "bad", Movement(states=EVERYWHERE, to=Status.CANCELLED))
        with pytest.raises(NotFound):
            await store.move("ana", "bad", Movement(states=EVERYWHERE, to=Status.PENDING, due=LONG_AGO))
        moved = await store.move("ana", "bad", Movement(states=EVERYWHERE, to=Status.CANCELLED))
        assert moved == Moved(status=Status.CANCELLED)
        assert set(await raw.keys("*")) == {keys.META, *(await raw.keys("*claims"))}
        assert not (await store.add(thought("bad", due=LONG_AGO))).kept


class TestDamagedKeys:
    @pytest.mark.parametrize("key", [CREATED, DUE, RUNNING, keys.failed(0), USER, OUTBOX])
    async def test_the_key_is_named_and_what_mends_it(self, store: RedisStore, raw: redis.Redis, key: str) -> None:
        await raw.rpush(key, "garbage")
        with capture_logs() as logs:
            for _ in range(3):
                with pytest.raises(
                    StoreDamaged, match=f"^{re.escape(key)} in the store is a list .*later fsck --repair"
                ):
                    await store.counts() if key not in (USER, OUTBOX) else await store.add(thought(due=LONG_AGO))
        assert [(entry["event"], entry["key"]) for entry in logs] == [("store_damaged", key)]
        assert store.steady_for() > 0

    async def test_lists_can_be_read_all_the_same(self, store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
        await store.add(thought(due=LONG_AGO))
        for key in (CREATED, RUNNING, keys.failed(0)):
            await raw.set(key, "garbage")
        page = await store.page("ana", statuses=list(Status), cursor=None, limit=9)
        assert [task.id for task in page.tasks] == ["milk"]

    async def test_a_daemon_can_begin_where_meta_is_damaged(self, world: ServerWorld, raw: redis.Redis) -> None:
        await raw.set(keys.META, "garbage")
        with capture_logs() as logs:
            store = await world.store("another")
        assert [(entry["event"], entry["key"]) for entry in logs] == [("store_damaged", keys.META)]
        assert not (await store.add(thought(due=LONG_AGO))).kept

    @pytest.mark.parametrize("score", ["1e300", "-1e300", "+inf", "-inf"])
    async def test_a_time_that_is_none_is_not_shown(self, store: RedisStore, raw: redis.Redis, score: str) -> None:
        await store.add(thought(due=LONG_AGO))
        await raw.zadd(USER, {"milk": score})
        task = await store.get("ana", "milk")
        assert task is not None
        assert task.due is None


class TestOutbox:
    async def test_a_bad_entry_is_reported_and_put_aside(self, store: RedisStore, raw: redis.Redis) -> None:
        entries = [
            {"name": "ana/x"},
            {"name": "ana/x", "status": "sleeping", "at": "1", "entry": "{}"},
            {"name": "ana/x", "status": "completed", "at": "1", "entry": "["},
            {"name": "ana/x", "status": "completed", "at": "1", "entry": "[" * 100_000},
            {"name": "ana/x", "status": "completed", "at": "now", "entry": "{}"},
            {"name": "ana/x", "status": "completed", "at": "1", "entry": "{}", "uid": b"\xff"},
        ]
        for entry in entries:
            await raw.xadd(OUTBOX, entry)
        await store.add(thought(due=LONG_AGO))
        await store.move("ana", "milk", Movement(states=EVERYWHERE, to=Status.CANCELLED))
        with capture_logs() as logs:
            [past] = await store.outbox.read(100)
        assert past.task.id == "milk"
        assert [entry["event"] for entry in logs] == ["outbox_entry_quarantined"] * len(entries)
        assert await raw.xlen(OUTBOX) == 1
        assert await raw.zcard(QUARANTINE) == len(entries)


# What the tests are written in.


async def snapshot(raw: redis.Redis) -> dict[str, bytes]:
    """Everything there is, byte for byte."""
    return {key: await raw.execute_command("DUMP", key, NEVER_DECODE=True) for key in sorted(await raw.keys("*"))}
