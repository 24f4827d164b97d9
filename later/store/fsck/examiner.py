"""Goes through everything the store holds, and looks whether each task is where it must be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog

from later.clock import Clock
from later.core.errors import Conflict
from later.store import keys
from later.store.base import Examined
from later.store.calls import Calls
from later.store.fsck.findings import Findings
from later.store.fsck.inspection import RECORDS, Inspection, is_a_counter, of_a_set
from later.store.keys import Layout, Named
from later.store.walk import Walk, is_a_place

KEYS_AT_A_TIME = 500
MEMBERS_AT_A_TIME = 300
WORK_S = 0.7

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a walk stands: at the page of keys that begins there; within it, at a part of one of its sets."""

    page: str
    part: str = "0"
    key: str = ""

    @classmethod
    def parse(cls, cursor: str) -> Place:
        """Raises Conflict."""
        words = cursor.split("|", 2)
        if len(words) != 3 or not is_a_place(words[1]):
            raise Conflict("this is no place in the store; begin again")
        return cls(*words)

    def __str__(self) -> str:
        return f"{self.page}|{self.part}|{self.key}"


class Examiner:
    """Needs no quiet store: what one task is judged by is read in one step, and mended only where it still holds."""

    def __init__(self, calls: Calls, layout: Layout, inspection: Inspection, clock: Clock) -> None:
        self._calls = calls
        self._layout = layout
        self._inspection = inspection
        self._clock = clock
        self._walk = Walk(calls)

    async def examine(self, cursor: str | None, *, mend: bool) -> Examined:
        """As much as WORK_S allows; raises Conflict where the server has been started anew since the cursor."""
        until = self._clock.monotonic() + WORK_S
        found = Findings()
        first = Place.parse(cursor) if cursor is not None else Place(await self._walk.begin())
        place = await self._page(first, found, mend=mend, until=until)
        while place is not None and self._clock.monotonic() < until:
            place = await self._page(place, found, mend=mend, until=until)
        mended = {damage["kind"]: damage["mended"] for damage in found.damages if damage["mended"]}
        if mended:
            log.warning("store_mended", **mended)
        return Examined(
            counts=dict(found.counts),
            damages=found.damages,
            advice=found.advice,
            keys=await self._calls.command("DBSIZE"),
            next=None if place is None else str(place),
        )

    async def _page(self, place: Place, found: Findings, *, mend: bool, until: float) -> Place | None:
        """One page of keys: what they are, the records among them, and the members of the sets among them."""
        page, following = await self._walk.page("later:*", cursor=place.page, looked_at=KEYS_AT_A_TIME)
        named = {key: one for key in page if (one := keys.parse(key)) and one.partition < self._layout.partitions}
        sets = {key: one for key, one in named.items() if keys.TYPES.get(one.kind) == "zset"}
        if not place.key:
            await self._strangers([key for key in page if key not in named], found, mend=mend)
            await self._keys({key: one for key, one in named.items() if one.kind != "task:"}, found, mend=mend)
            for partition in {one.partition for one in named.values()}:
                names = [one.name for one in named.values() if (one.kind, one.partition) == ("task:", partition)]
                await self._inspection.look(partition, names, RECORDS, found, mend=mend)
        wrong = await self._inspection.wrong_types(sets)
        left = [key for key in sorted(sets) if key >= place.key and key not in wrong]
        part = place.part if left and left[0] == place.key else "0"
        while left:
            part = await self._members(left[0], sets[left[0]], part, found, mend=mend)
            if part == "0":
                del left[0]
            if left and self._clock.monotonic() >= until:
                return Place(place.page, part, left[0])
        return None if following is None else Place(following)

    async def _strangers(self, some: Iterable[str], found: Findings, *, mend: bool) -> None:
        """Keys that are of no partition here."""
        for key in some:
            if key == keys.META:
                await self._meta(found, mend=mend)
            elif keys.parse(key) is None:
                found.note("unknown", key, mended=mend and await self._inspection.set_aside(key))
            else:
                found.note("elsewhere", key)  # whose tasks may be in it

    async def _meta(self, found: Findings, *, mend: bool) -> None:
        if await self._inspection.wrong_types([keys.META]):
            mended = mend and await self._inspection.set_aside(keys.META)
            if mended:
                await self._calls.command("HSETNX", keys.META, "partitions", self._layout.partitions)
            found.note("type", keys.META, mended=mended)

    async def _keys(self, named: Mapping[str, Named], found: Findings, *, mend: bool) -> None:
        """A partition's own keys, each by itself."""
        wrong = await self._inspection.wrong_types([key for key, one in named.items() if one.kind != keys.ASIDE])
        for key in wrong:
            found.note("type", key, mended=mend and await self._inspection.set_aside(key))
        for key, one in named.items():
            if one.kind == keys.ASIDE:
                found.note("aside", key)
            elif key in wrong:
                continue
            elif one.kind == "claims":
                await self._counter(key, one.partition, found, mend=mend)
            elif one.kind == "user:":
                found.counts["owners"] += 1
            elif one.kind in ("due:", "running:") and "/" not in one.name and one.name not in self._layout.own_queues:
                found.note("unperformed", f"{one.name} ({await self._calls.command('ZCARD', key)})")

    async def _counter(self, key: str, partition: int, found: Findings, *, mend: bool) -> None:
        if not is_a_counter(await self._calls.command("GET", key)):
            if mend:
                await self._inspection.begin_counter(partition)
            found.note("counter", key, mended=mend)

    async def _members(self, key: str, one: Named, part: str, found: Findings, *, mend: bool) -> str:
        """Some members of a set; returns the part at which it goes on (0: that was all)."""
        following, entries = await self._calls.command("ZSCAN", key, part, "COUNT", MEMBERS_AT_A_TIME)
        names = [f"{one.name}/{member}" if one.kind == "user:" else member for member, _ in entries]
        if one.kind == "quarantine":
            words = [name for name in names if name.startswith("{")]  # of the outbox; no owner is called that
            names = [name for name in names if name not in set(words)]
            for word in words:
                found.note("outbox", word)
        await self._inspection.look(one.partition, names, of_a_set(one, key), found, mend=mend)
        return str(following)
