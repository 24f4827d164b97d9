"""Somebody's garbage in Redis: a bad record goes to quarantine, its neighbours go on, and nothing is lost over it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio as redis
from structlog.testing import capture_logs

from later.core.errors import IdTaken, NotFound, StoreDamaged
from later.core.lifecycle import Receipt
from later.core.task import Status
from later.store import keys
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
    @spoiled(UNREADABLE, GONE)
    async def test_a_bad_record_is_quarantined_and_its_neighbours_are_claimed(
        self, store: RedisStore, raw: redis.Redis, lane: Lane, spoil: Spoil
    ) -> None:
        await spoil(raw)
        with capture_logs():
            claim = await store.claim(lane, limit=10, lease=LEASE)
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
