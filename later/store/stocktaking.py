"""Goes through all live tasks, for those who take them elsewhere. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

from later.core.task import OWNER, Status
from later.store.base import Standing, Walked
from later.store.calls import Calls
from later.store.reader import Reader
from later.store.walk import Walk

CHUNK = 50
"""Records read in one transaction: no other caller waits long behind it."""


class Stocktaking:
    """Walks over the records, and reads each together with its state."""

    def __init__(self, calls: Calls, reader: Reader) -> None:
        self._calls = calls
        self._reader = reader
        self._walk = Walk(calls)

    async def page(self, owner: str | None, *, cursor: str | None, looked_at: int) -> Walked:
        """Tasks of the owner (None: of all) among the next so many keys."""
        pattern = f"later:{{*}}:task:{f'{owner}/' if owner else ''}*"
        found, following = await self._walk.page(pattern, cursor=cursor, looked_at=looked_at)
        where = {key.partition(":task:")[2]: key for key in found}  # a key may come twice
        standing: list[Standing] = []
        for of, group in groupby(sorted(where), key=_owner):
            ids = [name.partition("/")[2] for name in group]
            for begin in range(0, len(ids), CHUNK):
                standing += await self._read(of, ids[begin : begin + CHUNK])
        missing = where.keys() - {one.task.name for one in standing}
        return Walked(found=standing, unreadable=await self._still_there(missing, where), next=following)

    async def _read(self, owner: str, ids: Sequence[str]) -> list[Standing]:
        if not OWNER.fullmatch(owner):
            return []
        read = await self._reader.standing(owner, ids)
        # Without a time it cannot be pending: its record is in no state at all.
        return [one for one in read if one and not (one.task.status is Status.PENDING and one.task.due is None)]

    async def _still_there(self, names: Collection[str], where: Mapping[str, str]) -> list[str]:
        """What is gone since the walk came by has ended, and is past."""
        return [name for name in sorted(names) if await self._calls.command("EXISTS", where[name])]


def _owner(name: str) -> str:
    return name.partition("/")[0]
