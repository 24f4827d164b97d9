"""The outbox: a stream of final transitions, from the transaction that made them to whoever keeps them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby

import structlog

from later.core.errors import StoreFull
from later.core.past import Transition
from later.store import codec, keys
from later.store.calls import Calls

log = structlog.get_logger()


class RedisOutbox:
    """Reads and forgets the outboxes of all partitions."""

    def __init__(self, calls: Calls, partitions: int) -> None:
        self._calls = calls
        self._partitions = partitions
        self._written = asyncio.Event()

    def written(self) -> None:
        """Something was appended from here."""
        self._written.set()

    async def wait(self, seconds: float) -> None:
        """Sleep until something is appended from here, or the time is over: then others may have."""
        try:
            async with asyncio.timeout(seconds):
                await self._written.wait()
        except TimeoutError:
            return

    async def read(self, limit: int) -> Sequence[Transition]:
        """The oldest, at most this many of each partition; an entry that cannot be read goes to quarantine whole."""
        self._written.clear()
        found: list[Transition] = []
        for partition in range(self._partitions):
            entries = await self._calls.command("XRANGE", keys.outbox(partition), "-", "+", "COUNT", limit)
            for key, fields in entries:
                try:
                    found.append(codec.unpack_transition(partition, key, fields))
                except codec.Unreadable as damage:
                    log.error("outbox_entry_quarantined", key=key, error=str(damage))
                    await self._quarantine(partition, key, fields)
        return found

    async def _quarantine(self, partition: int, key: str, fields: dict[str, str]) -> None:
        found_at, _, _ = key.partition("-")
        entry = json.dumps({"outbox": key, **fields}, ensure_ascii=False)
        with suppress(StoreFull):  # it stays where it is, and those behind it go on
            await self._calls.command("ZADD", keys.quarantine(partition), found_at, entry)
            await self._calls.command("XDEL", keys.outbox(partition), key)

    async def forget(self, transitions: Sequence[Transition]) -> None:
        """Delete what is kept elsewhere."""
        ordered = sorted(transitions, key=lambda one: one.partition)
        for partition, group in groupby(ordered, key=lambda one: one.partition):
            await self._calls.command("XDEL", keys.outbox(partition), *(one.key for one in group))
