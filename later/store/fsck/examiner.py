"""Goes through everything the store holds, and looks whether each task is where it must be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

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
CURSOR_CHARACTERS = 50_000
"""Enough for a page of the longest owners' lists; a part that would need more goes on for longer."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a walk stands: the sets that are left of a page, at a part of the first, and where the next page begins.

    The sets are named, as a page that is asked for again has other keys when some have come or ended meanwhile. While
    some are left, the beginning of the walk stands for its end.
    """

    page: str
    part: str = "0"
    left: Sequence[str] = ()

    @classmethod
    def parse(cls, cursor: str) -> Place:
        """Raises Conflict."""
        page, *words = cursor.split("|")
        left = [unquote(word, errors="surrogateescape") for word in words[1:]]
        if not words or not is_a_place(words[0]) or not all(_is_set(keys.parse(key)) for key in left):
            raise Conflict("this is no place in the store; begin again")
        return cls(page, words[0], left)

    def __str__(self) -> str:
        left = [quote(key, safe=":{}/@+", errors="surrogateescape") for key in self.left]
        return "|".join((self.page, self.part, *left))


def _is_set(named: Named | None) -> bool:
    return named is not None and keys.TYPES.get(named.kind) == "zset"


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
        place: Place | None = Place(await self._walk.begin()) if cursor is None else Place.parse(cursor)
        while place is not None:
            if not place.left:
                place = await self._page(place, found, mend=mend)
            place = await self._sets(place, found, mend=mend, until=until)
            if self._clock.monotonic() >= until:
                break
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

    async def _page(self, place: Place, found: Findings, *, mend: bool) -> Place:
        """One page of keys: what they are, and the records among them; its sets are left."""
        page, following = await self._walk.page("later:*", cursor=place.page, looked_at=KEYS_AT_A_TIME)
        named = {key: one for key in page if (one := keys.parse(key)) and one.partition < self._layout.partitions}
        await self._strangers([key for key in page if key not in named], found, mend=mend)
        await self._keys({key: one for key, one in named.items() if one.kind != "task:"}, found, mend=mend)
        for partition in {one.partition for one in named.values()}:
            names = [one.name for one in named.values() if (one.kind, one.partition) == ("task:", partition)]
            await self._inspection.look(partition, names, RECORDS, found, mend=mend)
        sets = sorted((key for key, one in named.items() if _is_set(one)), key=len, reverse=True)
        return Place(following or f"{place.page.rpartition('.')[0]}.0", left=sets)

    async def _sets(self, place: Place, found: Findings, *, mend: bool, until: float) -> Place | None:
        """The members of the sets that are left, as far as time allows; None where that was the end of the walk."""
        await self._walk.check(place.page)
        wrong = await self._inspection.wrong_types(place.left)
        part, left = place.part, list(place.left)
        while left:
            named = keys.parse(left[0])
            if named is None or named.partition >= self._layout.partitions or left[0] in wrong:
                part = "0"
            else:
                part = await self._members(left[0], named, part, found, mend=mend)
            if part == "0":
                del left[0]
            if left and self._clock.monotonic() >= until:
                place = Place(place.page, part, left)
                if len(str(place)) <= CURSOR_CHARACTERS:
                    return place
        return None if place.page.endswith(".0") else Place(place.page)

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
