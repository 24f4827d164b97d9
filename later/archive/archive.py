"""The archive: keeps past tasks, and answers each owner about their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import anyio
import structlog
from sqlalchemy import ColumnElement, func, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from later.archive import database, rows
from later.archive.rows import Past
from later.archive.schema import past
from later.core.errors import InvalidTask, Unavailable
from later.core.past import Transition
from later.core.task import Status

KEYS_AT_A_TIME = 500
SHOWN_AT_A_TIME = 1000

_INSERT = insert(past).on_conflict_do_nothing(index_elements=["partition", "key", "uid"])
_NEWEST_FIRST = (past.c.finished.desc(), past.c.number.desc())

log = structlog.get_logger()


class Archive:
    """Past tasks in one SQLite file. Every method raises Unavailable when the file cannot be used."""

    def __init__(self, path: Path, *, on_unread: Callable[[str, int], None] = lambda owner, count: None) -> None:
        """`on_unread` is told an owner and how many of their rows are unread, each time that may have changed."""
        self._path = path
        self._on_unread = on_unread
        self._engine = database.engine(path)
        self._writing_engine = database.writing(self._engine)
        self._turn = anyio.Lock()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Open the file, bringing it up to date; close it at the end."""
        try:
            await database.prepare(self._engine, self._path)
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self._engine.dispose()

    async def insert(self, transitions: Sequence[Transition]) -> list[Transition]:
        """Keep these, all in one step; one that is kept already stays as it is.

        Returns those that are kept now. What is missing there is damaged in a way that no repetition mends; it is
        reported, and stays with the caller.
        """
        kept, packed = _pack(transitions)
        owners = {row["owner"] for row in packed if row["unread"]}
        if packed:
            async with self._writing(owners) as connection:
                await connection.execute(_INSERT, packed)
        return kept

    async def latest(self, owner: str, task_id: str) -> Past | None:
        """The newest row of the owner's task of that id."""
        query = select(past).where(past.c.owner == owner, past.c.id == task_id).order_by(*_NEWEST_FIRST).limit(1)
        return next(iter(await self._read(query)), None)

    async def page(
        self, owner: str, *, statuses: Collection[Status], cursor: str | None = None, limit: int
    ) -> tuple[list[Past], str | None]:
        """The owner's rows of these statuses, newest first, and where the next page begins (None: that was all).

        A row that comes in meanwhile neither repeats nor hides one that was there. Raises InvalidTask for a cursor
        that no page gave.
        """
        query = select(past).where(past.c.owner == owner, past.c.status.in_([status.value for status in statuses]))
        if cursor is not None:
            query = query.where(_beyond(cursor))
        async with self._reading() as connection:
            found = (await connection.execute(query.order_by(*_NEWEST_FIRST).limit(limit + 1))).all()
        page = found[:limit]
        more = f"{page[-1].finished}.{page[-1].number}" if len(found) > limit else None
        return [rows.unpack(row) for row in page], more

    async def unread(self, owner: str, *, limit: int = SHOWN_AT_A_TIME) -> list[Past]:
        """What is new in the owner's inbox, oldest first."""
        query = select(past).where(past.c.owner == owner, past.c.unread)
        return await self._read(query.order_by(past.c.finished, past.c.number).limit(limit))

    async def count_unread(self, owner: str) -> int:
        """How much is new in the owner's inbox."""
        return (await self.unread_owners([owner])).get(owner, 0)

    async def unread_owners(self, owners: Collection[str] | None = None) -> Mapping[str, int]:
        """How much is new in which inbox, of these owners or of all; owners with nothing new are left out."""
        async with self._reading() as connection:
            return await _count_unread(connection, owners)

    async def mark_read(self, owner: str, keys: Iterable[str]) -> None:
        """The owner has seen the rows of these keys (`Past.key`); others of theirs, and of others, stay as they are."""
        each = iter(keys)
        async with self._writing([owner]) as connection:
            while some := list(islice(each, KEYS_AT_A_TIME)):
                seen = (past.c.owner == owner, past.c.unread, past.c.key.in_(some))
                await connection.execute(update(past).where(*seen).values(unread=False))

    async def _read(self, query: Any) -> list[Past]:
        async with self._reading() as connection:
            found = (await connection.execute(query)).all()
        return [rows.unpack(row) for row in found]

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        async with self._transaction(self._engine) as connection:
            yield connection

    @asynccontextmanager
    async def _writing(self, owners: Collection[str]) -> AsyncIterator[AsyncConnection]:
        """One writer at a time, so that these owners' counts are told in the order in which they came about."""
        async with self._turn:
            async with self._transaction(self._writing_engine) as connection:
                yield connection
                counts = await _count_unread(connection, owners) if owners else {}
            for owner in owners:
                self._tell(owner, counts.get(owner, 0))

    @asynccontextmanager
    async def _transaction(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """Never cut short: a cancelled one would leave its connection behind. SQLite's busy timeout bounds it."""
        with anyio.CancelScope(shield=True):
            try:
                async with engine.connect() as connection:
                    try:
                        async with connection.begin():
                            yield connection
                    except DBAPIError:
                        # Only a new connection notices that the file has become usable again.
                        await connection.invalidate()
                        raise
            except SQLAlchemyError as error:
                raise Unavailable(f"the archive {self._path} cannot be used: {database.reason(error)}") from error

    def _tell(self, owner: str, count: int) -> None:
        try:
            self._on_unread(owner, count)
        except OSError as error:
            log.warning("unread_not_announced", owner=owner, error=str(error))


def _pack(transitions: Iterable[Transition]) -> tuple[list[Transition], list[dict[str, Any]]]:
    kept, packed = [], []
    for transition in transitions:
        try:
            packed.append(rows.pack(transition))
            kept.append(transition)
        except rows.Unkeepable as damage:
            log.error("transition_refused", key=transition.key, task=transition.task.name, error=str(damage))
    return kept, packed


def _beyond(cursor: str) -> ColumnElement[bool]:
    finished, _, number = cursor.partition(".")
    try:
        return tuple_(past.c.finished, past.c.number) < tuple_(int(finished), int(number))
    except ValueError:
        raise InvalidTask(f"{cursor[:80]!r} continues no list; take `next` of the page before") from None


async def _count_unread(connection: AsyncConnection, owners: Collection[str] | None) -> dict[str, int]:
    query = select(past.c.owner, func.count()).where(past.c.unread).group_by(past.c.owner)
    if owners is not None:
        query = query.where(past.c.owner.in_(owners))
    return dict((await connection.execute(query)).tuples().all())
