"""One run: rounds of work under faults, each with a rest in which all must come to its end; then the judge."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from tests.faults.checker import judge
from tests.faults.cluster import Cluster, cluster
from tests.faults.events import Arrival, Call, Fault, History, Journal
from tests.faults.nemesis import KINDS, Nemesis
from tests.faults.report import Report
from tests.faults.sinks import sinks
from tests.faults.workload import Style, Workload


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run: how long, in rounds of how many seconds, on how many daemons of which build, and what happens.

    `first`: end after the first round with a count that is not 0. `rest_s`: how long a round may take to come to rest.
    """

    seed: int
    seconds: float
    round_s: float = 60.0
    rest_s: float = 60.0
    daemons: int = 3
    build: Path | None = None
    kinds: Sequence[str] = KINDS
    every_s: float = 1.0
    style: Style = field(default_factory=Style)
    first: bool = False


class Journals:
    """What is noted while it happens."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.calls = Journal(home, Call)
        self.arrivals = Journal(home, Arrival)
        self.faults = Journal(home, Fault)

    def close(self) -> None:
        for journal in (self.calls, self.arrivals, self.faults):
            journal.close()


async def run(plan: Plan) -> Report:
    """Carry it out and judge it."""
    began = time.monotonic()
    with _journals() as journals, sinks(journals.home, journals.arrivals) as both:
        async with cluster(both, daemons=plan.daemons, build=plan.build) as houses:
            chance = random.Random(plan.seed)
            nemesis = Nemesis(houses, journals.faults, chance, kinds=plan.kinds, every_s=plan.every_s)
            async with _workload(plan, houses, journals) as workload:
                while True:
                    left = plan.seconds - (time.monotonic() - began)
                    await _round(nemesis, workload, min(plan.round_s, max(1.0, left)))
                    await houses.at_rest(plan.rest_s)
                    report = await _judged(houses, journals, began)
                    if left <= plan.round_s or (plan.first and not report.verdict.clean):
                        return report


@asynccontextmanager
async def _workload(plan: Plan, houses: Cluster, journals: Journals) -> AsyncIterator[Workload]:
    workload = Workload([one.socket for one in houses.daemons], journals.calls, plan.style, seed=plan.seed)
    try:
        yield workload
    finally:
        with anyio.CancelScope(shield=True):
            await workload.close()


async def _round(nemesis: Nemesis, workload: Workload, seconds: float) -> None:
    async with anyio.create_task_group() as both:
        both.start_soon(workload.run, seconds)
        both.start_soon(nemesis.rage, seconds)


async def _judged(houses: Cluster, journals: Journals, began: float) -> Report:
    past = await houses.past()  # first, as asking for it empties the outbox
    history = History(
        calls=journals.calls.read(),
        arrivals=journals.arrivals.read(),
        faults=journals.faults.read(),
        steps=houses.steps,
        past=past,
        keys=await houses.keys(),
    )
    return Report(
        history=history,
        verdict=judge(history),
        told=houses.told(),
        exits=sum(len(one.exits) for one in houses.daemons),
        seconds=time.monotonic() - began,
    )


@contextmanager
def _journals() -> Iterator[Journals]:
    home = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    journals = Journals(home)
    try:
        yield journals
    finally:
        journals.close()
        shutil.rmtree(home)
