"""The way from the outbox into the archive; the outbox is a list, the archive a real file."""

import asyncio
import resource
import sqlite3
from random import Random

import anyio
import pytest
import structlog

from later.archive import writer as writing
from later.archive.archive import Archive
from later.archive.writer import Writer
from later.core.errors import StoreUnavailable


async def never(limit):
    await anyio.sleep_forever()


class ListOutbox:
    """An outbox in memory, which counts what is asked of it and can be told to fail."""

    def __init__(self):
        self.entries = []
        self.reads = self.waits = 0
        self.down = False
        self._written = asyncio.Event()

    def write(self, *transitions):
        self.entries += transitions
        self._written.set()

    async def read(self, limit):
        self.reads += 1
        self._written.clear()
        await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailable
        return self.entries[:limit]

    async def forget(self, transitions):
        await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailable
        self.entries = [one for one in self.entries if one not in transitions]

    async def wait(self, seconds):
        self.waits += 1
        try:
            async with asyncio.timeout(seconds):
                await self._written.wait()
        except TimeoutError:
            return


@pytest.fixture
async def outbox():
    return ListOutbox()


@pytest.fixture
async def writer(outbox, archive):
    return Writer(outbox, archive, Random(7))


@pytest.fixture
def events():
    with structlog.testing.capture_logs() as written:
        yield written


def levels(events):
    return [(one["log_level"], one["event"]) for one in events if one["log_level"] != "debug"]


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def running(writer):
    """`run` in a task group that is cancelled at the end."""

    class Running:
        async def __aenter__(self):
            self.group = anyio.create_task_group()
            await self.group.__aenter__()
            await self.group.start(writer.run)

        async def __aexit__(self, *error):
            self.group.cancel_scope.cancel()
            await self.group.__aexit__(*error)

    return Running()


async def test_what_is_in_the_outbox_comes_into_the_archive_and_is_forgotten(writer, outbox, archive, make):
    outbox.write(*(make() for _ in range(1203)))
    async with running(writer):
        await until(lambda: not outbox.entries)
        outbox.write(make())
        await until(lambda: not outbox.entries)
    assert await archive.count_unread("ana") == 1204


async def test_an_idle_writer_asks_for_nothing(writer, outbox, make):
    outbox.write(make())
    async with running(writer):
        await until(lambda: outbox.waits)
        asked = outbox.reads
        await asyncio.sleep(0.2)
        assert (outbox.reads, outbox.waits) == (asked, 1)


async def test_it_looks_again_when_the_wait_is_over(writer, outbox, make, monkeypatch):
    monkeypatch.setattr(writing, "RECHECK_S", 0.02)
    async with running(writer):
        await until(lambda: outbox.waits)
        outbox.entries.append(make())  # by another daemon: nobody here hears of it
        await until(lambda: not outbox.entries)


async def test_a_store_that_is_away_is_waited_for(writer, outbox, make, events, monkeypatch):
    monkeypatch.setattr(writing, "PATIENCE", writing.RetryPolicy(attempts=0, within=0, base=1, cap=20))
    outbox.down = True
    outbox.write(make())
    async with running(writer):
        await until(lambda: outbox.reads > 5)
        outbox.down = False
        await until(lambda: not outbox.entries)
    assert levels(events) == []  # the store itself says that it is lost and back


async def test_what_is_kept_but_not_forgotten_is_not_kept_twice(writer, outbox, archive, make):
    outbox.write(make(), make())

    async def forget(transitions):
        del outbox.forget
        raise StoreUnavailable

    outbox.forget = forget
    async with running(writer):
        await until(lambda: not outbox.entries)
    assert await archive.count_unread("ana") == 2
    assert outbox.reads == 3  # the second found them again, the third nothing


async def test_an_archive_that_fails_loses_nothing_and_says_so_once(writer, outbox, archive, make, events, tmp_path):
    sql = sqlite3.connect(tmp_path / "archive.db", isolation_level=None, check_same_thread=False)
    sql.execute("CREATE TRIGGER broken BEFORE INSERT ON past BEGIN SELECT RAISE(FAIL, 'disk I/O error'); END")
    some = [make() for _ in range(3)]
    outbox.write(*some)
    async with running(writer):
        await until(lambda: outbox.reads > 3)
        assert outbox.entries == some
        await asyncio.to_thread(sql.execute, "DROP TRIGGER broken")
        await until(lambda: not outbox.entries)
    sql.close()
    assert levels(events) == [("error", "archive_stuck"), ("info", "archive_back")]
    assert events[0]["error"] == f"the archive {tmp_path / 'archive.db'} cannot be used: disk I/O error"
    assert await archive.count_unread("ana") == 3


async def test_a_full_disk_loses_nothing(writer, outbox, archive, make, events):
    some = [make(message="x" * 60_000) for _ in range(20)]
    outbox.write(*some)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        async with running(writer):
            await until(lambda: outbox.reads > 2)
            assert outbox.entries == some
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            await until(lambda: not outbox.entries)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert levels(events) == [("error", "archive_stuck"), ("info", "archive_back")]
    assert await archive.count_unread("ana") == 20


async def test_a_locked_archive_is_waited_for(writer, outbox, make, tmp_path):
    outbox.write(make())
    sql = sqlite3.connect(tmp_path / "archive.db", isolation_level=None)
    sql.execute("BEGIN IMMEDIATE")
    async with running(writer):
        await asyncio.sleep(0.2)
        assert len(outbox.entries) == 1
        sql.execute("ROLLBACK")
        await until(lambda: not outbox.entries)
    sql.close()


async def test_a_damaged_transition_stays_in_the_outbox_and_is_reported_once(writer, outbox, archive, make, events):
    damaged = make(message="\udce9")
    outbox.write(make(), damaged, make())
    async with running(writer):
        await until(lambda: outbox.waits)
        outbox.write(make())
        await until(lambda: outbox.entries == [damaged])
        assert await writer.catch_up()
    assert await archive.count_unread("ana") == 3
    assert levels(events) == [("error", "transition_refused")]


async def test_catching_up_moves_all_that_was_there(writer, outbox, archive, make):
    outbox.write(*(make() for _ in range(1100)))
    assert await writer.catch_up()
    assert outbox.entries == []
    assert await archive.count_unread("ana") == 1100


async def test_catching_up_beside_the_loop_keeps_nothing_twice(writer, outbox, archive, make):
    async with running(writer), anyio.create_task_group() as readers:

        async def finish_and_look():
            one = make()
            outbox.write(one)
            assert await writer.catch_up()
            assert await archive.latest("ana", one.task.id) is not None

        for _ in range(50):
            readers.start_soon(finish_and_look)
    assert (outbox.entries, await archive.count_unread("ana")) == ([], 50)


async def test_readers_who_come_together_share_one_look(writer, outbox):
    async with anyio.create_task_group() as readers:
        for _ in range(50):
            readers.start_soon(writer.catch_up)
    assert outbox.reads <= 2


async def test_catching_up_ends_although_more_keeps_coming(writer, outbox, make):
    read = outbox.read

    async def read_and_write(limit):
        outbox.write(make())
        return await read(limit)

    outbox.read = read_and_write
    assert await writer.catch_up()


async def test_catching_up_says_when_it_cannot(writer, outbox, make, monkeypatch):
    outbox.write(make())
    outbox.down = True
    assert not await writer.catch_up()
    outbox.down = False

    monkeypatch.setattr(writing, "CATCH_UP_S", 0.05)
    outbox.read, read = never, outbox.read
    assert not await writer.catch_up()
    outbox.read = read
    assert await writer.catch_up()


async def test_a_cancelled_writer_leaves_nothing_behind_and_nothing_out(outbox, archive, make):
    """The fixture `nothing_leaks` looks for tasks, connections and warnings."""
    for at in range(40):
        outbox.write(*(make() for _ in range(20)))
        with anyio.move_on_after(at * 0.0003):
            await Writer(outbox, archive, Random(at)).run()
    assert await Writer(outbox, archive, Random(1)).catch_up()
    assert outbox.entries == []
    assert await archive.count_unread("ana") == 800


async def test_a_restarted_daemon_goes_on_where_the_other_ended(outbox, make, tmp_path):
    some = [make() for _ in range(10)]
    outbox.write(*some)
    first = Archive(tmp_path / "archive.db")
    async with first.session():
        await first.insert(some[:4])  # … and was killed before it could forget them
    second = Archive(tmp_path / "archive.db")
    async with second.session():
        assert await Writer(outbox, second, Random(1)).catch_up()
        assert await second.count_unread("ana") == 10
