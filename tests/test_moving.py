"""Moving house between two real stores, of one partition and of four, with an archive each."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from later.actions.registry import Registry, Surroundings
from later.api.lines import line_of, read_line
from later.archive.archive import Archive
from later.archive.rows import Past
from later.archive.writer import Writer
from later.clock import Clock
from later.core.errors import Unavailable
from later.core.task import Status
from later.moving import Arrival, Arrived, Moving
from later.settings import Settings
from later.store.base import Movement, Standing
from later.store.redis import RedisStore
from tests.api.test_lines import lives, pasts
from tests.contract.world import LEASE, completed, failed, thought
from tests.servers import Server, served

LONG_AGO = 1_700_000_000_000
FAR = 4_000_000_000_000
CANCEL = Movement(states=frozenset({Status.PENDING}), to=Status.CANCELLED)
PROPERTY = settings(derandomize=True, deadline=None, max_examples=15)


@dataclass(frozen=True)
class House:
    store: RedisStore
    archive: Archive
    writer: Writer
    moving: Moving


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served("valkey") as server:
        yield server


@asynccontextmanager
async def house(server: Server, number: int, partitions: int, directory: Path) -> AsyncIterator[House]:
    """A house in a database of its own."""
    store = RedisStore(f"{server.url}?db={number}", clock=Clock(), holder=f"h{number}", partitions=partitions)
    archive = Archive(directory / f"history-{number}.db")
    writer = Writer(store.outbox, archive, rng=random.Random(1))
    actions = Registry(Surroundings(settings=Settings(state_dir=directory), now=store.now))
    async with store.session(), archive.session():
        await store.open()
        yield House(store, archive, writer, Moving(store=store, archive=archive, writer=writer, actions=actions))


@pytest.fixture
async def old(server: Server, tmp_path: Path) -> AsyncIterator[House]:
    server.ask("FLUSHALL")
    async with house(server, 0, 1, tmp_path) as one:
        yield one


@pytest.fixture
async def new(server: Server, tmp_path: Path, old: House) -> AsyncIterator[House]:
    async with house(server, 1, 4, tmp_path) as one:
        yield one


async def taken_out(of: House, owner: str | None = None, *, limit: int = 7) -> list[bytes]:
    """All lines: first the live, then the past ones."""
    found: list[Standing | Past] = []
    cursor = None
    while True:
        walked = await of.moving.live(owner, cursor=cursor, limit=limit)
        assert not walked.unreadable
        found += walked.found
        cursor = walked.next
        if cursor is None:
            break
    while True:
        rows, cursor = await of.moving.past(owner, cursor=cursor, limit=limit)
        found += rows
        if cursor is None:
            return [json.dumps(line_of(one), ensure_ascii=False).encode() for one in found]


async def brought_in(to: House, lines: list[bytes]) -> list[str]:
    """What became of them."""
    return [one.arrival.value for one in await to.moving.keep([read_line(line) for line in lines])]


def unordered(lines: list[bytes]) -> list[str]:
    return sorted(json.dumps(json.loads(line), sort_keys=True) for line in lines)


async def test_nothing_is_lost_on_the_way(old: House, new: House, tmp_path: Path) -> None:
    for at in range(30):
        await old.store.add(thought(f"t{at}", due=LONG_AGO if at < 12 else FAR if at % 2 else None, owner=f"o{at % 4}"))
    claim = await old.store.claim(old.store.lanes[0], limit=9, lease=LEASE)
    await old.store.settle([(failed if at % 3 == 0 else completed)(task) for at, task in enumerate(claim.tasks)])
    await old.store.move("o1", "t13", CANCEL)
    lines = await taken_out(old)
    assert len(lines) == 30 - 6 - 1 + 10  # three of the failed ones are live, and past
    assert await brought_in(new, lines) == ["added"] * len(lines)
    assert unordered(await taken_out(new)) == unordered(lines)
    assert unordered(await taken_out(new, "o2")) == unordered(await taken_out(old, "o2"))
    assert await brought_in(new, lines[::-1]) == ["kept"] * len(lines)
    assert unordered(await taken_out(new)) == unordered(lines)
    assert {lane.partition for lane in new.store.lanes if await new.store.head(lane) is not None} > {0}


@PROPERTY
@given(st.lists(lives(), max_size=8, unique_by=lambda one: one.task.name), st.lists(pasts(), max_size=4))
def test_whatever_a_task_is_it_is_the_same_in_another_number_of_partitions(
    server: Server, tmp_path_factory: pytest.TempPathFactory, live: list[Standing], past: list[Past]
) -> None:
    async def there_and_back() -> None:
        server.ask("FLUSHALL")
        directory = tmp_path_factory.mktemp("houses")
        async with house(server, 0, 1, directory) as old, house(server, 1, 4, directory) as new:
            await old.moving.keep([*past, *live])
            lines = await taken_out(old)
            await brought_in(new, lines)
            came = {one.task.name: one for one in map(read_line, await taken_out(new)) if isinstance(one, Standing)}
            over = {one.task.uid for one in past if one.task.status is not Status.FAILED}
            said = {one.task.name: one for one in live if one.task.uid not in over}
            # Since when a pending one waits is when it was last changed.
            pending = {name for name, one in said.items() if one.task.status is Status.PENDING}
            assert came == {
                name: replace(one, since=one.task.updated) if name in pending else one for name, one in said.items()
            }
            assert unordered(await taken_out(new)) == unordered(lines)

    asyncio.run(there_and_back())


async def test_a_running_task_goes_as_one_that_waits(old: House, new: House) -> None:
    await old.store.add(thought(due=LONG_AGO))
    [task] = (await old.store.claim(old.store.lanes[0], limit=1, lease=LEASE)).tasks
    await brought_in(new, await taken_out(old))
    there = await new.store.get("ana", "milk")
    assert there == replace(task, status=Status.PENDING, claim=0, holder="")
    await old.store.settle([completed(task)])  # it was performed here all the same
    assert LONG_AGO in [await new.store.head(lane) for lane in new.store.lanes]


async def test_whose_end_was_asked_for_ends_there(old: House, new: House) -> None:
    await old.store.add(thought(due=LONG_AGO))
    await old.store.claim(old.store.lanes[0], limit=1, lease=LEASE)
    await old.store.move("ana", "milk", Movement(states=frozenset({Status.RUNNING}), to=Status.CANCELLED))
    await brought_in(new, await taken_out(old))
    there = await new.store.get("ana", "milk")
    assert there is not None
    assert there.cancel


@pytest.mark.parametrize("together", [True, False])
async def test_what_was_over_before_the_export_ended_is_not_brought_back_to_life(
    old: House, new: House, together: bool
) -> None:
    await old.store.add(thought(due=LONG_AGO))
    walked = await old.moving.live(None, cursor=None, limit=100)
    [task] = (await old.store.claim(old.store.lanes[0], limit=1, lease=LEASE)).tasks
    await old.store.settle([completed(task)])
    rows, _ = await old.moving.past(None, cursor=None, limit=100)
    batches = [[*walked.found, *rows]] if together else [rows, walked.found]
    arrived = [one.arrival for batch in batches for one in await new.moving.keep(batch)]
    assert sorted(arrived) == [Arrival.ADDED, Arrival.FINISHED]
    assert await new.store.get("ana", "milk") is None


async def test_what_was_performed_here_since_stays_past(old: House, new: House) -> None:
    for task_id in ("done", "deleted", "failing", "again"):
        await old.store.add(thought(task_id, due=LONG_AGO))
    lines = await taken_out(old)
    await brought_in(new, lines)
    tasks = {}
    for lane in new.store.lanes:
        tasks |= {task.id: task for task in (await new.store.claim(lane, limit=9, lease=LEASE)).tasks}
    await new.store.settle([completed(tasks["done"]), failed(tasks["failing"]), completed(tasks["again"])])
    await new.store.settle([replace(completed(tasks["deleted"]), status=Status.CANCELLED)])
    await new.store.add(thought("again", due=FAR))
    assert sorted(await brought_in(new, lines)) == ["finished", "finished", "finished", "kept"]
    assert await new.store.get("ana", "done") is None
    again = await new.store.get("ana", "again")
    assert again is not None
    assert again.due == FAR


async def test_what_ends_just_while_it_is_imported_again_does_not_come_back(
    old: House, new: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await old.store.add(thought(due=LONG_AGO))
    lines = await taken_out(old)
    await brought_in(new, lines)
    [[task]] = [
        claim.tasks
        for claim in [await new.store.claim(lane, limit=1, lease=LEASE) for lane in new.store.lanes]
        if claim.tasks
    ]

    async def slow(names: Collection[tuple[str, str]]) -> Mapping[str, int]:
        over = await Archive.over(new.archive, names)
        await new.store.settle([completed(task)])
        return over

    monkeypatch.setattr(new.archive, "over", slow)
    other = Standing(task=thought("other", due=FAR), since=1)
    arrived = await new.moving.keep([*map(read_line, lines), other])
    assert [one.arrival for one in arrived] == [Arrival.KEPT, Arrival.ADDED]
    assert await new.store.get("ana", "milk") is None
    assert await brought_in(new, lines) == ["finished"]


async def test_another_task_of_that_id_stays(old: House, new: House) -> None:
    await old.store.add(thought(due=FAR))
    mine = thought(due=FAR, message="mine")
    await new.store.add(mine)
    [arrived] = await new.moving.keep([read_line(line) for line in await taken_out(old)])
    assert arrived.arrival is Arrival.REFUSED
    assert arrived.reason is not None
    assert arrived.reason.startswith("'milk' is another task here already, and it stays")
    assert await new.store.get("ana", "milk") == mine


async def test_a_task_whose_action_is_missing_here_is_kept_and_named(new: House) -> None:
    live = Standing(task=thought(due=FAR, action="bell"), since=1)
    [arrived] = await new.moving.keep([live])
    assert arrived == Arrived(arrival=Arrival.ADDED, warning="no action 'bell'; known: console, desktop, email, inbox")
    assert await new.moving.keep([live]) == [Arrived(arrival=Arrival.KEPT)]
    assert await new.store.get("ana", "milk") == live.task


async def test_what_was_unread_is_unread_and_what_was_read_is_read(old: House, new: House) -> None:
    for at in range(2):
        await old.store.add(thought(f"t{at}", due=LONG_AGO))
    claim = await old.store.claim(old.store.lanes[0], limit=9, lease=LEASE)
    await old.store.settle([completed(task) for task in claim.tasks])
    await old.writer.catch_up()
    [first, _] = await old.archive.unread("ana")
    await old.archive.mark_read("ana", [first.key])
    lines = await taken_out(old)
    await brought_in(new, lines)
    assert [row.task.id for row in await new.archive.unread("ana")] == ["t1"]
    await new.archive.mark_read("ana", [row.key for row in await new.archive.unread("ana")])
    assert await brought_in(new, lines) == ["kept"] * 2
    assert await new.archive.unread("ana") == []


async def test_where_the_archive_lags_behind_nothing_is_said_and_nothing_is_kept(
    new: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck() -> bool:
        return False

    monkeypatch.setattr(new.writer, "catch_up", stuck)
    for work in (
        new.moving.past(None, cursor=None, limit=1),
        new.moving.keep([Standing(task=thought(due=FAR), since=1)]),
    ):
        with pytest.raises(Unavailable, match="lags behind"):
            await work
    assert await new.store.get("ana", "milk") is None


async def test_a_store_that_fills_up_is_told_and_the_rest_comes_the_next_time(new: House, server: Server) -> None:
    lives = [Standing(task=thought(f"t{at}", due=FAR, message="x" * 50_000), since=1) for at in range(60)]
    used = int(str(server.ask("INFO", "memory")).partition("'used_memory': ")[2].split(",")[0])
    server.ask("CONFIG", "SET", "maxmemory", used + 1_000_000)
    try:
        with pytest.raises(Unavailable):
            await new.moving.keep(lives)
    finally:
        server.ask("CONFIG", "SET", "maxmemory", 0)
    results = {one.arrival for one in await new.moving.keep(lives)}
    assert results == {Arrival.ADDED, Arrival.KEPT}
    assert await new.store.live_of("ana") == 60


async def test_how_many_there_are(old: House) -> None:
    await old.store.add(thought(due=FAR))
    await old.store.add(thought(due=FAR, owner="bo"))
    await old.archive.insert([])
    assert [await old.moving.count(owner, "live") for owner in (None, "ana", "cy")] == [2, 1, 0]
    assert [await old.moving.count(owner, "past") for owner in (None, "ana")] == [0, 0]
