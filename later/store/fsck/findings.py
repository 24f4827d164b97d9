"""What an examination has counted and found, added up by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

NAMES_SHOWN = 5
NAME_CHARACTERS = 120

DAMAGES = {
    "stray": "in no state, so never performed",
    "twice": "in more than one state",
    "unlisted": "not in the list of the owner",
    "list": "at another time in the list of the owner",
    "score": "at no moment, or under a lease without end",
    "claim": "claimed under a number that the counter does not know of",
    "unreadable": "not readable, and not in quarantine",
    "readable": "in quarantine, and readable after all",
    "entry": "in a set without a record",
    "misplaced": "in the set of another queue",
    "type": "a key that is not of its type",
    "counter": "a claim counter that is no number",
    "unknown": "a key that Later does not know",
    "elsewhere": "in a partition where nobody looks for it: LATER_PARTITIONS was another number",
}
ADVICE = {
    "quarantined": "in quarantine: not readable, and not performed; `later delete ID` removes it, by its owner",
    "outbox": "an unreadable word on a task's end, kept in quarantine",
    "aside": "a key that was set aside; delete it when you have looked at it",
    "unperformed": "a queue with tasks that no daemon here performs; add it to LATER_QUEUES",
}


@dataclass(slots=True)
class _Found:
    count: int = 0
    mended: int = 0
    names: list[str] = field(default_factory=list)


class Findings:
    """Collects; `damages` are to be mended, `advice` is for people."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._found: dict[str, _Found] = {}

    def note(self, kind: str, name: str, *, mended: bool = False) -> None:
        """One more of DAMAGES or ADVICE."""
        found = self._found.setdefault(kind, _Found())
        found.count += 1
        found.mended += mended
        if len(found.names) < NAMES_SHOWN:
            found.names.append(_printable(name))

    @property
    def damages(self) -> list[Mapping[str, Any]]:
        return list(self._of(DAMAGES))

    @property
    def advice(self) -> list[Mapping[str, Any]]:
        return list(self._of(ADVICE))

    def _of(self, kinds: Mapping[str, str]) -> Iterable[Mapping[str, Any]]:
        for kind, says in kinds.items():
            if (found := self._found.get(kind)) is not None:
                yield {
                    "kind": kind,
                    "says": says,
                    "count": found.count,
                    "mended": found.mended,
                    "names": found.names,
                }


def _printable(name: str) -> str:
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text if len(text) <= NAME_CHARACTERS else f"{text[:NAME_CHARACTERS]}…"
