"""Later with a fault put in on purpose: the same work under the same nemesis must show each of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import anyio

from tests.faults.campaign import Plan, run
from tests.faults.workload import Style
from tests.mutation import Change, copied

SECONDS = 60.0
ROUND_S = 6.0
REST_S = 30.0

MANY = Style(rate=40.0, ahead=2)
LONG = Style(rate=25.0, ahead=2, longest=3.0, mix=(0.3, 0.2, 0.5))


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """What is wrong with it, the faults that bring it to light, and the count that must see it."""

    changes: Sequence[Change]
    faults: Sequence[str]
    seen_by: Sequence[str]
    style: Style = MANY


CLAIM, SETTLE, EXTEND, ADD = (f"store/lua/{name}.lua" for name in ("claim", "settle", "extend", "add"))
NOT_RUNNING = Change(SETTLE, "if not redis.call('ZSCORE', running, name) then return 'already' end", "")

MUTANTS = {
    "a claim removes the task at once": Mutant(
        changes=[
            Change(CLAIM, "redis.call('ZADD', running, now + lease, name)", ""),
            Change(EXTEND, " and redis.call('ZSCORE', running, name)", ""),
            NOT_RUNNING,
        ],
        faults=["daemon killed"],
        seen_by=["unfinished", "orphans"],
    ),
    "the fence is not checked": Mutant(
        changes=[Change(SETTLE, "if is.claim ~= number then return 'stale' end", "")],
        faults=["connections stalled", "daemon paused"],
        seen_by=["stale"],
        style=LONG,
    ),
    "completion is four commands": Mutant(
        changes=[
            Change(SETTLE, "    redis.call('DEL', record)\n    redis.pcall('ZREM', user, id)\n", ""),
            Change(SETTLE, "if status ~= '' then", "if status == 'failed' then"),
            Change(
                "store/redis.py",
                "        self.outbox.written()\n        return results\n",
                "        for one, result in zip(settlements, results):\n"
                "            if one.due is None and one.status != 'failed' and result == 'done':\n"
                "                at = self._layout.partition(one.task.owner)\n"
                "                words = ['name', one.task.name, 'status', one.status, 'at', self.now(), 'entry',\n"
                "                         codec.pack_entry(one), *codec.pack(one.task, lane=one.task.queue)]\n"
                "                await self._calls.command('DEL', keys.task(at, one.task.name))\n"
                "                await self._calls.command('ZREM', keys.user(at, one.task.owner), one.task.id)\n"
                "                await self._calls.command('XADD', keys.outbox(at), '*', *words)\n"
                "        self.outbox.written()\n        return results\n",
            ),
        ],
        faults=["daemon killed", "connections reset", "replies cut"],
        seen_by=["orphans", "history", "unfinished"],
    ),
    "a claim removes before it adds": Mutant(
        changes=[
            Change(
                CLAIM,
                "for i = 1, #ready, 2 do\n",
                "for i = 1, #ready, 2 do redis.call('ZREM', due, ready[i]) end\nfor i = 1, #ready, 2 do\n",
            ),
            Change(CLAIM, "  redis.call('ZREM', due, name)\n", ""),
            Change(CLAIM, "redis.pcall('HLEN', record)", "redis.call('HLEN', record)"),
        ],
        faults=["stray records", "server paused"],
        seen_by=["unfinished", "orphans"],
    ),
    "the daemon's clock decides": Mutant(
        changes=[
            Change(CLAIM, "local time = redis.call('TIME')\n", "local time = {ARGV[7], 0}\n"),
            Change("store/holding.py", "codec.MOST_BYTES],", "codec.MOST_BYTES, int(__import__('time').time())],"),
        ],
        faults=["scripts flushed"],
        seen_by=["early"],
    ),
    "recovery does not hold": Mutant(
        changes=[
            Change("daemon/leases.py", "every or min(self._store", "True or min(self._store"),
            Change("store/lua/recover.lua", "math.min(now, bound), math", "now, math"),
        ],
        faults=["clock stepped", "server paused"],
        seen_by=["unexplained"],
        style=LONG,
    ),
    "the outbox is written after the transaction": Mutant(
        changes=[
            Change(SETTLE, "redis.call('XADD', outbox, '*', 'name', name,", "local _ = ({"),
            Change(SETTLE, "'entry', entry, unpack(fields))", "'entry', entry, unpack(fields)})"),
            Change(
                "store/redis.py",
                "        self.outbox.written()\n        return results\n",
                "        for one, result in zip(settlements, results):\n"
                "            if one.status is not None and result == 'done':\n"
                "                at = self._layout.partition(one.task.owner)\n"
                "                words = ['name', one.task.name, 'status', one.status, 'at', self.now(), 'entry',\n"
                "                         codec.pack_entry(one), *codec.pack(one.task, lane=one.task.queue)]\n"
                "                await self._calls.command('XADD', keys.outbox(at), '*', *words)\n"
                "        self.outbox.written()\n        return results\n",
            ),
        ],
        faults=["replies cut", "connections reset", "daemon killed"],
        seen_by=["history", "unfinished"],
    ),
    "an id is added twice": Mutant(
        changes=[Change(ADD, "if redis.call('EXISTS', record) == 1 then", "if false then")],
        faults=["replies cut"],
        seen_by=["lost", "unfinished"],
    ),
    "a refused add changes the task": Mutant(
        changes=[
            Change(
                ADD,
                "    answer = kept[3] and",
                "    redis.call('HSET', record, 'spec', given.spec)\n    answer = kept[3] and",
            )
        ],
        faults=["scripts flushed"],
        seen_by=["resurrected"],
    ),
    "a lease that was lost is revived": Mutant(
        changes=[
            Change(EXTEND, "if held[1] == number and redis.call('ZSCORE', running, name) then", "if true then"),
            Change(EXTEND, "'XX', ", ""),
        ],
        faults=["daemon paused", "connections stalled"],
        seen_by=["orphans", "unfinished"],
        style=LONG,
    ),
    "a wish to end it is forgotten by the next attempt": Mutant(
        changes=[
            Change("core/lifecycle.py", "    if task.cancel:\n        return Withdrawn()\n", ""),
            Change(EXTEND, "held[2] and 'cancel' or 'kept'", "'kept'"),
            Change(SETTLE, "if is.cancel and status ~= 'completed' then", "if false then"),
        ],
        faults=["daemon killed", "scripts flushed"],
        seen_by=["cancelled"],
        style=LONG,
    ),
    "a daemon adopts what it performs already": Mutant(
        changes=[
            Change("daemon/manager.py", " if (task.name, task.claim) not in known])", "])"),
            Change(
                "daemon/pool.py",
                "        if key not in self._attempts:\n            attempt",
                "        if True:\n            attempt",
            ),
            Change("daemon/pool.py", "del self._attempts[key]", "self._attempts.pop(key, None)"),
        ],
        faults=["replies cut"],
        seen_by=["same claim twice"],
        style=LONG,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What the judge has seen of a mutant, and after how many seconds."""

    name: str
    counts: dict[str, int]
    seconds: float

    @property
    def expected(self) -> bool:
        return any(self.counts.get(name) for name in MUTANTS[self.name].seen_by)

    def __str__(self) -> str:
        seen = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        return f"{self.name:<51}{seen or 'NOT SEEN'} after {self.seconds:.0f} s"


def hunt_all(seed: int, at_a_time: int = 2) -> Iterator[Sighting]:
    """Every mutant, in the order of the table."""
    with ProcessPoolExecutor(at_a_time, mp_context=get_context("spawn")) as pool:
        yield from pool.map(hunt, MUTANTS, repeat(seed))


def hunt(name: str, seed: int) -> Sighting:
    """Run the mutant until a count shows it, or its time is over."""
    mutant = MUTANTS[name]
    with built(mutant) as build:
        plan = Plan(
            seed=seed,
            seconds=SECONDS,
            round_s=ROUND_S,
            rest_s=REST_S,
            build=build,
            kinds=mutant.faults,
            every_s=0.7,
            style=mutant.style,
            first=True,
        )
        report = anyio.run(run, plan)
    counts = {name: count for name, count in report.verdict.counts.items() if count}
    return Sighting(name=name, counts=counts, seconds=report.seconds)


@contextmanager
def built(mutant: Mutant) -> Iterator[Path]:
    """Its package, at a place of its own; removed at the end."""
    place = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    try:
        yield copied(place, *mutant.changes)
    finally:
        shutil.rmtree(place)
