"""What the archive keeps and answers, on a real SQLite file."""

import asyncio
import sqlite3
from dataclasses import replace
from itertools import pairwise

import anyio
import pytest

from later.archive.archive import Archive
from later.archive.rows import Past
from later.core.errors import InvalidTask
from later.core.past import Transition
from later.core.task import Failure, Status, Window

EVERY = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


def ids(found):
    return [one.task.id for one in found]


def as_transition(found):
    fields = ("partition", "key", "task", "at", "started", "receipt")
    return Transition(**{field: getattr(found, field) for field in fields})


async def everything(archive, owner, *, limit, statuses=EVERY):
    cursor, found = None, []
    while True:
        page, cursor = await archive.page(owner, statuses=statuses, cursor=cursor, limit=limit)
        found += page
        if cursor is None:
            return found


def rows_in(path):
    with sqlite3.connect(path) as connection:
        [(rows,)] = connection.execute("SELECT count(*) FROM past")
    connection.close()
    return rows


async def test_a_transition_comes_back_as_it_was(archive, make):
    whole = make(
        to="ana@example.org",
        payload={"content_type": "application/json", "json": {"n": [1, None, "ü"]}},
        options={"subject": "milk"},
        zone="Europe/Lisbon",
        rule="within 3d",
        window=Window(since=1, until=2),
        occurrence=7,
        version=3,
        attempts=2,
        crashes=1,
        failures=(Failure(at=5, reason="refused"), Failure(at=6, reason="still refused")),
        receipt={"detail": "kept in the inbox", "code": 250},
    )
    bare = make(to=None, due=None, nominal=None, started=None, status=Status.CANCELLED)
    assert await archive.insert([whole, bare]) == [whole, bare]
    assert as_transition(await archive.latest("ana", whole.task.id)) == whole
    assert as_transition(await archive.latest("ana", bare.task.id)) == bare


async def test_64_kib_of_emoji_come_back_byte_by_byte(archive, make):
    message = "🙈👩‍👩‍👧 \r\n\"'\\\u2028" * 4000
    message = message.encode()[: 64 * 1024].decode(errors="ignore")
    await archive.insert([make(id="emoji", message=message, options={"subject": message[:1000]})])
    found = await archive.latest("ana", "emoji")
    assert found.task.message.encode() == message.encode()
    assert found.task.options == {"subject": message[:1000]}


async def test_an_entry_that_is_read_twice_is_kept_once(archive, make, told, tmp_path):
    first, second = make(), make()
    await archive.insert([first])
    assert await archive.insert([first, second, first]) == [first, second, first]
    assert rows_in(tmp_path / "archive.db") == 2
    assert told == [("ana", 1), ("ana", 2)]


async def test_an_entry_read_again_after_it_was_shown_stays_read(archive, make, told):
    one = make()
    await archive.insert([one])
    await archive.mark_read("ana", [one.key])
    await archive.insert([one])
    assert await archive.unread("ana") == []
    assert told == [("ana", 1), ("ana", 0), ("ana", 0)]


async def test_a_key_that_another_server_gives_again_is_another_entry(archive, make, tmp_path):
    await archive.insert([make(key="5-0")])
    await archive.insert([make(key="5-0")])
    await archive.insert([make(key="5-0", partition=1)])
    assert rows_in(tmp_path / "archive.db") == 3


async def test_latest_is_the_newest_life_of_an_id(archive, make):
    await archive.insert([make(id="x", at=30), make(id="x", at=10), make(id="x", at=30, status=Status.FAILED)])
    found = await archive.latest("ana", "x")
    assert (found.at, found.task.status, found.unread) == (30, Status.FAILED, False)
    assert await archive.latest("ana", "y") is None


async def test_pages_are_newest_first_and_complete(archive, make):
    together = [make(at=1_000) for _ in range(5)]
    others = [make() for _ in range(6)]
    await archive.insert(together + others)
    found = await everything(archive, "ana", limit=4)
    assert ids(found) == ids(reversed(together + others))
    assert all(newer.at >= older.at for newer, older in pairwise(found))


async def test_a_page_says_whether_another_follows(archive, make):
    await archive.insert([make(), make()])
    assert (await archive.page("ana", statuses=EVERY, limit=2))[1] is None
    assert (await archive.page("ana", statuses=EVERY, limit=1))[1] is not None
    assert await archive.page("nobody", statuses=EVERY, limit=2) == ([], None)


async def test_paging_is_stable_while_rows_come_in(archive, make):
    old = [make() for _ in range(9)]
    await archive.insert(old)
    seen, cursor = await archive.page("ana", statuses=EVERY, limit=3)
    while cursor:
        await archive.insert([make(at=10_000), make(at=seen[-1].at)])
        page, cursor = await archive.page("ana", statuses=EVERY, cursor=cursor, limit=3)
        seen += page
    assert ids(seen) == ids(reversed(old))


async def test_pages_hold_only_the_statuses_asked_for(archive, make):
    await archive.insert([make(status=status) for status in (*EVERY, *EVERY)])
    found = await everything(archive, "ana", limit=1, statuses=[Status.FAILED, Status.CANCELLED])
    assert [one.task.status for one in found] == [Status.CANCELLED, Status.FAILED] * 2
    assert await archive.page("ana", statuses=[], limit=5) == ([], None)


@pytest.mark.parametrize("cursor", ["", "x", "1", "1.", "1.2.3", "1 OR 1", "-1.1", "٣.٣", "9" * 30 + ".1"])
async def test_a_cursor_that_no_page_gave_is_refused(archive, cursor):
    with pytest.raises(InvalidTask, match="continues no list; take `next` of the page before"):
        await archive.page("ana", statuses=EVERY, cursor=cursor, limit=1)


async def test_owners_do_not_see_each_other(archive, make):
    mine, theirs = make(id="x"), make(id="x", owner="bo")
    await archive.insert([mine, theirs])
    await archive.mark_read("bo", [mine.key])
    assert as_transition(await archive.latest("ana", "x")) == mine
    assert [as_transition(one) for one in await everything(archive, "ana", limit=5)] == [mine]
    assert [as_transition(one) for one in await archive.unread("ana")] == [mine]
    assert await archive.unread_owners() == {"ana": 1, "bo": 1}


async def test_unread_is_what_was_delivered_to_the_inbox_and_not_shown(archive, make, told):
    late, early = make(at=9_000), make(at=10)
    others = [make(action="email"), make(status=Status.FAILED), make(status=Status.CANCELLED)]
    await archive.insert([late, early, *others])
    assert ids(await archive.unread("ana")) == ids([early, late])
    assert ids(await archive.unread("ana", limit=1)) == ids([early])
    assert await archive.count_unread("ana") == 2
    await archive.mark_read("ana", [early.key, others[0].key, "no such key"])
    assert ids(await archive.unread("ana")) == ids([late])
    assert not (await archive.latest("ana", early.task.id)).unread
    await archive.mark_read("ana", [late.key])
    assert (await archive.count_unread("ana"), await archive.unread_owners()) == (0, {})
    assert told == [("ana", 2), ("ana", 1), ("ana", 0)]


async def test_many_keys_are_marked_in_one_step(archive, make, told):
    many = [make() for _ in range(1201)]
    await archive.insert(many)
    await archive.mark_read("ana", (one.key for one in many))
    assert told == [("ana", 1201), ("ana", 0)]


async def test_only_deliveries_to_an_inbox_are_announced(archive, make, told):
    await archive.insert([make(action="email"), make(owner="bo"), make(owner="bo"), make(owner="cy")])
    assert sorted(told) == [("bo", 2), ("cy", 1)]


async def test_the_last_count_told_is_the_true_one(archive, make, told):
    many = [make() for _ in range(40)]
    async with anyio.create_task_group() as group:
        for one in many:
            group.start_soon(archive.insert, [one])
            group.start_soon(archive.mark_read, "ana", [other.key for other in many[::2]])
    assert told[-1] == ("ana", await archive.count_unread("ana"))


async def test_a_marker_that_cannot_be_written_holds_nothing_up(tmp_path, make):
    def full(owner, count):
        raise OSError("no space left on device")

    archive = Archive(tmp_path / "archive.db", on_unread=full)
    async with archive.session():
        await archive.insert([make()])
        assert await archive.count_unread("ana") == 1


async def test_a_damaged_transition_takes_none_of_its_neighbours_with_it(archive, make):
    sound = [make(), make()]
    damaged = [
        make(message="\udce9"),
        make(payload={"text": "\ud800"}),
        make(receipt={"detail": object()}),
        make(started=2**63),
        make(started="soon"),
        make(uid=None),
    ]
    assert await archive.insert([sound[0], *damaged, sound[1]]) == sound
    assert ids(await everything(archive, "ana", limit=9)) == ids(reversed(sound))
    assert await archive.insert(damaged) == []


async def test_readers_do_not_wait_for_writers(archive, make, tmp_path):
    await archive.insert([make(id="x")])
    sql = sqlite3.connect(tmp_path / "archive.db", isolation_level=None)
    sql.execute("BEGIN IMMEDIATE")
    async with anyio.create_task_group() as writers:
        for _ in range(10):
            writers.start_soon(archive.insert, [make()])
        await anyio.sleep(0.05)
        async with asyncio.timeout(2):
            assert ids(await archive.unread("ana")) == ["x"]
        sql.close()
    assert await archive.count_unread("ana") == 11


async def test_no_owner_keeps_out_what_is_another_owners(archive, make):
    transition = make(owner="ana")
    of_ana = Past(**vars_of(transition), unread=True)
    forged = replace(of_ana, task=replace(of_ana.task, owner="eve"))
    assert await archive.restore([forged]) == [True]
    assert await archive.insert([transition]) == [transition]
    assert await archive.restore([forged, of_ana]) == [False, False]
    assert [await archive.count(owner) for owner in ("ana", "eve")] == [1, 1]


def vars_of(transition):
    fields = ("partition", "key", "task", "at", "started", "receipt")
    return {field: getattr(transition, field) for field in fields}
