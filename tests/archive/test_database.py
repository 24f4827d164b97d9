"""The archive's file: kept over restarts, migrated by one at a time, and what happens when it fails."""

import asyncio
import sqlite3
import stat
import subprocess
import sys

import anyio
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from later.archive import database, rows
from later.archive.archive import Archive
from later.archive.schema import metadata, past
from later.core.errors import Unavailable
from later.core.task import Status

EVERY = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


def rows_in(path):
    with sqlite3.connect(path) as connection:
        [(rows,)] = connection.execute("SELECT count(*) FROM past")
    connection.close()
    return rows


async def test_a_restart_keeps_everything(archive, make, tmp_path):
    some = [make() for _ in range(3)]
    await archive.insert(some)
    await archive.mark_read("ana", [some[0].key])
    again = Archive(tmp_path / "archive.db")
    async with again.session():
        found, _ = await again.page("ana", statuses=EVERY, limit=9)
        assert [(one.key, one.unread) for one in found] == [
            (some[2].key, True),
            (some[1].key, True),
            (some[0].key, False),
        ]


async def test_what_was_inserted_survives_kill_9(tmp_path, make):
    program = """
import asyncio, os, signal, sys
from pathlib import Path
from later.archive.archive import Archive
from later.core.past import Transition
from later.core.task import Status, Task
async def main():
    archive = Archive(Path(sys.argv[1]))
    async with archive.session():
        task = Task(owner="ana", id="x", uid="u", queue="default", status=Status.COMPLETED, action="inbox")
        await archive.insert([Transition(partition=0, key="1-0", task=task, at=1)])
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    path = tmp_path / "archive.db"
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -9
    archive = Archive(path)
    async with archive.session():
        assert await archive.count_unread("ana") == 1


async def test_the_file_is_private_and_durable(archive, make, tmp_path):
    await archive.insert([make()])
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    async with archive._engine.connect() as connection:
        said = [
            (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        ]
    assert said == ["wal", 2, 5000, 1]


async def test_a_file_that_others_may_read_is_made_private(tmp_path):
    path = tmp_path / "100% mine" / "archive.db"
    path.parent.mkdir()
    path.touch(mode=0o644)
    async with Archive(path).session():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_migrations_lead_to_the_schema(archive, tmp_path):
    fresh = database.engine(tmp_path / "fresh.db")
    query = text("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%' AND sql NOT NULL ORDER BY name")
    async with fresh.begin() as connection:
        await connection.run_sync(metadata.create_all)
        meant = (await connection.execute(query)).all()
    async with archive._engine.begin() as connection:
        migrated = (await connection.execute(query)).all()
    await fresh.dispose()
    assert [tuple(row) for row in migrated] == [tuple(row) for row in meant]


async def test_an_archive_of_the_first_version_is_brought_up_to_date_with_all_its_rows(tmp_path, make):
    path = tmp_path / "archive.db"
    first = Config()
    first.set_main_option("script_location", str(database.MIGRATIONS))
    connections = database.engine(path)

    def upgrade(connection):
        first.attributes["connection"] = connection
        command.upgrade(first, "0001")

    async with database.writing(connections).begin() as connection:
        await connection.run_sync(upgrade)
        await connection.execute(past.insert(), [rows.pack(make()) for _ in range(50)])
        before = (await connection.execute(past.select())).all()
    await connections.dispose()
    archive = Archive(path)
    async with archive.session(), archive._engine.connect() as connection:
        assert (await connection.execute(past.select())).all() == before


async def test_opening_again_changes_nothing(tmp_path):
    path = tmp_path / "archive.db"
    async with Archive(path).session():
        pass
    before = path.read_bytes()
    async with Archive(path).session():
        pass
    assert path.read_bytes() == before


async def test_an_archive_can_be_opened_by_two_at_once(tmp_path, make):
    archives = [Archive(tmp_path / "archive.db") for _ in range(4)]
    batches = [[make() for _ in range(5)] for _ in archives]

    async def use(archive, batch):
        async with archive.session():
            await archive.insert(batch)

    async with anyio.create_task_group() as group:
        for archive, batch in zip(archives, batches, strict=True):
            group.start_soon(use, archive, batch)
    assert rows_in(tmp_path / "archive.db") == 20


async def test_two_processes_may_start_at_once(tmp_path):
    program = """
import asyncio, sys
from pathlib import Path
from later.archive.archive import Archive
async def main():
    async with Archive(Path(sys.argv[1])).session():
        pass
asyncio.run(main())
"""
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "archive.db")]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    said = [await asyncio.to_thread(one.communicate) for one in started]
    assert [(one.returncode, stderr) for one, (_, stderr) in zip(started, said, strict=True)] == [(0, b"")] * 3
    assert rows_in(tmp_path / "archive.db") == 0


async def test_who_waits_too_long_for_another_to_migrate_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "LOCK_S", 0.1)
    monkeypatch.setattr(database, "LOCK_TRIES", 2)
    async with database._alone(tmp_path / "archive.db"):
        with pytest.raises(Unavailable, match=r"another process has been bringing the archive .* up to date"):
            async with Archive(tmp_path / "archive.db").session():
                pass


async def test_an_archive_of_a_newer_version_is_left_alone(tmp_path, archive):
    path = tmp_path / "archive.db"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(Unavailable, match=r"was written by another version of Later .*; start that version or a newer"):
        async with Archive(path).session():
            pass


async def test_what_is_no_database_is_reported_and_left_alone(tmp_path):
    path = tmp_path / "archive.db"
    path.write_text("these are my notes, not a database\n" * 100)
    with pytest.raises(Unavailable, match=r"archive\.db cannot be opened: file is not a database"):
        async with Archive(path).session():
            pass
    assert path.read_text().startswith("these are my notes")


async def test_a_file_that_fails_is_reported_without_what_it_was_to_hold(archive, make, tmp_path):
    with sqlite3.connect(tmp_path / "archive.db") as connection:
        connection.execute("ALTER TABLE past RENAME TO away")
    with pytest.raises(Unavailable, match=r"archive\.db cannot be used: no such table: past") as refusal:
        await archive.insert([make(message="my secret")])
    assert "my secret" not in repr(refusal.value.__cause__)
    connection.execute("ALTER TABLE away RENAME TO past")
    connection.close()
    await archive.insert([make()])
    assert await archive.count_unread("ana") == 1


async def test_a_connection_that_has_failed_is_not_used_again(archive, make):
    async with archive._engine.connect() as connection:  # as one that was opened while the disk was read-only
        await connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(Unavailable, match="attempt to write a readonly database"):
        await archive.insert([make()])
    await archive.insert([make()])
    assert await archive.count_unread("ana") == 1


@pytest.mark.parametrize("way", ["scope", "task"])
async def test_cancelling_transactions_leaves_nothing_behind(archive, make, way):
    """The fixture `nothing_leaks` looks for tasks, connections and warnings."""
    batches = [[make() for _ in range(20)] for _ in range(30)]
    began = asyncio.get_running_loop().time()
    for at, batch in enumerate(batches):
        if way == "scope":
            with anyio.move_on_after(at * 0.0002):
                await archive.insert(batch)
                await archive.page("ana", statuses=EVERY, limit=3)
        else:
            attempt = asyncio.create_task(archive.insert(batch))
            await asyncio.sleep(at * 0.0002)
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
    await archive.insert([one for batch in batches for one in batch])
    assert await archive.count_unread("ana") == 600
    assert asyncio.get_running_loop().time() - began < database.BUSY_S  # … nor a lock


async def test_cancelling_a_start_leaves_nothing_behind(tmp_path):
    for at in range(12):
        with anyio.move_on_after(at * 0.002):
            async with Archive(tmp_path / f"{at}.db").session():
                await anyio.sleep(1)
    async with Archive(tmp_path / "11.db").session() as nothing:
        assert nothing is None
