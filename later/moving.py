"""Moving house: every task as it stands, live and past, out of one Later and into another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from later.actions.registry import Registry
from later.archive.archive import Archive
from later.archive.rows import Past
from later.archive.writer import Writer
from later.core.errors import InvalidTask, Unavailable
from later.core.task import LIVE, Status, Task
from later.store.base import Restored, Standing, Store, Walked


class Arrival(StrEnum):
    """What has become of a task that was to be kept here."""

    ADDED = "added"
    KEPT = "kept"  # it is here already, and stays as it is
    FINISHED = "finished"  # it was performed or cancelled here since
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What has become of it, why it was refused, and why it could not be performed here as things stand."""

    arrival: Arrival
    reason: str | None = None
    warning: str | None = None


class Moving:
    """Takes tasks of one owner (None: of all) out, and keeps tasks as they were.

    First all live ones are taken out, then the past ones: a task that ends meanwhile is among the one or the other.
    They are kept in the opposite order, so that what is over is known before it could come back to life. Both may be
    repeated: nothing comes twice.
    """

    def __init__(self, *, store: Store, archive: Archive, writer: Writer, actions: Registry) -> None:
        self._store = store
        self._archive = archive
        self._writer = writer
        self._actions = actions

    async def live(self, owner: str | None, *, cursor: str | None, limit: int) -> Walked:
        """Live tasks as another Later would begin with them; next to the cursor, `limit` keys are looked at.

        Raises Conflict for a cursor that has become void.
        """
        walked = await self._store.walk(owner, cursor=cursor, looked_at=limit)
        return replace(walked, found=[_at_rest(standing) for standing in walked.found])

    async def past(self, owner: str | None, *, cursor: str | None, limit: int) -> tuple[list[Past], str | None]:
        """Past tasks in the order in which they ended, and where that goes on (None: that was all)."""
        await self._catch_up()
        return await self._archive.walk(owner, cursor=cursor, limit=limit)

    async def count(self, owner: str | None, part: Literal["live", "past"]) -> int:
        """About how many there are."""
        if part == "past":
            return await self._archive.count(owner)
        if owner is not None:
            return await self._store.live_of(owner)
        counts = await self._store.counts()
        return sum(counts[status] for status in LIVE)

    async def keep(self, ones: Sequence[Standing | Past]) -> list[Arrived]:
        """Keep these as they were, the past ones first. Raises StoreFull, Unavailable: then some may have been kept."""
        pasts = iter(await self._keep_past([one for one in ones if isinstance(one, Past)]))
        lives = iter(await self._keep_live([one for one in ones if isinstance(one, Standing)]))
        return [next(pasts) if isinstance(one, Past) else next(lives) for one in ones]

    async def _keep_past(self, pasts: Sequence[Past]) -> list[Arrived]:
        added = await self._archive.restore(pasts) if pasts else []
        return [Arrived(arrival=Arrival.ADDED if new else Arrival.KEPT) for new in added]

    async def _keep_live(self, lives: Sequence[Standing]) -> list[Arrived]:
        # First what is live here, then what is past: one that ends in between is not brought back to life.
        here = await self._store.uids([live.task.name for live in lives])
        new = [live for live, uid in zip(lives, here, strict=True) if uid != live.task.uid]
        over = await self._over([live.task for live in new])
        restored = iter(await self._store.restore([live for live in new if live.task.delivery_id not in over]))
        arrived = []
        for live, uid in zip(lives, here, strict=True):
            if uid == live.task.uid:
                arrived.append(Arrived(arrival=Arrival.KEPT))
            elif live.task.delivery_id in over:
                arrived.append(Arrived(arrival=Arrival.FINISHED))
            else:
                arrived.append(self._arrived(live, next(restored)))
        return arrived

    async def _over(self, tasks: Sequence[Task]) -> set[str]:
        """The delivery ids of those that were performed or cancelled by now."""
        if not tasks:
            return set()
        await self._catch_up()
        last = await self._archive.over({(task.owner, task.id) for task in tasks})
        return {task.delivery_id for task in tasks if task.occurrence <= last.get(task.uid, 0)}

    def _arrived(self, live: Standing, restored: Restored) -> Arrived:
        match restored:
            case Restored.KEPT:
                return Arrived(arrival=Arrival.KEPT)
            case Restored.TAKEN:
                reason = f"{live.task.id!r} is another task here already, and it stays"
                return Arrived(arrival=Arrival.REFUSED, reason=reason)
        try:
            self._actions.check(live.task)
        except InvalidTask as doubt:
            return Arrived(arrival=Arrival.ADDED, warning=doubt.message)
        return Arrived(arrival=Arrival.ADDED)

    async def _catch_up(self) -> None:
        if not await self._writer.catch_up():
            raise Unavailable("what is past cannot be told yet, as the archive lags behind; try again in a moment")


def _at_rest(standing: Standing) -> Standing:
    """One that is running would be performed again where it goes: at least once, and under another claim."""
    task = standing.task
    status = Status.PENDING if task.status is Status.RUNNING else task.status
    return replace(standing, task=replace(task, status=status, claim=0, holder="", lease_until=None))
