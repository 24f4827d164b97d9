"""What is wrong with one task as Redis holds it, and the changes that mend it without guessing. Does no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from later.core.task import NO_LEASE_MS, Millis
from later.store import codec

Change = tuple[str, ...]
"""As `examine.lua` takes it: ('add', set, score), ('remove', set), ('release',) or ('raise', number)."""

SETS = ("created", "failed", "quarantine", "due", "running", "user", "via")
"""In the order in which `examine.lua` answers; `user` is the owner's list, `via` the set that led to the name."""

STATES = ("due", "running", "failed", "created")
"""Of two states the earlier loses nothing; a running one whose lease has not ended comes before all."""

NUMBERS = 2**53
"""From here on Lua cannot count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One name as of one moment: its record, or a word of why there is none, and its score in each set it is in."""

    name: str
    record: Mapping[str, str] | str
    scores: Mapping[str, str]

    @classmethod
    def of(cls, name: str, found: Sequence[Any]) -> Facts:
        """From what `examine.lua` has found."""
        record, *scores = found
        return cls(
            name=name,
            record=record if isinstance(record, str) else codec.pairs(record),
            scores={which: score for which, score in zip(SETS, scores, strict=True) if score is not None},
        )

    @property
    def fingerprint(self) -> str:
        """By which `examine.lua` knows whether they have changed."""
        record = [self.record] if isinstance(self.record, str) else chain.from_iterable(self.record.items())
        text = "\n".join([*record, *(self.scores.get(which, "") for which in SETS)])
        return hashlib.sha1(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the facts do not say: whether a daemon can read the record, and looks for that owner's tasks here."""

    readable: bool
    here: bool
    now: Millis
    last_claim: int


@dataclass(slots=True, kw_only=True)
class Judgement:
    """The state that the task is in once `changes` are made; `damages` are kinds of what is wrong."""

    state: str
    damages: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def found(self, damage: str, *changes: Change) -> None:
        self.damages.append(damage)
        self.changes.extend(changes)

    @property
    def in_order(self) -> list[Change]:
        """The changes: what is added before what is removed, so that nothing is ever nowhere."""
        return sorted(self.changes, key=lambda change: change[0] == "remove")


def judge(of: Facts, known: Known) -> Judgement:
    """A record that is there: is it in one state, in its owner's list, at a moment, behind the claim counter?"""
    if not known.here:
        return Judgement(state="elsewhere", damages=["elsewhere"])
    now = known.now
    states = [state for state in STATES if state in of.scores]
    if "running" in states and (live := _is_live(of.scores["running"], now)):
        states.sort(key=lambda state: state != "running")
    else:
        live = False
    if not known.readable:
        return _unreadable(of, states, live=live, now=now)
    judgement = Judgement(state=states[0] if states else "")
    if states:
        _one_state(judgement, of, states, live=live)
    else:
        _no_state(judgement, of, now)
    due = _at_a_moment(judgement, of, now)
    _listed(judgement, of, due, now)
    _behind_the_counter(judgement, of, known.last_claim)
    return judgement


def judge_entry(of: Facts, known: Known, via: str) -> Judgement:
    """A name out of the set `via` whose record is missing, or says that it belongs to another queue."""
    judgement = Judgement(state="")
    if via not in of.scores:
        return judgement  # it has gone on meanwhile
    if of.record == "no record":
        judgement.found("entry", ("remove", via))
    elif known.here:
        judgement.changes = judge(of, known).changes  # its record tells of what they are for
        judgement.found("misplaced", ("remove", via))
    return judgement


def _unreadable(of: Facts, states: list[str], *, live: bool, now: Millis) -> Judgement:
    if live:
        return Judgement(state="running")  # its holder decides
    judgement = Judgement(state="quarantined")
    away = [("remove", state) for state in states]
    if "quarantine" not in of.scores:
        judgement.found("unreadable", ("add", "quarantine", str(now)), *away)
    elif away:
        judgement.found("twice", *away)
    return judgement


def _one_state(judgement: Judgement, of: Facts, states: list[str], *, live: bool) -> None:
    others = states[1:]
    if "quarantine" in of.scores and not live:  # a holder puts it there first, and then out of running
        others.append("quarantine")
    if others:
        judgement.found("twice", *(("remove", other) for other in others))
    if "running" in others:
        judgement.changes.append(("release",))


def _no_state(judgement: Judgement, of: Facts, now: Millis) -> None:
    at = _time_of(of)
    judgement.state = "created" if at is None else "due"
    back = ("add", judgement.state, str(now if at is None else at))
    if "quarantine" in of.scores:
        judgement.found("readable", back, ("remove", "quarantine"))
    else:
        judgement.found("stray", back)


def _at_a_moment(judgement: Judgement, of: Facts, now: Millis) -> Millis | None:
    """Mend a score that is none; returns the due time of a pending task."""
    state = judgement.state
    score = of.scores.get(state)
    if score is None:  # it has just got there
        return _time_of(of) if state == "due" else None
    latest = now + NO_LEASE_MS if state == "running" else codec.LAST_MOMENT
    if _is_moment(score, latest):
        return int(float(score)) if state == "due" else None
    at = _time_of(of) if state == "due" else now
    if at is None:
        judgement.state = "created"
        judgement.found("score", ("add", "created", str(now)), ("remove", "due"))
    else:
        judgement.found("score", ("add", state, str(at)))
    return at if state == "due" else None


def _listed(judgement: Judgement, of: Facts, due: Millis | None, now: Millis) -> None:
    said = of.scores.get("user")
    if said is not None and _fits(judgement.state, said, due):
        return
    at = due if due is not None else _time_of(of)
    untimed = "inf" if judgement.state == "created" else str(now)
    kind = "unlisted" if said is None else "list"
    judgement.found(kind, ("add", "user", untimed if at is None else str(at)))


def _fits(state: str, said: str, due: Millis | None) -> bool:
    if due is not None:
        return float(said) == due
    return _is_moment(said) or (state == "created" and said == "inf")


def _behind_the_counter(judgement: Judgement, of: Facts, last_claim: int) -> None:
    assert not isinstance(of.record, str)
    claim = int(of.record.get("claim", 0))
    if 0 <= claim <= last_claim:
        return
    judgement.found("claim", ("raise", str(claim)) if 0 <= claim < NUMBERS else ("release",))


def _time_of(of: Facts) -> Millis | None:
    """When it is to come: as its owner's list says, else as it was meant to."""
    nominal = of.record.get("nominal", "") if isinstance(of.record, Mapping) else ""
    said = of.scores.get("user")
    if said == "inf":
        return None
    return next((int(float(one)) for one in (said, nominal) if one and _is_moment(one)), None)


def _is_live(lease_end: str, now: Millis) -> bool:
    return now < float(lease_end) <= now + NO_LEASE_MS


def _is_moment(score: str, latest: Millis = codec.LAST_MOMENT) -> bool:
    return 0 <= float(score) <= latest and float(score).is_integer()
