"""What a person reads at the end: one line a count, how late what was performed was, and the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.faults.case import Case
from tests.faults.checker import Verdict, lateness
from tests.faults.events import History

EDGES_MS = (10, 50, 100, 500, 1_000, 2_000, 5_000, 10_000, 30_000)
MEANING = {
    "lost": "acknowledged, and no trace is left",
    "unfinished": "acknowledged, and without an end",
    "early": "performed before it was due",
    "unexplained": "performed again, and no fault explains it",
    "same claim twice": "performed twice under one claim",
    "stale": "completed by who had lost the lease",
    "cancelled": "performed after the owner had been told that it is cancelled",
    "resurrected": "performed although it had been refused",
    "orphans": "in no state or in several, or a key that nobody needs",
    "history": "histories, outbox, answers and arrivals disagree",
}
STALE = ("task_settlement_stale", "task_settlement_gone", "task_lease_lost")


@dataclass(frozen=True, kw_only=True)
class Report:
    """A run, judged. `told` is what the daemons' logs say, by event; `exits` those that ended by themselves."""

    history: History
    verdict: Verdict
    told: Mapping[str, int]
    exits: int
    seconds: float

    def __str__(self) -> str:
        return "\n".join([*self._counts(), "", *self._lateness(), "", *self._figures()])

    def _counts(self) -> Iterator[str]:
        for name, count in self.verdict.counts.items():
            yield f"{name:<18}{count:>7}  {MEANING[name]}"

    def _lateness(self) -> Iterator[str]:
        late = sorted(lateness(Case(self.history)))
        yield "late by at most"
        before = 0
        for edge in (*EDGES_MS, float("inf")):
            count = sum(one <= edge for one in late)
            name = f"{edge / 1000:g} s" if edge < float("inf") else "more"
            yield f"{name:>16}  {count - before:>7}  {'▪' * round(50 * (count - before) / max(1, len(late)))}"
            before = count

    def _figures(self) -> Iterator[str]:
        calls = Counter(call.outcome for call in self.history.calls)
        faults = Counter(fault.kind for fault in self.history.faults)
        yield f"seconds            {self.seconds:.0f}"
        yield f"calls              {_said(calls)}"
        yield f"tasks acknowledged {len(Case(self.history).acknowledged)}"
        yield f"arrivals           {_said(Counter(arrival.answer for arrival in self.history.arrivals))}"
        yield f"duplicates         {_said(self.verdict.duplicates)}"
        yield f"faults             {_said(faults)}"
        yield f"leases recovered   {self.told.get('leases_recovered', 0)}"
        yield f"stale refused      {sum(self.told.get(event, 0) for event in STALE)}"
        yield f"daemons ended      {self.exits} by themselves"


def _said(counts: Mapping[str, int]) -> str:
    each = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return f"{sum(counts.values())} ({each})" if counts else "0"
