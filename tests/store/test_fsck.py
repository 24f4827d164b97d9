"""The examination: a sound store is sound while daemons are at work; every kind of damage is found and mended."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
import redis.asyncio as redis
from structlog.testing import capture_logs

from later.core.errors import Conflict, NotFound, StoreUnavailable
from later.core.task import Status
from later.store import keys
from later.store.base import Examined, Movement, Settled
from later.store.fsck import examiner
from later.store.fsck.findings import Findings
from later.store.fsck.inspection import RECORDS
from later.store.keys import Lane
from later.store.redis import RedisStore
from tests.contract.world import LEASE, ServerWorld, completed, failed, put_back, retried, thought
from tests.servers import Server

LONG_AGO = 1_700_000_000_000
FAR = 4_000_000_000_000
CREATED, FAILED, QUARANTINE = keys.created(0), keys.failed(0), keys.quarantine(0)
DUE, RUNNING, USER = keys.due(0, "default"), keys.running(0, "default"), keys.user(0, "ana")
CLAIMS, OUTBOX = keys.claims(0), keys.outbox(0)
EVERYWHERE = frozenset(Status)
AT_REST = frozenset({Status.CREATED, Status.PENDING, Status.FAILED})
HELD = ("claim", "holder", "alone")

Spoil = Callable[[redis.Redis], Awaitable[object]]


@pytest.fixture
async def four(store: RedisStore, lane: Lane) -> None:
    """One task in each state, all of ana's, each with its state as its id; of bob one that clients pull."""
    for task_id in ("running", "failed"):
        await store.add(thought(task_id, due=LONG_AGO))
    tasks = {task.id: task for task in (await store.claim(lane, limit=2, lease=LEASE)).tasks}
    await store.settle([failed(tasks["failed"])])
    await store.add(thought("held", due=None))
    await store.add(thought("pending", due=FAR))
    await store.add(thought("pulled", due=FAR, owner="bob", queue="reports"))


def record(task_id: str) -> str:
    return keys.task(0, f"ana/{task_id}")


def name(task_id: str) -> str:
    return f"ana/{task_id}"


async def renamed(raw: redis.Redis, key: str, garbage: str = "garbage") -> None:
    """In the key's place lies a string."""
    await raw.set(key, garbage)


DAMAGE: dict[str, tuple[Spoil, set[str]]] = {
    "a pending record in no set": (lambda raw: raw.zrem(DUE, name("pending")), {"stray"}),
    "a created record in no set": (lambda raw: raw.zrem(CREATED, name("held")), {"stray"}),
    "a running record in no set": (lambda raw: raw.zrem(RUNNING, name("running")), {"stray"}),
    "a failed record in no set": (lambda raw: raw.zrem(FAILED, name("failed")), {"stray"}),
    "pending and created": (lambda raw: raw.zadd(CREATED, {name("pending"): LONG_AGO}), {"twice"}),
    "pending and failed": (lambda raw: raw.zadd(FAILED, {name("pending"): LONG_AGO}), {"twice"}),
    "running and pending": (lambda raw: raw.zadd(DUE, {name("running"): LONG_AGO}), {"twice"}),
    "failed and created": (lambda raw: raw.zadd(CREATED, {name("failed"): LONG_AGO}), {"twice"}),
    "pending and in quarantine": (lambda raw: raw.zadd(QUARANTINE, {name("pending"): 1}), {"twice"}),
    "in another queue's set": (lambda raw: raw.zadd(keys.due(0, "slow"), {name("pending"): FAR}), {"misplaced"}),
    "not in the owner's list": (lambda raw: raw.zrem(USER, "pending"), {"unlisted"}),
    "running and not in the owner's list": (lambda raw: raw.zrem(USER, "running"), {"unlisted"}),
    "at another time in the owner's list": (lambda raw: raw.zadd(USER, {"pending": FAR + 1}), {"list"}),
    "pending without a time in the list": (lambda raw: raw.zadd(USER, {"pending": "+inf"}), {"list"}),
    "due entry without a record": (lambda raw: raw.zadd(DUE, {name("nobody"): LONG_AGO}), {"entry"}),
    "running entry without a record": (lambda raw: raw.zadd(RUNNING, {name("nobody"): FAR}), {"entry"}),
    "created entry without a record": (lambda raw: raw.zadd(CREATED, {name("nobody"): 1}), {"entry"}),
    "failed entry without a record": (lambda raw: raw.zadd(FAILED, {"noslash": 1}), {"entry"}),
    "quarantined entry without a record": (lambda raw: raw.zadd(QUARANTINE, {name("nobody"): 1}), {"entry"}),
    "list entry without a record": (lambda raw: raw.zadd(USER, {"nobody": 1}), {"entry"}),
    "a list without records": (lambda raw: raw.zadd(keys.user(0, "eve"), {"nobody": "inf"}), {"entry"}),
    "a record that is no hash": (lambda raw: renamed(raw, record("pending")), {"unreadable", "misplaced"}),
    "a record without a queue": (lambda raw: raw.hdel(record("pending"), "queue"), {"unreadable", "misplaced"}),
    "a record without a spec": (lambda raw: raw.hdel(record("pending"), "spec"), {"unreadable"}),
    "a failed record without a uid": (lambda raw: raw.hdel(record("failed"), "uid"), {"unreadable"}),
    "a record without an owner": (lambda raw: raw.copy(record("held"), keys.task(0, "noslash")), {"unreadable"}),
    "a queue of another owner": (
        lambda raw: raw.hset(record("pending"), "queue", "bob/reports"),
        {"unreadable", "misplaced"},
    ),
    "10 MB in a field": (lambda raw: raw.hset(record("held"), "notes", "x" * 10_000_000), {"unreadable"}),
    "100,000 fields": (
        lambda raw: raw.hset(record("held"), mapping={f"f{at}": at for at in range(100_000)}),
        {"unreadable"},
    ),
    "created in the year 30,000": (lambda raw: raw.hset(record("held"), "created", 10**15), {"unreadable"}),
    "readable in quarantine": (
        lambda raw: raw.eval(
            "redis.call('ZREM', KEYS[1], ARGV[1]) redis.call('ZADD', KEYS[2], 1, ARGV[1])",
            2,
            DUE,
            QUARANTINE,
            name("pending"),
        ),
        {"readable"},
    ),
    **{
        f"{which} at {score}": (
            lambda raw, key=key, task_id=task_id, score=score: raw.zadd(key, {task_id: score}),
            {kind},
        )
        for which, key, task_id, kind in (
            ("due", DUE, name("pending"), "score"),
            ("running", RUNNING, name("running"), "score"),
            ("failed", FAILED, name("failed"), "score"),
            ("created", CREATED, name("held"), "score"),
            ("listed", USER, "running", "list"),
        )
        for score in ("1e300", "-1e300", "+inf", "-inf", "1.5")
    },
    "a list at 1e300": (lambda raw: raw.zadd(USER, {"held": "1e300"}), {"list"}),
    "a lease for years": (lambda raw: raw.zadd(RUNNING, {name("running"): FAR}), {"score"}),
    "a claim counter behind": (lambda raw: raw.set(CLAIMS, 5), {"claim"}),
    "no claim counter": (lambda raw: raw.delete(CLAIMS), {"claim"}),
    "a claim counter that is no number": (lambda raw: raw.set(CLAIMS, "many"), {"claim", "counter"}),
    "a claim counter beyond counting": (lambda raw: raw.set(CLAIMS, 10**20), {"claim", "counter"}),
    "a claim beyond counting": (lambda raw: raw.hset(record("running"), "claim", 10**20), {"claim"}),
    "an unknown key": (lambda raw: raw.set("later:{0}:idea", "x"), {"unknown"}),
    "an unknown key of no partition": (lambda raw: raw.rpush("later:queue", "x"), {"unknown"}),
    "due is no set": (lambda raw: renamed(raw, DUE), {"type", "stray"}),
    "running is no set": (lambda raw: renamed(raw, RUNNING), {"type", "stray"}),
    "created is no set": (lambda raw: renamed(raw, CREATED), {"type", "stray"}),
    "failed is no set": (lambda raw: renamed(raw, FAILED), {"type", "stray"}),
    "quarantine is no set": (lambda raw: renamed(raw, QUARANTINE), {"type"}),
    "a list is no set": (lambda raw: renamed(raw, USER), {"type", "unlisted"}),
    "the counter is a list": (
        lambda raw: raw.eval("redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 1)", 1, CLAIMS),
        {"type", "claim"},
    ),
    "the outbox is no stream": (lambda raw: renamed(raw, OUTBOX), {"type"}),
    "meta is no hash": (lambda raw: renamed(raw, keys.META), {"type"}),
}


@pytest.mark.usefixtures("four")
async def test_a_sound_store_is_called_sound_and_counted(store: RedisStore, raw: redis.Redis) -> None:
    before = await everything(raw)
    for mend in (False, True):
        looked = await examined(store, mend=mend)
        assert (looked.damages, looked.advice) == ({}, {})
        assert looked.counts == {"records": 5, "created": 1, "pending": 2, "running": 1, "failed": 1, "owners": 2}
    assert await everything(raw) == before


async def test_an_empty_store_is_sound(store: RedisStore) -> None:
    looked = await examined(store)
    assert (looked.damages, looked.advice, looked.counts) == ({}, {}, {})


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("spoil", "kinds"), DAMAGE.values(), ids=DAMAGE.keys())
async def test_damage_is_found_and_mended_and_nothing_that_was_written_is_lost(
    store: RedisStore, raw: redis.Redis, spoil: Spoil, kinds: set[str]
) -> None:
    await spoil(raw)
    before, said = await everything(raw), await written(raw)
    with capture_logs():
        looked = await examined(store)
    assert set(looked.damages) == kinds
    assert looked.mended == 0
    assert await everything(raw) == before
    with capture_logs() as logs:
        mended = await examined(store, mend=True)
    assert [entry["event"] for entry in logs] == ["store_mended"]
    assert set(mended.damages) <= kinds
    assert mended.mended == sum(damage["count"] for damage in mended.damages.values()) > 0
    assert (await examined(store)).damages == {}
    assert await in_one_state_each(raw)
    assert said - await written(raw) == Counter()


def both(first: str, at: str, second: str, then: str) -> Spoil:
    """`pending` at these scores in two sets."""

    async def spoil(raw: redis.Redis) -> None:
        for key, score in ((first, at), (second, then)):
            await raw.zadd(key, {"pending" if key == USER else name("pending"): score})

    return spoil


async def put_into_quarantine(raw: redis.Redis) -> None:
    await raw.zrem(DUE, name("pending"))
    await raw.zadd(QUARANTINE, {name("pending"): 1})


BACK: dict[str, tuple[Spoil, str, str, float | None]] = {
    "to the time in its list": (lambda raw: raw.zrem(DUE, name("pending")), "pending", DUE, FAR),
    "to created, without a time": (lambda raw: raw.zrem(CREATED, name("held")), "held", CREATED, None),
    "from nowhere to its old time": (lambda raw: raw.zrem(RUNNING, name("running")), "running", DUE, LONG_AGO),
    "to its holder, under a lease": (lambda raw: raw.zadd(DUE, {name("running"): 1}), "running", RUNNING, None),
    "to due, when the lease has ended": (both(DUE, "5", RUNNING, "5"), "pending", DUE, 5),
    "to due rather than held": (lambda raw: raw.zadd(CREATED, {name("pending"): 1}), "pending", DUE, FAR),
    "from no moment to its list's": (lambda raw: raw.zadd(DUE, {name("pending"): "1e300"}), "pending", DUE, FAR),
    "from half a moment to its list's": (lambda raw: raw.zadd(DUE, {name("pending"): "7.5"}), "pending", DUE, FAR),
    "from no moment to the nominal one": (both(DUE, "-inf", USER, "1e300"), "pending", DUE, FAR),
    "out of quarantine": (put_into_quarantine, "pending", DUE, FAR),
}


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("spoil", "task_id", "to", "at"), BACK.values(), ids=BACK.keys())
async def test_it_goes_back(
    store: RedisStore, raw: redis.Redis, spoil: Spoil, task_id: str, to: str, at: float | None
) -> None:
    await spoil(raw)
    await examined(store, mend=True)
    assert await raw.zscore(to, name(task_id)) is not None
    assert await in_one_state_each(raw)
    if at is not None:
        assert (await raw.zscore(to, name(task_id)), await raw.zscore(USER, task_id)) == (at, at)


async def test_what_goes_back_to_due_is_performed(store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
    for at in range(3):
        await store.add(thought(f"{at}", due=LONG_AGO + at))
    await raw.set(DUE, "not a set")
    await examined(store, mend=True)
    assert [task.id for task in (await store.claim(lane, limit=9, lease=LEASE)).tasks] == ["0", "1", "2"]


async def test_a_holder_whose_task_was_mended_settles_nothing(store: RedisStore, raw: redis.Redis, lane: Lane) -> None:
    await store.add(thought(due=LONG_AGO))
    tasks = (await store.claim(lane, limit=1, lease=0)).tasks
    await raw.zadd(DUE, {"ana/milk": LONG_AGO})
    await examined(store, mend=True)
    assert await store.settle([completed(task) for task in tasks]) == [Settled.STALE]
    assert await raw.zscore(DUE, "ana/milk") == LONG_AGO


class TestAdvice:
    async def test_what_cannot_be_read_stays_in_quarantine_and_is_named(
        self, store: RedisStore, raw: redis.Redis
    ) -> None:
        await store.add(thought("bad", due=FAR))
        await raw.hset(record("bad"), "spec", "buy milk")
        for mend in (True, True, False):
            looked = await examined(store, mend=mend)
        assert looked.damages == {}
        assert looked.advice["quarantined"]["names"] == ["ana/bad"]
        assert await raw.hget(record("bad"), "spec") == "buy milk"

    async def test_a_word_of_the_outbox_in_quarantine_is_no_damage(self, store: RedisStore, raw: redis.Redis) -> None:
        await raw.xadd(OUTBOX, {"name": "ana/x"})
        with capture_logs():
            await store.outbox.read(1)
        looked = await examined(store, mend=True)
        assert (looked.damages, looked.advice["outbox"]["count"]) == ({}, 1)
        assert await raw.zcard(QUARANTINE) == 1

    async def test_a_queue_that_no_daemon_here_performs_is_named(self, world: ServerWorld, store: RedisStore) -> None:
        await store.add(thought("slow", due=FAR, queue="slow"))
        dropped = await world.store(own_queues=frozenset({"default"}))
        looked = await examined(dropped, mend=True)
        assert looked.damages == {}
        assert looked.advice["unperformed"]["names"] == ["slow (1)"]
        assert "LATER_QUEUES" in looked.advice["unperformed"]["says"]

    async def test_what_was_set_aside_is_kept_and_named(self, store: RedisStore, raw: redis.Redis) -> None:
        await raw.set("later:idea", "mine")
        await examined(store, mend=True)
        [aside] = (await examined(store)).advice["aside"]["names"]
        assert aside.startswith("later:{0}:damaged:idea:")
        assert await raw.get(aside) == "mine"

    async def test_a_partition_that_is_not_there_is_left_to_a_person(self, store: RedisStore, raw: redis.Redis) -> None:
        await raw.copy(keys.META, keys.task(7, "ana/milk"))
        before = await everything(raw)
        looked = await examined(store, mend=True)
        assert (set(looked.damages), looked.mended) == ({"elsewhere"}, 0)
        assert await everything(raw) == before

    async def test_what_is_not_laters_is_left_alone(self, store: RedisStore, raw: redis.Redis) -> None:
        await raw.set("laterally", "x")
        await raw.set("other:later:{0}:due", "x")
        assert (await examined(store, mend=True)).damages == {}

    async def test_names_that_are_no_text_can_be_told(self, store: RedisStore, raw: redis.Redis) -> None:
        await raw.hset(b"later:{0}:task:ana/\xff\xfe", "uid", "u")
        await raw.zadd(DUE, {b"\x80" * 500: 1})
        looked = await examined(store, mend=True)
        assert looked.mended == 2
        json.dumps([looked.damages, looked.advice]).encode("ascii")
        assert (await examined(store)).damages == {}


async def test_all_partitions_are_examined_and_an_owner_lies_in_one(world: ServerWorld, raw: redis.Redis) -> None:
    store = await world.store(partitions=4)
    for at in range(40):
        await store.add(thought("milk", due=FAR, owner=f"o{at}"))
    assert (await examined(store)).counts == {"records": 40, "pending": 40, "owners": 40}
    mine = store._layout.partition("o1")
    other = (mine + 1) % 4
    await raw.copy(keys.task(mine, "o1/milk"), keys.task(other, "o1/milk"))
    await raw.zadd(keys.due(other, "default"), {"o1/milk": FAR})
    before = await everything(raw)
    looked = await examined(store, mend=True)
    assert (set(looked.damages), looked.mended) == ({"elsewhere"}, 0)
    assert await everything(raw) == before


async def test_in_parts_it_finds_the_same_as_at_once(
    store: RedisStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(700):
        await store.add(thought(f"{at}", due=FAR, owner=f"o{at % 7}"))
    await raw.zadd(DUE, {f"ana/nobody{at}": at for at in range(1000)})
    await raw.zrem(keys.user(0, "o3"), "3")
    monkeypatch.setattr(examiner, "WORK_S", 0)
    looked = await examined(store, mend=True)
    assert looked.parts > 6
    assert looked.counts["records"] == 700
    assert {kind: damage["count"] for kind, damage in looked.damages.items()} == {"entry": 1000, "unlisted": 1}
    assert len(looked.damages["entry"]["names"]) <= 5 * looked.parts
    again = await examined(store)
    assert (again.damages, again.counts) == ({}, {"records": 700, "pending": 700, "owners": 7})


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_record_is_skipped_when_others_end_between_the_parts(
    store: RedisStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The pages grow meanwhile: the server takes as many more keys as have ended."""
    for at in range(40):
        await store.add(thought("kept", due=FAR, owner=f"o{at}"))
    record = await raw.hgetall(keys.task(0, "o1/kept"))
    pipeline = raw.pipeline()
    for at in range(4000):
        pipeline.hset(keys.task(0, f"o{at % 40}/{at}"), mapping=record)
    await pipeline.execute()
    monkeypatch.setattr(examiner, "WORK_S", 0)
    rng = random.Random(seed)
    ending = [keys.task(0, f"o{at % 40}/{at}") for at in range(4000) if at % 4]
    rng.shuffle(ending)
    cursor, parts = None, 0
    while (cursor := (await store.examine(cursor, mend=True)).next) is not None:
        parts += 1
        await raw.delete(*(ending.pop() for _ in range(min(150, len(ending)))), "later:none")
    assert parts > 20
    monkeypatch.undo()
    assert set(looked := (await examined(store)).damages) <= {"entry"}, looked


async def test_the_cursor_stays_short_however_many_sets_are_left(
    store: RedisStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(120):
        await raw.zadd(b"later:{0}:user:\xff%d" % at + b"x" * 500, {"nobody": 1})
    monkeypatch.setattr(examiner, "WORK_S", 0)
    cursor, found = None, 0
    while True:
        part = await store.examine(cursor, mend=False)
        found += sum(damage["count"] for damage in part.damages)
        if (cursor := part.next) is None:
            break
        assert len(cursor) <= 50_000
        assert cursor.isascii()
    assert found == 120


@pytest.mark.parametrize(
    "cursor", ["", "x", "||", "|-1|", "nonsense.0|0", f"|{2**64}", "|1 ", "x.0|0|", "x.0|0|x", "x.0|0|later:{0}:claims"]
)
async def test_a_cursor_that_no_part_gave_is_refused(store: RedisStore, cursor: str) -> None:
    with pytest.raises(Conflict, match="begin again"):
        await store.examine(cursor, mend=False)


async def test_an_examination_across_a_restart_is_refused(
    store: RedisStore, on_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(700):
        await store.add(thought(f"{at}", due=FAR))
    monkeypatch.setattr(examiner, "WORK_S", 0)
    cursor = (await store.examine(None, mend=False)).next
    assert cursor is not None
    on_server.end()
    on_server.start()
    with suppress(StoreUnavailable):  # the connection is the old server's
        await store.ping()
    with pytest.raises(Conflict, match="begin again"):
        await store.examine(cursor, mend=False)


@pytest.mark.parametrize("mend", [False, True])
async def test_daemons_at_work_are_no_damage(
    world: ServerWorld, store: RedisStore, raw: redis.Redis, lane: Lane, mend: bool
) -> None:
    """Owners add, pause and delete, daemons claim, crash and settle, all at once, and it is examined all the while."""
    rng = random.Random(7)
    other = await world.store("two")
    parts = 0

    async def until_they_are_done() -> None:
        nonlocal parts
        async with anyio.create_task_group() as busy:
            for of in ("ana", "bob", "eve"):
                busy.start_soon(an_owner, store, of, rng)
            for daemon in (store, other):
                busy.start_soon(a_daemon, daemon, lane, rng)
        parts = -parts

    examiner = await world.store("three")
    async with anyio.create_task_group() as both:
        both.start_soon(until_they_are_done)
        while parts >= 0:
            looked = await examined(examiner, mend=mend)
            assert (looked.damages, looked.advice) == ({}, {})
            parts += looked.parts
    assert parts < -5
    assert await in_one_state_each(raw)


async def test_a_repair_does_nothing_to_what_has_changed_since(store: RedisStore, raw: redis.Redis) -> None:
    """What is judged and what is mended are two calls; in between a daemon may have come."""
    await store.add(thought(due=FAR))
    inspection, found = store._inspection, Findings()
    await raw.zrem(DUE, "ana/milk")
    judged = await inspection._judge(0, ["ana/milk"], RECORDS)
    await raw.zadd(RUNNING, {"ana/milk": FAR})
    assert await inspection._mend(0, judged, RECORDS, found) == set()
    assert await raw.zscore(DUE, "ana/milk") is None
    judged = await inspection._judge(0, ["ana/milk"], RECORDS)
    assert await inspection._mend(0, judged, RECORDS, found) == {"ana/milk"}


async def test_a_key_that_is_well_again_is_not_set_aside(store: RedisStore, raw: redis.Redis) -> None:
    """In between another repair has set it aside, and a daemon has created it anew."""
    inspection = store._inspection
    await renamed(raw, DUE)
    assert await inspection.wrong_types([DUE]) == [DUE]
    assert await inspection.set_aside(DUE)
    await store.add(thought("pending", due=FAR))
    assert not await inspection.set_aside(DUE)
    assert not await inspection.set_aside(FAILED)  # which is not there
    assert await raw.zscore(DUE, name("pending")) == FAR


async def test_a_key_whose_name_is_no_text_is_set_aside(store: RedisStore, raw: redis.Redis) -> None:
    await raw.set(b"later:{0}:idea\xff", "mine")
    assert (await examined(store, mend=True)).mended == 1
    [aside] = await raw.keys("later:{0}:damaged:idea*")
    assert await raw.get(aside) == "mine"


# What the tests are written in.


async def an_owner(store: RedisStore, owner: str, rng: random.Random) -> None:
    for at in range(60):
        task_id = f"{at % 9}"
        with suppress(NotFound, Conflict):
            await store.add(thought(task_id, due=rng.choice([None, LONG_AGO + at, FAR]), owner=owner))
            movement = rng.choice(
                [
                    Movement(states=AT_REST, to=Status.CREATED),
                    Movement(states=AT_REST, to=Status.PENDING, due=LONG_AGO),
                    Movement(states=EVERYWHERE, to=Status.CANCELLED),
                ]
            )
            await store.move(owner, task_id, movement)


async def a_daemon(store: RedisStore, lane: Lane, rng: random.Random) -> None:
    for _ in range(120):
        tasks = (await store.claim(lane, limit=4, lease=rng.choice([0, LEASE]))).tasks
        await store.recover(lane, limit=3)
        ends = [rng.choice([completed, failed, put_back, lambda task: retried(task, LONG_AGO)]) for _ in tasks]
        await store.settle([end(task) for end, task in zip(ends, tasks, strict=True)])


class Looked:
    """All parts of an examination, added up."""

    def __init__(self) -> None:
        self.parts = 0
        self.counts: Counter[str] = Counter()
        self.damages: dict[str, dict[str, Any]] = {}
        self.advice: dict[str, dict[str, Any]] = {}

    @property
    def mended(self) -> int:
        return sum(damage["mended"] for damage in self.damages.values())

    def add(self, part: Examined) -> None:
        self.parts += 1
        self.counts.update(part.counts)
        for total, ones in ((self.damages, part.damages), (self.advice, part.advice)):
            for one in ones:
                so_far = total.setdefault(one["kind"], {**one, "count": 0, "mended": 0, "names": []})
                for figure in ("count", "mended", "names"):
                    so_far[figure] += one[figure]


async def examined(store: RedisStore, *, mend: bool = False) -> Looked:
    looked, cursor = Looked(), None
    while True:
        part = await store.examine(cursor, mend=mend)
        looked.add(part)
        if (cursor := part.next) is None:
            return looked


async def everything(raw: redis.Redis) -> dict[str, bytes]:
    """All there is, byte for byte."""
    pipeline, found = raw.pipeline(), sorted(await raw.keys("*"))
    for key in found:
        pipeline.execute_command("DUMP", key, NEVER_DECODE=True)
    return dict(zip(found, await pipeline.execute(), strict=True))


async def written(raw: redis.Redis) -> Counter[object]:
    """What somebody wrote, wherever it lies: records and strings; not who holds them, nor the counter."""
    found: Counter[object] = Counter()
    pipeline, there = raw.pipeline(), await raw.keys("*")
    for key in there:
        pipeline.type(key)
    for key, kind in zip(there, await pipeline.execute(), strict=True):
        match kind:
            case "hash":
                fields = await raw.hgetall(key)
                found[frozenset((field, value) for field, value in fields.items() if field not in HELD)] += 1
            case "string" if key != CLAIMS:
                found[await raw.get(key)] += 1
            case "list":
                found[tuple(await raw.lrange(key, 0, -1))] += 1
    return found


async def in_one_state_each(raw: redis.Redis) -> bool:
    """Every record is named by one state set, every one in a state by its owner's list, and nothing else is named."""
    names, states, lists = set(), Counter[str](), set()
    for key in await raw.keys("later:{0}:*"):
        kind, _, rest = key.removeprefix("later:{0}:").partition(":")
        if kind == "task":
            names.add(rest)
        elif kind in ("created", "failed", "quarantine", "due", "running"):
            states.update(await raw.zrange(key, 0, -1))
        elif kind == "user":
            lists |= {f"{rest}/{task_id}" for task_id in await raw.zrange(key, 0, -1)}
    aside = set(await raw.zrange(QUARANTINE, 0, -1))
    return states == Counter(names) and names - aside <= lists <= names
