"""The judge: from what is known outside of Later to counts. A sound Later has 0 in each.

The terms are those of transaction histories, as Jepsen's checkers use them: a call without an answer may have been
carried out, or not, or may still be.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.faults.case import SLACK_MS, Case
from tests.faults.events import NEVER, OK, REFUSED, UNKNOWN, Arrival, Call, History

EXPLAINS = {"daemon killed", "daemon restarted", "daemon paused", "connections stalled"}
"""Faults after which what a daemon performed may be performed again: it could not record it within its lease.

Whatever the server suffers explains nothing: leases outlive it.
"""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What must not be, by count, each case with what shows it; and how often which fault explains a repetition."""

    found: Mapping[str, Sequence[Any]]
    duplicates: Mapping[str, int]

    @property
    def counts(self) -> dict[str, int]:
        return {name: len(cases) for name, cases in self.found.items()}

    @property
    def clean(self) -> bool:
        return not any(self.found.values())


def judge(history: History) -> Verdict:
    """What the history proves."""
    case = Case(history)
    duplicates, same_claim, unexplained = _repetitions(case)
    found = {
        "lost": list(_lost(case)),
        "unfinished": list(_unfinished(case)),
        "early": [arrival for arrival in history.arrivals if _is_early(case, arrival)],
        "unexplained": unexplained,
        "same claim twice": same_claim,
        "stale": list(_stale(case)),
        "cancelled": list(_cancelled(case)),
        "resurrected": list(_resurrected(case)),
        "orphans": case.left.orphans,
        "history": list(_history(case)),
    }
    return Verdict(found=found, duplicates=duplicates)


def _lost(case: Case) -> Iterator[Call]:
    """Acknowledged, and no trace is left."""
    for delivery, call in case.acknowledged.items():
        if delivery not in case.arrivals and delivery not in case.rows and delivery not in case.left.live:
            yield call


def _unfinished(case: Case) -> Iterator[Call]:
    """Acknowledged, and with no end, though all is at rest. What has failed or was never scheduled rests."""
    for delivery, call in case.acknowledged.items():
        if case.ended(delivery, "completed", "cancelled") or case.left.live.get(delivery) in ("failed", "created"):
            continue
        if not (case.ended(delivery, "failed") and _replaced(case, call)):
            yield call


def _replaced(case: Case, call: Call) -> bool:
    """Whether a later add may have taken the place of a task that had failed."""
    later = [other for other in case.calls[call.task] if other.verb == "add" and other.answered > call.answered]
    return any(other.outcome == UNKNOWN or other.delivery != call.delivery for other in later)


def _is_early(case: Case, arrival: Arrival) -> bool:
    """Whether the server's clock cannot have shown any of the times at which it may have been due."""
    asked = [call for call in case.calls.get(arrival.task, ()) if call.invoked <= arrival.at]
    due = [_soonest(case, call) for call in _in_force(case, arrival, asked)]
    if not due:
        return bool(asked)  # it was held
    return case.time.latest(asked[0].invoked, arrival.at) < min(due) - 1


def _in_force(case: Case, arrival: Arrival, calls: Iterable[Call]) -> list[Call]:
    """The calls that may have said when it was due: those since the last that was surely answered before its claim."""
    found: list[Call] = []
    for call in calls:
        answered = call.outcome == OK and call.delivery == arrival.delivery
        if call.delay is None or not (answered or call.outcome == UNKNOWN):
            continue
        if answered and call.verb != "add" and case.claimed_after(arrival, call.answered):
            found.clear()
        found.append(call)
    return found


def _soonest(case: Case, call: Call) -> float:
    """The server's time before which the call cannot have let it start."""
    if call.nominal is not None and call.verb in ("add", "schedule"):
        return call.nominal
    carried_out_by = call.answered if call.outcome == OK else NEVER
    return case.time.earliest(call.invoked, carried_out_by) + (call.delay or 0)


def _repetitions(case: Case) -> tuple[Counter[str], list[Any], list[Any]]:
    """Deliveries that were taken more than once: by the fault that explains it, under one claim, without a reason."""
    duplicates: Counter[str] = Counter()
    same_claim, unexplained = [], []
    for arrivals in case.arrivals.values():
        ordered = sorted(arrivals, key=lambda one: (one.claim, one.at))
        same_claim += [(one, other) for one, other in pairwise(ordered) if one.claim == other.claim]
        for one, other in pairwise(one for one in ordered if one.answer == "taken"):
            if one.claim == other.claim:
                continue
            if (kind := _explanation(case, one, other)) is not None:
                duplicates[kind] += 1
            else:
                unexplained.append((one, other))
    return duplicates, same_claim, unexplained


def _explanation(case: Case, one: Arrival, other: Arrival) -> str | None:
    """The fault that kept the first one's daemon from recording it."""
    since, until = case.begun(one) - SLACK_MS, max(one.at, other.at)
    for fault in case.history.faults:
        if fault.kind in EXPLAINS and fault.target == one.daemon and fault.since <= until and fault.until >= since:
            return fault.kind
    return None


def _stale(case: Case) -> Iterator[Any]:
    """Completed under a claim although a later one had been made, or completed twice."""
    for delivery in case.rows:
        completed = case.ended(delivery, "completed")
        if len(completed) > 1:
            yield completed
        for row in completed[:1]:
            later = [one for one in case.arrivals.get(delivery, ()) if row.claim is not None and one.claim > row.claim]
            if later:
                yield row, later


def _cancelled(case: Case) -> Iterator[Any]:
    """Claimed and performed although its owner had been told before that it would not be any more."""
    for calls in case.calls.values():
        for call in calls:
            if call.verb == "delete" and call.outcome == OK:
                known = {one.delivery for one in calls if one.outcome == OK and one.answered < call.invoked}
                for arrival in (one for delivery in known - {None} for one in case.arrivals.get(str(delivery), ())):
                    if case.claimed_after(arrival, call.answered):
                        yield call, arrival


def _resurrected(case: Case) -> Iterator[Any]:
    """Performed although every call that could have asked for it was refused."""
    strangers: dict[str, set[str]] = defaultdict(set)
    for delivery, arrivals in case.arrivals.items():
        arrival = arrivals[0]
        calls = case.calls.get(arrival.task, [])
        if not any(call.verb == "add" and call.word == arrival.word and call.outcome != REFUSED for call in calls):
            yield arrival
        elif delivery not in case.acknowledged:
            strangers[arrival.task].add(delivery)
    for task, deliveries in strangers.items():
        if len(deliveries) > sum(call.outcome == UNKNOWN for call in case.calls[task]):
            yield task, deliveries


def _history(case: Case) -> Iterator[Any]:
    """Where the histories, the outbox, what was answered and what arrived do not agree."""
    if case.left.outbox:
        yield "left in the outbox", case.left.outbox
    for delivery in case.rows:
        yield from ((why, delivery) for why in _doubts(case, delivery))
    for delivery, arrivals in case.arrivals.items():
        if delivery not in case.rows and delivery not in case.left.live:
            yield "performed, and forgotten", arrivals[0]
    for delivery, status in case.left.live.items():
        if status == "failed" and not case.ended(delivery, "failed"):
            yield "failed, and not written down", delivery


def _doubts(case: Case, delivery: str) -> Iterator[str]:
    """What makes the rows of a delivery unbelievable."""
    calls = case.calls.get(next(iter(case.rows[delivery].values())).task, [])
    completed, cancelled = case.ended(delivery, "completed"), case.ended(delivery, "cancelled")
    if completed and not any(one.answer == "taken" for one in case.arrivals.get(delivery, ())):
        yield "completed, and never taken"
    if len(cancelled) > 1 or (cancelled and completed):
        yield "cancelled, and ended otherwise"
    if cancelled and not any(call.verb == "delete" and call.outcome != REFUSED for call in calls):
        yield "cancelled, and nobody asked for it"
    if delivery not in case.acknowledged and not any(call.outcome == UNKNOWN for call in calls):
        yield "nobody's"


def lateness(case: Case) -> Iterator[float]:
    """How many ms after its time what was added and never moved came, for the first time."""
    for delivery, arrivals in case.arrivals.items():
        call = case.acknowledged.get(delivery)
        if call is not None and call.nominal is not None and all(one.verb == "add" for one in case.calls[call.task]):
            yield min(arrival.at for arrival in arrivals) - case.time.reached(call.nominal, call.invoked)
