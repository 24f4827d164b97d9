"""The archive's SQLite file: private, durable, and brought up to date by one process at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from later.core.errors import Unavailable

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_S = 30.0
LOCK_TRIES = 600
BUSY_S = 5.0
PRAGMAS = (
    f"busy_timeout = {int(BUSY_S * 1000)}",
    "journal_mode = WAL",
    "synchronous = FULL",  # what is committed here is deleted from the outbox next
    "foreign_keys = ON",
)

Result = TypeVar("Result")


def engine(path: Path) -> AsyncEngine:
    """Connections to the file; nothing is opened yet."""
    connections = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        connect_args={"isolation_level": None},  # transactions begin where we say and not where sqlite3 guesses
        hide_parameters=True,  # errors are logged, messages are not
        pool_size=5,
        max_overflow=0,
        pool_timeout=BUSY_S,
    )
    event.listen(connections.sync_engine, "connect", _configure)
    event.listen(connections.sync_engine, "begin", _begin)
    return connections


def writing(connections: AsyncEngine) -> AsyncEngine:
    """The same connections, for transactions that write: they wait for their turn before they read anything."""
    return connections.execution_options(begin="BEGIN IMMEDIATE")


async def prepare(connections: AsyncEngine, path: Path) -> None:
    """Create the file or bring it up to date. Raises Unavailable."""
    try:
        _make_private(path)
        async with _alone(path):
            await whole(_migrate(connections))
    except (OSError, SQLAlchemyError) as error:
        raise Unavailable(f"the archive {path} cannot be opened: {reason(error)}") from error
    except CommandError as error:
        raise Unavailable(
            f"the archive {path} was written by another version of Later ({error}); start that version or a newer one"
        ) from error


async def whole(work: Coroutine[Any, Any, Result]) -> Result:
    """What the work comes to; who waits may be cancelled, but not before the work is done.

    A transaction cut short leaves its connection behind, and its locks with it, until the garbage is collected. So the
    work has a task of its own: a shielding scope would not keep out asyncio's own timeouts.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
        task.exception()  # or asyncio complains that nobody asked
        raise
    return task.result()


def reason(error: Exception) -> str:
    """What the database said, without the statement."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


async def _migrate(connections: AsyncEngine) -> None:
    async with writing(connections).begin() as connection:
        await connection.run_sync(_upgrade)


def _configure(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _make_private(path: Path) -> None:
    """SQLite gives its side files the mode of the file itself, so that has to be right before the first of them."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        path.chmod(0o600)


@asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[None]:
    """Let no other process migrate meanwhile."""
    lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        for _ in range(LOCK_TRIES):
            if _locked(lock):
                break
            await anyio.sleep(LOCK_S / LOCK_TRIES)
        else:
            raise Unavailable(
                f"another process has been bringing the archive {path} up to date for {LOCK_S:.0f} s; end it or wait"
            )
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
