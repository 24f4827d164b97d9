"""The judge under test: each kind of violation is seen, and what a sound Later may do is not called one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.case import Case
from tests.faults.checker import judge, lateness
from tests.faults.events import NEVER, OK, REFUSED, UNKNOWN, Arrival, Call, Fault, History, Past, Step
from tests.faults.mutants import MUTANTS, built
from tests.faults.report import Report

SECOND = 1_000.0


def call(verb: str = "add", at: float = 1, *, answered: float | None = None, **said: Any) -> Call:
    """One request about task `t`, answered 10 ms later; times are in seconds here."""
    known: dict[str, Any] = {"task": "t", "outcome": OK, "delivery": "u.1"}
    if verb == "add":
        known |= {"word": "t.0", "delay": 9 * SECOND, "nominal": 10 * SECOND, "status": 201}
    if verb == "delete":
        known |= {"delivery": None, "status": 204}
    end = at + 0.01 if answered is None else answered
    return Call(verb=verb, invoked=at * SECOND, answered=end * SECOND, **{**known, **said})


def arrival(at: float = 10, *, claimed: float | None = None, **said: Any) -> Arrival:
    """What came of task `t`, claimed at that time unless another is said."""
    known: dict[str, Any] = {"word": "t.0", "delivery": "u.1", "daemon": "d0", "answer": "taken"}
    claim = round((at if claimed is None else claimed) * 1e6)
    return Arrival(at=at * SECOND, claim=claim, **{**known, **said})


def row(status: str = "completed", *, claimed: float | None = 10, **said: Any) -> Past:
    known = {"task": "t", "delivery": "u.1", "finished": "later"}
    return Past(status=status, claim=None if claimed is None else round(claimed * 1e6), **{**known, **said})


def fault(kind: str, since: float, until: float, target: str = "d0") -> Fault:
    return Fault(kind=kind, target=target, since=since * SECOND, until=until * SECOND)


def record(**said: str) -> dict[str, Any]:
    """What the server holds while task `t` is in the state that is said by its key: its place, and its record."""
    return {"later:{0}:task:ana/t": {"uid": "u", **said}, "later:{0}:user:ana": {"t": 1.0}}


SOUND = History(calls=[call()], arrivals=[arrival()], past=[row()])


def seen(history: History) -> set[str]:
    return {name for name, count in judge(history).counts.items() if count}


def but(**changed: Sequence[Any] | dict[str, Any]) -> History:
    return replace(SOUND, **changed)


FAILED = {**record(), "later:{0}:failed": {"ana/t": 1.0}}
TWICE = [arrival(10), arrival(13, daemon="d1")]
STEPPED_BACK = [Step(since=20 * SECOND, until=20 * SECOND, offset=-60 * SECOND)]

INNOCENT = {
    "what is performed once and in time": SOUND,
    "a refusal, tried again": but(arrivals=[arrival(10, answer="busy"), arrival(11)], past=[row(claimed=11)]),
    "one that has failed and rests": but(
        arrivals=[arrival(answer="refused")], past=[row("failed", claimed=None)], keys=FAILED
    ),
    "one that was cancelled in time": but(
        calls=[call(), call("delete", 5)], arrivals=[], past=[row("cancelled", claimed=None)]
    ),
    "one whose owner does not know whether it is kept": but(calls=[call(outcome=UNKNOWN, delivery=None)]),
    "one that was brought forward": but(
        calls=[call(), call("execute", 4, delay=0.0)], arrivals=[arrival(4.1)], past=[row(claimed=4.1)]
    ),
    "one that nobody knows to be brought forward": but(
        calls=[call(), call("execute", 4, delay=0.0, outcome=UNKNOWN, answered=NEVER)],
        arrivals=[arrival(7)],
        past=[row(claimed=7)],
    ),
    "a repetition after a kill": but(arrivals=TWICE, past=[row(claimed=13)], faults=[fault("daemon killed", 10.2, 11)]),
    "a repetition after a pause that began before": but(
        arrivals=[arrival(12, claimed=10), arrival(11.5, daemon="d1")],
        past=[row(claimed=11.5)],
        faults=[fault("daemon paused", 10.1, 11.9)],
    ),
    "a row that two daemons have kept": but(past=[row(), row()]),
    "what was claimed before it was cancelled": but(
        calls=[call(), call("delete", 13)],
        arrivals=[arrival(13.5, claimed=10)],
        past=[row("cancelled", claimed=None)],
    ),
    "a claim numbered by what the clock had shown before it stepped back": but(
        calls=[call(), call("delete", 21)],
        arrivals=[arrival(21.5, claimed=20.0001)],
        past=[row("cancelled", claimed=None)],
        steps=STEPPED_BACK,
    ),
    "what is late by our clock and not by the server's": but(
        calls=[call(nominal=65 * SECOND)],
        arrivals=[arrival(10, claimed=70)],
        past=[row(claimed=70)],
        steps=[Step(since=9 * SECOND, until=9 * SECOND, offset=60 * SECOND)],
    ),
    "one that was added by a daemon that had not heard of a step": but(
        calls=[call(at=6.5, outcome=UNKNOWN, status=503, delivery=None, nominal=None)],
        arrivals=[arrival(7, claimed=67)],
        past=[row(claimed=67)],
        steps=[Step(since=6 * SECOND, until=6 * SECOND, offset=60 * SECOND)],
    ),
    "somebody else's strings": but(
        keys={"later:{0}:task:stray/1": "what", "later:{0}:quarantine": {"stray/1": 1.0}, "later:{0}:outbox": 0}
    ),
}

GUILTY = {
    "no trace of what was acknowledged": (but(arrivals=[], past=[]), {"lost", "unfinished"}),
    "no end of what was performed": (but(past=[]), {"unfinished", "history"}),
    "still pending": (
        but(arrivals=[], past=[], keys={**record(), "later:{0}:due:default": {"ana/t": 1.0}}),
        {"unfinished"},
    ),
    "before its time": (but(arrivals=[arrival(9.9)], past=[row(claimed=9.9)]), {"early"}),
    "before the time it was put off to": (
        but(calls=[call(), call("schedule", 5, delay=20 * SECOND, nominal=25 * SECOND)]),
        {"early"},
    ),
    "while it was held": (but(calls=[call(delay=None, nominal=None)]), {"early"}),
    "a repetition for no reason": (but(arrivals=TWICE, past=[row(claimed=13)]), {"unexplained"}),
    "a repetition after somebody else was killed": (
        but(arrivals=TWICE, past=[row(claimed=13)], faults=[fault("daemon killed", 10.2, 11, "d2")]),
        {"unexplained"},
    ),
    "a repetition after the server was away, which leases outlive": (
        but(arrivals=TWICE, past=[row(claimed=13)], faults=[fault("server paused", 10.2, 12.5, "server")]),
        {"unexplained"},
    ),
    "a repetition after a kill that was long before": (
        but(arrivals=TWICE, past=[row(claimed=13)], faults=[fault("daemon killed", 1, 2)]),
        {"unexplained"},
    ),
    "one claim, performed twice": (but(arrivals=[arrival(10), arrival(12, claimed=10)]), {"same claim twice"}),
    "completed by who had lost it": (
        but(arrivals=TWICE, past=[row(claimed=10)], faults=[fault("daemon paused", 10.2, 14)]),
        {"stale"},
    ),
    "completed twice": (but(past=[row(), row(finished="still later")]), {"stale"}),
    "claimed after it was cancelled": (
        but(calls=[call(), call("delete", 5)], past=[row("cancelled", claimed=None)]),
        {"cancelled"},
    ),
    "claimed again after its end was promised": (
        but(
            calls=[call(), call("delete", 11, status=202)],
            arrivals=TWICE,
            past=[row(claimed=13)],
            faults=[fault("daemon killed", 11.2, 12)],
        ),
        {"cancelled"},
    ),
    "refused, and performed": (
        but(calls=[call(), call(at=2, word="t.1", outcome=REFUSED, delivery=None)], arrivals=[arrival(word="t.1")]),
        {"resurrected"},
    ),
    "more than were asked for": (
        but(
            calls=[call(), call(at=2, outcome=UNKNOWN, delivery=None)],
            arrivals=[arrival(), *(arrival(delivery=each) for each in ("v.1", "w.1"))],
            past=[row(), *(row(delivery=each) for each in ("v.1", "w.1"))],
        ),
        {"resurrected"},
    ),
    "a record in no state": (but(keys=record()), {"orphans"}),
    "a record in two states": (but(keys={**FAILED, "later:{0}:created": {"ana/t": 1.0}}), {"orphans"}),
    "a task that its owner cannot see": (
        but(past=[row("failed", claimed=None)], keys={**FAILED, "later:{0}:user:ana": {}}),
        {"orphans"},
    ),
    "an entry without a record": (but(keys={"later:{0}:running:default": {"ana/t": 1.0}}), {"orphans"}),
    "a list without its tasks": (but(keys={"later:{0}:user:ana": {"t": 1.0}}), {"orphans"}),
    "a record that could not be read": (but(keys={"later:{0}:quarantine": {"ana/t": 1.0}}), {"orphans"}),
    "a key that nobody knows": (but(keys={"later:{0}:odd": "1"}), {"orphans"}),
    "an outbox that nobody has emptied": (but(keys={"later:{0}:outbox": 3}), {"history"}),
    "completed, and never seen": (but(arrivals=[]), {"history"}),
    "completed and cancelled": (
        but(calls=[call(), call("delete", 20)], past=[row(), row("cancelled", claimed=None)]),
        {"history"},
    ),
    "cancelled, and nobody asked": (but(arrivals=[], past=[row("cancelled", claimed=None)]), {"history"}),
    "the past of nobody": (but(past=[row(), row("failed", delivery="v.1", claimed=None)]), {"history"}),
    "failed, and not written down": (but(past=[], keys=FAILED), {"history"}),
}


@pytest.mark.parametrize("history", INNOCENT.values(), ids=INNOCENT)
def test_it_finds_no_fault_in(history: History) -> None:
    assert seen(history) == set()


@pytest.mark.parametrize(("history", "counts"), GUILTY.values(), ids=GUILTY)
def test_it_sees(history: History, counts: set[str]) -> None:
    assert seen(history) == counts


def test_every_count_is_seen_by_some_case() -> None:
    assert set().union(*(counts for _, counts in GUILTY.values())) == set(judge(SOUND).counts)


def test_it_says_which_fault_explains_a_repetition() -> None:
    faults = [fault("daemon killed", 1, 2), fault("connections stalled", 10.2, 12)]
    assert judge(but(arrivals=TWICE, past=[row(claimed=13)], faults=faults)).duplicates == {"connections stalled": 1}


def test_lateness_counts_from_when_the_servers_clock_first_showed_the_time() -> None:
    steps = [Step(since=6 * SECOND, until=6 * SECOND, offset=60 * SECOND)]
    assert list(lateness(Case(but(arrivals=[arrival(10.25)])))) == [250]
    assert list(lateness(Case(but(arrivals=[arrival(6.5, claimed=66)], steps=steps)))) == [500]


def test_the_report_has_a_line_for_each_count_and_says_how_late_it_was() -> None:
    history = but(arrivals=[arrival(10.25), arrival(13, daemon="d1")], past=[row(claimed=13)])
    lines = str(Report(history=history, verdict=judge(history), told={}, exits=0, seconds=60)).splitlines()
    counts = {line[:18].strip(): int(line[18:25]) for line in lines[: lines.index("")]}
    assert counts == judge(history).counts
    assert counts["unexplained"] == 1
    assert [line.split()[:3] for line in lines if "▪" in line] == [["0.5", "s", "1"]]


@pytest.mark.parametrize("name", MUTANTS)
def test_the_passages_that_a_mutant_changes_are_there(name: str) -> None:
    with built(MUTANTS[name]) as build:
        assert (build / "later" / "__main__.py").exists()
