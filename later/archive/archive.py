"""The archive: keeps past tasks, and answers each owner about their own."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import structlog
from sqlalchemy import ColumnElement, Executable, Row, Select, func, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from later.archive import database, rows
from later.archive.rows import Past
from later.archive.schema import past
from later.core.errors import InvalidTask, Unavailable
from later.core.past import Transition
from later.core.task import PAST, Status

SHOWN_AT_A_TIME = 1000

Values: TypeAlias = list[dict[str, Any]] | None
Found: TypeAlias = Sequence[Row[Any]]

_INSERT = insert(past).on_conflict_do_nothing(index_elements=["partition", "key", "uid", "owner"])
_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")
_NEWEST_FIRST = (past.c.finished.desc(), past.c.number.desc())

log = structlog.get_logger()


class Archive:
    """Past tasks in one SQLite file. Every method raises Unavailable when the file cannot be used."""

    def __init__(self, path: Path, *, on_unread: Callable[[str, int], None] = lambda owner, count: None) -> None:
        """`on_unread` is told an owner and how many of their rows are unread, each time that may have changed."""
        self._path = path
        self._on_unread = on_unread
        self._engine = database.engine(path)
        self._turn = anyio.Lock()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Open the file, bringing it up to date; close it at the end."""
        try:
            await database.prepare(self._engine, self._path)
            yield
        finally:
            await database.whole(self._engine.dispose())

    async def insert(self, transitions: Sequence[Transition]) -> list[Transition]:
        """Keep these, all in one step; one that is kept already stays as it is.

        Returns those that are kept now. What is missing there is damaged in a way that no repetition mends; it is
        reported, and stays with the caller.
        """
        kept, packed = _pack(transitions)
        if packed:
            owners = {row["owner"] for row in packed if row["unread"]}
            await self._write(owners, _INSERT, packed)
        return kept

    async def restore(self, pasts: Sequence[Past]) -> list[bool]:
        """Keep these as they were elsewhere, all in one step; whether each is new here. Raises Unkeepable."""
        returning = _INSERT.returning(past.c.partition, past.c.key, past.c.uid, past.c.owner)
        owners = {one.task.owner for one in pasts}
        added = await self._write(owners, returning, [rows.pack(one) | {"unread": one.unread} for one in pasts])
        fresh = {tuple(row) for row in added}
        return [(one.partition, one.key, one.task.uid, one.task.owner) in fresh for one in pasts]

    async def latest(self, owner: str, task_id: str) -> Past | None:
        """The newest row of the owner's task of that id."""
        mine = (past.c.owner == owner, past.c.id == task_id)
        found = await self._read(select(past).where(*mine).order_by(*_NEWEST_FIRST).limit(1))
        return rows.unpack(found[0]) if found else None

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
        found = await self._read(query.order_by(*_NEWEST_FIRST).limit(limit + 1))
        page = found[:limit]
        following = f"{page[-1].finished}.{page[-1].number}" if len(found) > limit else None
        return [rows.unpack(row) for row in page], following

    async def walk(self, owner: str | None, *, cursor: str | None, limit: int) -> tuple[list[Past], str | None]:
        """Rows of the owner (None: of all) in the order in which they came, and where that goes on."""
        query = select(past).where(past.c.number > _number(cursor or "0"))
        if owner is not None:
            query = query.where(past.c.owner == owner)
        found = await self._read(query.order_by(past.c.number).limit(limit))
        return [rows.unpack(row) for row in found], str(found[-1].number) if len(found) == limit else None

    async def count(self, owner: str | None) -> int:
        """How many rows the owner has, or all owners."""
        query = select(func.count().label("rows")).select_from(past)
        [row] = await self._read(query if owner is None else query.where(past.c.owner == owner))
        return int(row.rows)

    async def over(self, names: Collection[tuple[str, str]]) -> Mapping[str, int]:
        """Of these tasks, by owner and id: uid → the last occurrence that was completed or cancelled."""
        query = select(past.c.uid, func.max(past.c.occurrence).label("last")).where(
            tuple_(past.c.owner, past.c.id).in_(names), past.c.status.in_([status.value for status in PAST])
        )
        return {row.uid: row.last for row in await self._read(query.group_by(past.c.uid))}

    async def unread(self, owner: str, *, limit: int = SHOWN_AT_A_TIME) -> list[Past]:
        """What is new in the owner's inbox, oldest first."""
        query = select(past).where(past.c.owner == owner, past.c.unread)
        found = await self._read(query.order_by(past.c.finished, past.c.number).limit(limit))
        return [rows.unpack(row) for row in found]

    async def count_unread(self, owner: str) -> int:
        """How much is new in the owner's inbox."""
        return _counts(await self._read(_unread_of([owner]))).get(owner, 0)

    async def unread_owners(self) -> Mapping[str, int]:
        """How much is new in which inbox; those with nothing new are left out."""
        return _counts(await self._read(_unread_of(None)))

    async def mark_read(self, owner: str, keys: Iterable[str]) -> None:
        """The owner has seen the rows of these keys (`Past.key`); all other rows stay as they are."""
        seen = func.json_each(json.dumps(list(keys))).table_valued("value")
        mine = (past.c.owner == owner, past.c.unread, past.c.key.in_(select(seen.c.value)))
        await self._write([owner], update(past).where(*mine).values(unread=False))

    async def _read(self, query: Select[Any]) -> Sequence[Row[Any]]:
        [found] = await database.whole(self._transaction(self._engine, (query, None)))
        return found

    async def _write(self, owners: Collection[str], statement: Executable, values: Values = None) -> Found:
        """One writer at a time, so that these owners' counts are told in the order in which they came about."""
        async with self._turn:
            return await database.whole(self._write_and_tell(owners, statement, values))

    async def _write_and_tell(self, owners: Collection[str], statement: Executable, values: Values) -> Found:
        writing = database.writing(self._engine)
        written, unread = await self._transaction(writing, (statement, values), (_unread_of(owners), None))
        counts = _counts(unread)
        for owner in owners:
            self._tell(owner, counts.get(owner, 0))
        return written

    async def _transaction(self, engine: AsyncEngine, *steps: tuple[Executable, Values]) -> list[Found]:
        """Execute these in one step; what each of them found."""
        try:
            async with engine.connect() as connection:
                try:
                    async with connection.begin():
                        results = [await connection.execute(statement, values) for statement, values in steps]
                        return [result.all() if result.returns_rows else [] for result in results]
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
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise _continues_nothing(cursor)
    finished, number = map(int, match.groups())
    return tuple_(past.c.finished, past.c.number) < tuple_(finished, number)


def _number(cursor: str) -> int:
    if re.fullmatch(r"[0-9]{1,18}", cursor) is None:
        raise _continues_nothing(cursor)
    return int(cursor)


def _continues_nothing(cursor: str) -> InvalidTask:
    return InvalidTask(f"{cursor[:80]!r} continues no list; take `next` of the page before")


def _unread_of(owners: Collection[str] | None) -> Select[Any]:
    """How many unread rows these owners, or all, have."""
    query = select(past.c.owner, func.count().label("unread")).where(past.c.unread).group_by(past.c.owner)
    return query if owners is None else query.where(past.c.owner.in_(owners))


def _counts(found: Iterable[Row[Any]]) -> dict[str, int]:
    return {row.owner: row.unread for row in found}
