"""Looks at names in the store, some at a time and each as of one moment, and mends what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from later.core.task import Millis, Status
from later.store import codec, keys
from later.store.calls import Calls
from later.store.fsck.findings import Findings
from later.store.fsck.judgement import NUMBERS, Change, Facts, Judgement, Known, judge, judge_entry
from later.store.keys import Lane, Layout, Named
from later.store.scripts import Script

NAMES_AT_A_TIME = 100
"""In one call of the script: keeps the server's longest stall at about a millisecond."""
TRIES = 3
"""How often a task that a daemon is just moving is looked at again before it is mended."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where names come from, as `examine.lua` takes it, and what a change calls that set."""

    wanted: str
    key: str
    slot: str
    said: str = ""


RECORDS = Origin("*", "", "")


def of_a_set(named: Named, key: str) -> Origin:
    """The members of this state set or list."""
    said = f" (in {named.kind}{named.name})"
    if named.kind in ("due:", "running:"):
        return Origin(f"={named.name}", key, "via", said)
    return Origin("", "", "user" if named.kind == "user:" else named.kind, said)


class Inspection:
    """All decisions about a name are made on what one call found, and carried out by one call if that still holds."""

    def __init__(self, calls: Calls, layout: Layout, now: Callable[[], Millis]) -> None:
        self._calls = calls
        self._layout = layout
        self._now = now
        self._script = Script("examine")

    async def look(self, partition: int, names: Sequence[str], origin: Origin, found: Findings, *, mend: bool) -> None:
        """Judge these names; count the records, note what is wrong, and mend it if wanted."""
        for begin in range(0, len(names), NAMES_AT_A_TIME):
            some = names[begin : begin + NAMES_AT_A_TIME]
            for tries in range(TRIES if mend else 1):
                some = await self._look(partition, some, origin, found, mend=mend, last=tries == TRIES - 1)
                if not some:
                    break

    async def quarantine(self, lane: Lane, name: str) -> None:
        """Put a running task aside that its holder cannot read."""
        running = Origin("*", keys.running(lane.partition, lane.queue), "via")
        changes: list[Change] = [("add", "quarantine", str(self._now())), ("remove", running.slot)]
        await self._ask(lane.partition, [name], running, [["", changes]])

    async def begin_counter(self, partition: int) -> None:
        """Let the next claim's number be counted from the server's time."""
        await self._ask(partition, [""], RECORDS, [["", [("raise", "0")]]])

    async def wrong_types(self, some: Collection[str]) -> list[str]:
        """Those of the keys that are there and not of their type."""
        types = await self._calls.figures([("TYPE", key) for key in some]) if some else []
        return [key for key, kind in zip(some, types, strict=True) if kind not in (keys.type_of(key), "none")]

    async def set_aside(self, key: str) -> bool:
        """Give the key a name under which it is in nobody's way, unless it is well by now; whether that was done."""
        named = keys.parse(key)
        partition = named.partition if named else 0
        root = keys.root(partition)
        rest = key.removeprefix(root).removeprefix("later:")
        aside = f"{root}{keys.ASIDE}{rest}:{self._now()}"
        changes: list[Change] = [("aside", keys.type_of(key) or "")]
        _, result = await self._ask(partition, [aside], Origin("*", key, ""), [["", changes]])
        return bool(result == "mended")

    async def _look(
        self, partition: int, names: Sequence[str], origin: Origin, found: Findings, *, mend: bool, last: bool
    ) -> list[str]:
        """One try; returns the names that a daemon has just moved on."""
        judged = await self._judge(partition, names, origin)
        ill = [(facts, judgement) for facts, judgement in judged if judgement.changes]
        mended = await self._mend(partition, ill, origin, found) if mend and ill else set()
        moving = set() if last or not mend else {facts.name for facts, _ in ill} - mended
        for facts, judgement in judged:
            if facts.name not in moving:
                _note(found, facts, judgement, origin, mended=facts.name in mended)
        return [name for name in names if name in moving]

    async def _judge(self, partition: int, names: Sequence[str], origin: Origin) -> list[tuple[Facts, Judgement]]:
        last, *answers = await self._ask(partition, names, origin)
        last_claim = int(last) if is_a_counter(last) else 0
        now = self._now()
        judged = []
        for name, answer in zip(names, answers, strict=True):
            if answer is None or (answer[0] == "no record" and origin is RECORDS):
                continue  # it is where it belongs, or has ended meanwhile
            facts = Facts.of(name, answer)
            known = Known(
                readable=_can_read(facts), here=self._is_here(name, partition), now=now, last_claim=last_claim
            )
            judged.append((facts, judge(facts, known) if origin is RECORDS else judge_entry(facts, known, origin.slot)))
        return judged

    async def _mend(
        self, partition: int, ill: Sequence[tuple[Facts, Judgement]], origin: Origin, found: Findings
    ) -> set[str]:
        """Returns the names of those that were still as they had been judged, and are well now."""
        places = {key for facts, judgement in ill for key in self._places(partition, facts, judgement)}
        for key in await self.wrong_types(places):
            found.note("type", key, mended=await self.set_aside(key))
        names = [facts.name for facts, _ in ill]
        mending = [[facts.fingerprint, judgement.in_order] for facts, judgement in ill]
        _, *results = await self._ask(partition, names, Origin("*", origin.key, ""), mending)
        return {name for name, result in zip(names, results, strict=True) if result == "mended"}

    async def _ask(
        self, partition: int, names: Sequence[str], origin: Origin, mending: Sequence[Any] | None = None
    ) -> list[Any]:
        answer: list[Any] = await self._calls.script(
            self._script,
            [keys.created(partition), keys.failed(partition), keys.quarantine(partition), keys.claims(partition)],
            [
                keys.root(partition),
                codec.MOST_FIELDS,
                codec.MOST_BYTES,
                origin.wanted,
                origin.key,
                "" if mending is None else json.dumps(mending),
                *names,
            ],
        )
        return answer

    def _is_here(self, name: str, partition: int) -> bool:
        """Whether this is the partition in which its owner's tasks are looked for."""
        return self._layout.partition(name.partition("/")[0]) == partition

    @staticmethod
    def _places(partition: int, facts: Facts, judgement: Judgement) -> Iterator[str]:
        """The keys into which the changes write."""
        owner = facts.name.partition("/")[0]
        queue = "" if isinstance(facts.record, str) else facts.record.get("queue", "")
        place = {
            "user": keys.user(partition, owner),
            "due": keys.due(partition, queue),
            "running": keys.running(partition, queue),
        }
        for verb, *words in judgement.changes:
            if verb == "raise":
                yield keys.claims(partition)
            elif verb == "add":
                yield place.get(words[0], f"{keys.root(partition)}{words[0]}")


def is_a_counter(text: str | None) -> bool:
    """Whether the claim counter may say so."""
    return text is not None and text.isdecimal() and int(text) < NUMBERS


def _can_read(facts: Facts) -> bool:
    """Whether a daemon could perform it."""
    owner, slash, task_id = facts.name.partition("/")
    if isinstance(facts.record, str) or not (owner and slash and task_id):
        return False
    try:
        codec.unpack(facts.name, facts.record, status=Status.PENDING, due=None)
    except codec.Unreadable:
        return False
    whose, _, _ = facts.record["queue"].rpartition("/")
    return whose in ("", owner)


def _note(found: Findings, facts: Facts, judgement: Judgement, origin: Origin, *, mended: bool) -> None:
    if origin is RECORDS:
        found.counts["records"] += 1
        found.counts[{"due": "pending"}.get(judgement.state, judgement.state)] += 1
        if judgement.state == "quarantined" and (mended or not judgement.damages):
            found.note("quarantined", facts.name)
    for damage in judgement.damages:
        found.note(damage, facts.name + origin.said, mended=mended)
