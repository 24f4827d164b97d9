"""What is known outside of Later: what was asked, what arrived, which faults there were, what is left at the end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"
NEVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request of an owner, and what was answered. Times are this machine's, in ms.

    `word` is what the task's text begins with, so that what arrives can be told from what was refused. `delay` is how
    much later than the request the task may start at the soonest; None: as this call does not say when.
    """

    task: str
    verb: str
    invoked: float
    answered: float = NEVER
    outcome: str = UNKNOWN
    word: str = ""
    delay: float | None = None
    status: int | None = None
    delivery: str | None = None
    nominal: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A task's action, as the other side saw it: `taken`, or answered with `busy` or `refused`."""

    at: float
    word: str
    delivery: str
    claim: int
    daemon: str
    answer: str

    @property
    def task(self) -> str:
        return self.word.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What was done to whom, from when to when."""

    kind: str
    target: str
    since: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The server's clock shows this much more than ours from some moment between the two on."""

    since: float
    until: float
    offset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A row of some daemon's history; `claim` is what the receipt says."""

    task: str
    delivery: str
    status: str
    finished: str
    claim: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All of it. `keys` is what the server holds: hashes and sorted sets as mappings, a stream as its length."""

    calls: Sequence[Call] = ()
    arrivals: Sequence[Arrival] = ()
    faults: Sequence[Fault] = ()
    steps: Sequence[Step] = ()
    past: Sequence[Past] = ()
    keys: Mapping[str, Any] = field(default_factory=dict)


Event = TypeVar("Event", Call, Arrival, Fault)


class Journal(Generic[Event]):
    """Events of one kind, one JSON line each; several threads may write."""

    def __init__(self, home: Path, kind: type[Event]) -> None:
        self._kind = kind
        self._path = home / f"{kind.__name__.lower()}s"
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, event: Event) -> None:
        os.write(self._file, json.dumps(asdict(event)).encode() + b"\n")

    def read(self) -> list[Event]:
        return [self._kind(**json.loads(line)) for line in self._path.read_text().splitlines()]

    def close(self) -> None:
        os.close(self._file)


def now() -> float:
    """This machine's time in ms."""
    return time.time() * 1000
