"""A server that cannot serve: what is refused, in which words, what goes on all the same, and that nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import anyio
import pytest
import redis.asyncio as redis
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from later.clock import Clock
from later.core.errors import InvalidSetting, StoreFull, StoreUnavailable
from later.core.task import Status
from later.store import redis as store_redis
from later.store.base import Held, Movement, Settled
from later.store.calls import connect
from later.store.keys import Lane
from later.store.redis import RedisStore
from tests.contract.world import LEASE, ServerWorld, completed, failed, retried, thought
from tests.servers import Server
from tests.waiting import wait_until

LONG_AGO = 1_700_000_000_000
EVERYWHERE = frozenset(Status)
CANCEL = Movement(states=EVERYWHERE, to=Status.CANCELLED)

Trouble = Callable[[Server, redis.Redis], AbstractAsyncContextManager[None]]


@pytest.fixture
def mortal(on_server: Server) -> Iterator[Server]:
    """The server, which a test may end; it runs again afterwards."""
    yield on_server
    on_server.end()
    on_server.start()


class TestDead:
    async def test_every_verb_says_so(self, store: RedisStore, mortal: Server, lane: Lane) -> None:
        await store.add(thought("other", due=LONG_AGO))
        tasks = (await store.claim(lane, limit=1, lease=LEASE)).tasks
        mortal.end()
        verbs = [
            store.open(),
            store.ping(),
            store.add(thought(due=LONG_AGO)),
            store.claim(lane, limit=1, lease=LEASE),
            store.adopt(lane),
            store.extend(tasks, lease=LEASE),
            store.settle([completed(task) for task in tasks]),
            store.recover(lane, limit=1),
            store.move("ana", "other", CANCEL),
            store.get("ana", "other"),
            store.page("ana", statuses=[Status.PENDING], cursor=None, limit=1),
            store.head(lane),
            store.overdue(lane),
            store.counts(),
            store.failed_of("ana"),
            store.describe(),
            store.outbox.read(1),
        ]
        with capture_logs() as logs:
            for verb in verbs:
                with pytest.raises(StoreUnavailable) as refusal:
                    await verb
                assert refusal.value.message == "The store does not answer; nothing is lost, try again in a moment."
        assert [entry["event"] for entry in logs] == ["store_lost"]
        assert store.steady_for() == 0

    async def test_it_goes_on_with_a_server_that_is_back(self, store: RedisStore, mortal: Server) -> None:
        mortal.end()
        with suppress(StoreUnavailable):
            await store.ping()
        mortal.start()
        with capture_logs() as logs:
            await store.add(thought(due=LONG_AGO))  # the scripts are new to it
        assert [entry["event"] for entry in logs] == ["store_back"]

    async def test_a_claim_whose_reply_came_too_late_is_found_again(
        self, mortal: Server, world: ServerWorld, lane: Lane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("later.store.calls.REPLY_S", 0.5)
        store = await world.store()
        await store.claim(lane, limit=1, lease=LEASE)  # the server knows the script
        await store.add(thought(due=LONG_AGO))
        mortal.send(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable):
            await store.claim(lane, limit=1, lease=LEASE)
        mortal.send(signal.SIGCONT)
        await wait_until(lambda: adopted(store, lane))
        assert list((await store.claim(lane, limit=1, lease=LEASE)).tasks) == []

    async def test_a_call_that_was_cut_is_not_repeated_by_the_client(
        self, store: RedisStore, raw: redis.Redis, lane: Lane
    ) -> None:
        await store.add(thought(due=LONG_AGO))
        async with anyio.create_task_group() as cut:
            await raw.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
            cut.start_soon(refused, store.claim(lane, limit=1, lease=LEASE))
            await wait_until(lambda: a_client_waits(raw))
            await raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await raw.execute_command("CLIENT", "UNPAUSE")
        assert await store.adopt(lane) == []
        assert [task.id for task in (await store.claim(lane, limit=1, lease=LEASE)).tasks] == ["milk"]

    async def test_a_user_who_may_not_is_told_so(self, raw: redis.Redis, on_server: Server) -> None:
        async with user(raw, "+ping"):
            for credentials, words in (("bob:secret", "no permissions"), ("bob:wrong", "WRONGPASS|invalid username")):
                store = as_user(on_server, credentials)
                async with store.session():
                    with (
                        capture_logs() as logs,
                        pytest.raises(StoreUnavailable, match=f"the store refuses this user: .*({words})"),
                    ):
                        await store.open()
                assert [entry["event"] for entry in logs] == ["store_lost"]  # whoever waits for it is told why


class TestWaiting:
    @pytest.fixture(params=["read-only", "without its master", "without replicas", "without disk", "busy"])
    def trouble(self, request: pytest.FixtureRequest) -> tuple[Trouble, str]:
        return TROUBLES[request.param]

    async def test_no_verb_that_writes_breaks_or_is_lost(
        self, store: RedisStore, on_server: Server, raw: redis.Redis, lane: Lane, trouble: tuple[Trouble, str]
    ) -> None:
        begin, code = trouble
        for at, task_id in enumerate(("done", "waiting")):
            await store.add(thought(task_id, due=LONG_AGO + at))
        tasks = (await store.claim(lane, limit=1, lease=LEASE)).tasks
        verbs = [
            store.add(thought("new", due=LONG_AGO)),
            store.claim(lane, limit=1, lease=LEASE),
            store.extend(tasks, lease=LEASE),
            store.settle([completed(task) for task in tasks]),
            store.recover(lane, limit=1),
            store.move("ana", "waiting", CANCEL),
        ]
        with capture_logs() as logs:
            async with begin(on_server, raw):
                for verb in verbs:
                    with pytest.raises(StoreUnavailable, match=f"^the store cannot serve now: {code} ") as refusal:
                        await verb
                    assert not isinstance(refusal.value, StoreFull)
                    assert "EVAL" not in refusal.value.message
                    with suppress(StoreUnavailable):
                        await store.head(lane)  # a read may be answered all the while
            assert store.steady_for() == 0
            assert await store.settle([completed(task) for task in tasks]) == [Settled.DONE]
        assert [entry["event"] for entry in logs] == ["store_lost", "store_back"]
        assert [task.id for task in (await store.claim(lane, limit=9, lease=LEASE)).tasks] == ["waiting"]

    async def test_reads_are_answered_or_say_so(
        self, store: RedisStore, on_server: Server, raw: redis.Redis, lane: Lane, trouble: tuple[Trouble, str]
    ) -> None:
        begin, _ = trouble
        await store.add(thought(due=LONG_AGO))
        async with begin(on_server, raw):
            for read in (store.get("ana", "milk"), store.head(lane), store.counts(), store.outbox.read(1)):
                with suppress(StoreUnavailable):
                    await read


class TestFull:
    async def test_adds_are_refused_and_the_rest_goes_on(
        self, store: RedisStore, raw: redis.Redis, lane: Lane, world: ServerWorld
    ) -> None:
        for at in range(6):
            await store.add(thought(f"t{at}", due=LONG_AGO + at))
        async with full(raw):
            with pytest.raises(StoreFull) as refusal:
                await store.add(thought("new", due=LONG_AGO))
            assert refusal.value.message.startswith("The store is full, so nothing new is kept; make room")
            done, again, over, crashed = tasks = (await store.claim(lane, limit=4, lease=LEASE)).tasks
            assert await store.extend(tasks, lease=LEASE) == [Held.KEPT] * 4
            assert await store.settle([completed(done), retried(again, LONG_AGO), failed(over)]) == [Settled.DONE] * 3
            assert [task.id for task in await store.adopt(lane)] == [crashed.id]
            assert (await store.recover(lane, limit=9, every=True)).count == 1
            assert (await store.move("ana", "t5", CANCEL)).status is Status.CANCELLED
            assert await store.move("ana", "t2", Movement(states=EVERYWHERE, to=Status.PENDING, due=1, afresh=True))
            assert {name: count for name, count in (await store.counts()).items() if count} == {
                "pending": 4,
                "outbox": 3,
            }
            page = await store.page("ana", statuses=list(Status), cursor=None, limit=9)
            assert [task.id for task in page.tasks] == ["t2", "t1", "t3", "t4"]
            assert (await store.overdue(lane)).count == 4
            past = await store.outbox.read(9)
            assert [one.task.status for one in past] == [Status.COMPLETED, Status.FAILED, Status.CANCELLED]
            await store.outbox.forget(past)
            assert store.steady_for() > 0
        assert not (await store.add(thought("new", due=LONG_AGO))).kept

    async def test_a_daemon_starts_on_a_full_server(self, store: RedisStore, raw: redis.Redis) -> None:
        """Who else should make room?"""
        assert store is not None
        async with full(raw):
            again = RedisStore(str(store.url), clock=Clock(), holder="again")
            async with again.session():
                await again.open()

    async def test_too_long_an_outbox_refuses_adds_until_it_is_drained(
        self, store: RedisStore, lane: Lane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_redis, "OUTBOX_LIMIT", 2)
        for at in range(3):
            await store.add(thought(f"t{at}", due=LONG_AGO + at))
        tasks = (await store.claim(lane, limit=3, lease=LEASE)).tasks
        await store.settle([completed(task) for task in tasks[:2]])
        with pytest.raises(StoreFull, match="too many finished tasks wait to be archived"):
            await store.add(thought("new", due=LONG_AGO))
        assert (await store.add(thought("t2", due=LONG_AGO + 2))).kept
        assert await store.settle([completed(tasks[2])]) == [Settled.DONE]
        await store.outbox.forget((await store.outbox.read(9))[:2])
        assert not (await store.add(thought("new", due=LONG_AGO))).kept


class TestForgetful:
    async def test_scripts_that_were_forgotten_are_sent_again(
        self, store: RedisStore, raw: redis.Redis, lane: Lane
    ) -> None:
        await raw.script_flush()
        await store.add(thought(due=LONG_AGO))
        await raw.script_flush()
        tasks = (await store.claim(lane, limit=1, lease=0)).tasks
        await raw.script_flush()
        assert await store.extend(tasks, lease=0) == [Held.KEPT]
        await raw.script_flush()
        assert (await store.recover(lane, limit=1)).count == 1
        await raw.script_flush()
        assert await store.settle([completed(tasks[0])]) == [Settled.STALE]
        await raw.script_flush()
        await store.move("ana", "milk", CANCEL)
        assert len(await store.outbox.read(9)) == 1


class TestPartitions:
    async def test_another_number_than_the_store_was_begun_with_is_refused(self, world: ServerWorld) -> None:
        await world.store(partitions=4)
        await world.store(partitions=4)
        with pytest.raises(InvalidSetting) as refusal:
            await world.store(partitions=2)
        assert refusal.value.message == (
            "LATER_PARTITIONS is 2, but this store was begun with 4; set it to 4, or take everything to an empty one: "
            "`later export --all`, then `later import`"
        )

    async def test_a_task_lives_its_whole_life_in_its_owners_partition(self, world: ServerWorld) -> None:
        store = await world.store(partitions=3)
        owners = [f"o{at}" for at in range(12)]
        for owner in owners:
            for task_id in ("a", "b"):
                await store.add(thought(task_id, due=LONG_AGO, owner=owner))
        lanes = [lane for lane in store.lanes if lane.queue == "default"]
        claims = [await store.claim(lane, limit=99, lease=LEASE) for lane in lanes]
        assert all(claim.tasks for claim in claims)
        tasks = [task for claim in claims for task in claim.tasks]
        assert sorted((task.owner, task.id) for task in tasks) == sorted((o, t) for o in owners for t in "ab")
        assert await store.extend(tasks, lease=LEASE) == [Held.KEPT] * 24
        results = await store.settle([failed(task) if task.id == "a" else completed(task) for task in tasks])
        assert results == [Settled.DONE] * 24
        assert {name: count for name, count in (await store.counts()).items() if count} == {"failed": 12, "outbox": 24}
        assert [await store.failed_of(owner) for owner in owners] == [1] * 12
        past = await store.outbox.read(99)
        assert {(one.partition, one.key) for one in past} == {(one.partition, one.key) for one in past}
        assert len(past) == 24
        await store.outbox.forget(past)
        assert await store.outbox.read(99) == []
        for owner in owners:
            await store.move(owner, "a", CANCEL)
        assert (await store.counts())["failed"] == 0


async def test_without_the_right_to_wake_everything_else_goes_on(
    raw: redis.Redis, on_server: Server, lane: Lane
) -> None:
    """New users may use no channel unless it is said; a wake-up is only a hint."""
    async with user(raw, "+@all"):
        await raw.acl_setuser("bob", enabled=True, reset_channels=True)
        store = as_user(on_server, "bob:secret")
        async with store.session():
            await store.open()
            await store.add(thought(due=LONG_AGO))
            [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
            await store.settle([retried(task, LONG_AGO)])
            [task] = (await store.claim(lane, limit=1, lease=0)).tasks
            assert (await store.recover(lane, limit=1)).count == 1
            [task] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
            await store.settle([failed(task)])
            assert (await store.add(thought(due=LONG_AGO))).replaced
            await store.move("ana", "milk", Movement(states=EVERYWHERE, to=Status.CREATED))
            await store.move("ana", "milk", Movement(states=EVERYWHERE, to=Status.PENDING, due=LONG_AGO))
            counts = await store.counts()
    assert {name: count for name, count in counts.items() if count} == {"pending": 1, "outbox": 1}


async def test_it_describes_the_server_as_far_as_it_may(store: RedisStore, raw: redis.Redis, on_server: Server) -> None:
    everything = await store.describe()
    assert everything["kind"] in ("valkey", "redis")
    assert int(str(everything["compatible"]).partition(".")[0]) >= 7
    assert (everything["role"], everything["appendonly"], everything["maxmemory"]) == ("master", "no", "0")
    assert everything["memory"] > 0
    async with user(raw, "+@all", "-config"):
        limited = as_user(on_server, "bob:secret")
        async with limited.session():
            await limited.open()
            with capture_logs() as logs:
                described = await limited.describe()
    assert described["version"] == everything["version"]
    assert "appendonly" not in described
    assert logs == []


async def test_an_address_that_is_none_is_refused_by_the_settings_name() -> None:
    for url in ("http://example.org", "localhost:6379", "redis://host:port", ""):
        with pytest.raises(InvalidSetting, match="LATER_REDIS_URL is not a usable address"):
            connect(url)


# What the tests are written in.


@asynccontextmanager
async def read_only(server: Server, raw: redis.Redis) -> AsyncIterator[None]:
    """A master that has become a replica, as after a failover."""
    await raw.execute_command("REPLICAOF", "127.0.0.1", 1)
    try:
        yield
    finally:
        await raw.execute_command("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def without_its_master(server: Server, raw: redis.Redis) -> AsyncIterator[None]:
    async with configured(raw, "replica-serve-stale-data", "no"), read_only(server, raw):
        yield


@asynccontextmanager
async def without_replicas(server: Server, raw: redis.Redis) -> AsyncIterator[None]:
    async with configured(raw, "min-replicas-to-write", "1"):
        yield


@asynccontextmanager
async def without_disk(server: Server, raw: redis.Redis) -> AsyncIterator[None]:
    """The snapshot cannot be written, as with a full disk: something else is in its place."""
    (server.home / "blocked" / "by").mkdir(parents=True)

    async def noticed() -> bool:
        return (await raw.info("persistence"))["rdb_last_bgsave_status"] == "err"

    async def mended() -> bool:
        return not await noticed()

    async with configured(raw, "save", "3600 1"):
        async with configured(raw, "dbfilename", "blocked"):
            await raw.execute_command("BGSAVE")
            await wait_until(noticed)
            yield
        await raw.execute_command("BGSAVE")
        await wait_until(mended)
        (server.home / "blocked" / "by").rmdir()
        (server.home / "blocked").rmdir()


@asynccontextmanager
async def busy(server: Server, raw: redis.Redis) -> AsyncIterator[None]:
    """Somebody's script does not end."""

    async def noticed() -> bool:
        try:
            return not await raw.ping()
        except redis.RedisError:
            return True

    async with (
        configured(raw, "busy-reply-threshold", "1"),
        connect(server.url) as other,
        anyio.create_task_group() as looping,
    ):
        looping.start_soon(refused, other.eval("while true do end", 0), RedisError)
        await wait_until(noticed)
        yield
        await raw.script_kill()


TROUBLES: dict[str, tuple[Trouble, str]] = {
    "read-only": (read_only, "READONLY"),
    "without its master": (without_its_master, "(READONLY|MASTERDOWN)"),
    "without replicas": (without_replicas, "NOREPLICAS"),
    "without disk": (without_disk, "MISCONF"),
    "busy": (busy, "BUSY"),
}


@asynccontextmanager
async def user(raw: redis.Redis, *commands: str) -> AsyncIterator[None]:
    """A user `bob` who may give these commands only."""
    await raw.acl_setuser("bob", enabled=True, passwords=["+secret"], keys=["*"], channels=["*"], commands=commands)
    try:
        yield
    finally:
        await raw.acl_deluser("bob")


def as_user(server: Server, credentials: str) -> RedisStore:
    return RedisStore(server.url.replace("unix://", f"unix://{credentials}@"), clock=Clock(), holder="one")


@asynccontextmanager
async def configured(raw: redis.Redis, name: str, value: str) -> AsyncIterator[None]:
    before = (await raw.config_get(name))[name]
    await raw.config_set(name, value)
    try:
        yield
    finally:
        await raw.config_set(name, before)


@asynccontextmanager
async def full(raw: redis.Redis) -> AsyncIterator[None]:
    """All the memory it may use is in use."""
    async with configured(raw, "maxmemory", "1"):
        yield


async def refused(verb: Awaitable[object], error: type[Exception] = StoreUnavailable) -> None:
    with pytest.raises(error):
        await verb


async def a_client_waits(raw: redis.Redis) -> bool:
    return (await raw.info("clients"))["blocked_clients"] > 0


async def adopted(store: RedisStore, lane: Lane) -> bool:
    """Whether the claim that was sent to the frozen server has been carried out since it woke."""
    try:
        return [task.id for task in await store.adopt(lane)] == ["milk"]
    except StoreUnavailable:
        return False
