"""The names of all keys. Every key of a partition has its hash tag, so that a script never crosses a slot."""

from __future__ import annotations

import re
from binascii import crc_hqx
from dataclasses import dataclass

META = "later:meta"
REPLICAS = "later:replicas"
"""Channel: nobody listens; what is published there replicas have after all that was written before."""

TYPES = {
    "task:": "hash",
    "user:": "zset",
    "due:": "zset",
    "running:": "zset",
    "created": "zset",
    "failed": "zset",
    "quarantine": "zset",
    "claims": "string",
    "outbox": "stream",
}
"""What a partition's keys are; a word with a colon is followed by a name."""

ASIDE = "damaged:"
"""What `later fsck` has set aside: keys that are not what their names say."""

_OF_A_PARTITION = re.compile(r"later:\{(\d{1,9})\}:(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of due tasks: a queue, as keys name it, within a partition."""

    partition: int
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things are: how many partitions, and which queues are performed by daemons."""

    partitions: int
    own_queues: frozenset[str]

    def partition(self, owner: str) -> int:
        """The partition with all keys of this owner: crc16(owner) mod partitions (CRC-16/XMODEM, as Redis Cluster)."""
        return crc_hqx(owner.encode(errors="surrogateescape"), 0) % self.partitions

    def queue(self, owner: str, queue: str) -> str:
        """The queue as keys name it: one that clients pull from belongs to its owner."""
        return queue if queue in self.own_queues else f"{owner}/{queue}"

    @property
    def lanes(self) -> list[Lane]:
        """Every line of due tasks that daemons perform."""
        return [Lane(at, queue) for at in range(self.partitions) for queue in sorted(self.own_queues)]

    def lane(self, owner: str, queue: str) -> Lane:
        return Lane(self.partition(owner), self.queue(owner, queue))


@dataclass(frozen=True, slots=True)
class Named:
    """A key of a partition, taken apart: one of TYPES or ASIDE, and the name behind it."""

    partition: int
    kind: str
    name: str


def parse(key: str) -> Named | None:
    """What the key is, by its name; None where it is none of ours."""
    match = _OF_A_PARTITION.fullmatch(key)
    if match is None:
        return None
    word, colon, name = match[2].partition(":")
    kind = word + colon
    if (kind not in TYPES and kind != ASIDE) or (colon and not name and kind != "task:"):
        return None
    return Named(int(match[1]), kind, name)


def type_of(key: str) -> str | None:
    """The type that the key must have; None where any will do."""
    named = parse(key)
    return "hash" if key == META else TYPES.get(named.kind) if named else None


def root(partition: int) -> str:
    """What every key of the partition begins with; scripts build the keys of single tasks from it."""
    return f"later:{{{partition}}}:"


def task(partition: int, name: str) -> str:
    """HASH: the record of `<owner>/<id>`."""
    return f"{root(partition)}task:{name}"


def user(partition: int, owner: str) -> str:
    """ZSET: the per-user list, id → due ms (+inf: not scheduled)."""
    return f"{root(partition)}user:{owner}"


def created(partition: int) -> str:
    """ZSET: not scheduled, or paused; name → since when."""
    return f"{root(partition)}created"


def due(partition: int, queue: str) -> str:
    """ZSET: pending; name → due ms."""
    return f"{root(partition)}due:{queue}"


def running(partition: int, queue: str) -> str:
    """ZSET: claimed; name → lease end ms."""
    return f"{root(partition)}running:{queue}"


def failed(partition: int) -> str:
    """ZSET: dead letters; name → failed-at ms."""
    return f"{root(partition)}failed"


def quarantine(partition: int) -> str:
    """ZSET: names whose records cannot be read → found-at ms."""
    return f"{root(partition)}quarantine"


def claims(partition: int) -> str:
    """STRING: the last claim's number."""
    return f"{root(partition)}claims"


def outbox(partition: int) -> str:
    """STREAM: final transitions."""
    return f"{root(partition)}outbox"


def wake(partition: int) -> str:
    """Channel: the queue whose head has become sooner."""
    return f"{root(partition)}wake"
