"""The moment of a task: durations, instants, and the draw of a random one.

`When` is what a caller may say; `resolve` turns it into a `Moment`. Everything is decided from values: the current
time and the source of chance are arguments.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from later.core.errors import InvalidTime
from later.core.task import Millis, Window

PHRASE_CHARACTERS = 256
LATEST: Millis = int(datetime(2101, 1, 1, tzinfo=UTC).timestamp() * 1000)

_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000}
_DURATION = re.compile(r"(?:(\d{1,9})w)?(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")
_WALL_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """What a caller said about the moment, in the caller's own words; all None means nothing was said."""

    at: str | None = None
    in_: str | None = None
    within: str | None = None
    after: str | None = None
    hold: bool = False

    @property
    def said(self) -> bool:
        return self != When()


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A decision: when (None: not scheduled), out of which window, by which rule."""

    due: Millis | None
    window: Window | None = None
    rule: str | None = None


HOLD = Moment(due=None)


def resolve(when: When, *, now: Millis, rng: random.Random, zone: str | None = None) -> Moment:
    """The moment that `when` means if it is said at `now` in `zone`.

    `within` draws uniformly from (now, now + D], or from (now + A, now + D] together with `after`. Raises InvalidTime
    with the reason.
    """
    _check_combination(when)
    if when.at is not None:
        due = parse_instant(when.at, zone=zone)
        if due <= now:
            raise InvalidTime(f"{when.at!r} is {spell(now - due)} in the past; give a time that is still to come")
        return Moment(due=due, rule=f"at {when.at.strip()}")
    if when.in_ is not None:
        delay = parse_duration(when.in_)
        return Moment(due=_reachable(now + delay, when.in_), rule=f"in {_canonical(delay)}")
    if when.within is not None:
        return _draw(when.within, when.after, now=now, rng=rng)
    return HOLD


def parse_duration(text: str) -> Millis:
    """A length of time such as `45s`, `90m`, `3d`, `1h30m` or `2w`, in milliseconds; raises InvalidTime."""
    phrase = _bounded(text)
    match = _DURATION.fullmatch(phrase)
    if not phrase or match is None:
        hint = "a duration cannot be negative" if phrase.startswith("-") else "that is not a duration"
        raise InvalidTime(f"{text!r}: {hint}; use w, d, h, m and s in that order, as in 45s, 90m, 3d, 1h30m or 2w")
    return sum(int(number) * size for number, size in zip(match.groups(), _UNITS.values(), strict=True) if number)


def parse_instant(text: str, *, zone: str | None = None) -> Millis:
    """A point in time: RFC 3339, or `YYYY-MM-DD HH:MM[:SS]` on the wall clock of `zone` (UTC if none).

    Of a wall time that exists twice the first is meant; one that a clock change skips is refused. Raises InvalidTime.
    """
    phrase = _bounded(text)
    try:
        if _INSTANT.fullmatch(phrase):
            moment = datetime.fromisoformat(phrase.upper().replace(" ", "T"))
        elif _WALL_TIME.fullmatch(phrase):
            moment = _on_the_wall_clock(datetime.fromisoformat(phrase), text, zone)
        else:
            raise ValueError
        due = (moment - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise InvalidTime(
            f"{text!r} is not a time; use 2026-11-25 10:14 or 2026-11-25T10:14:00+01:00 (RFC 3339)"
        ) from None
    return _reachable(due, text)


def parse_zone(name: str) -> ZoneInfo:
    """The time zone of that IANA name; raises InvalidTime."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise InvalidTime(f"{name[:80]!r} is not a time zone; use a name such as Europe/Lisbon or UTC") from None


def spell(length: Millis) -> str:
    """A length of time for people: its two largest units, as in `3 d 4 h` or `250 ms`."""
    if length < 1000:
        return f"{length} ms"
    parts = []
    for unit, size in _UNITS.items():
        count, length = divmod(length, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def rfc3339(moment: Millis) -> str:
    """The moment as programs read it: RFC 3339, UTC, with milliseconds."""
    seconds, millis = divmod(moment, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{millis:03d}Z"


def _check_combination(when: When) -> None:
    said = [
        f"--{field.name.rstrip('_')}"
        for field in fields(When)
        if field.name != "after" and getattr(when, field.name) not in (None, False)
    ]
    if len(said) > 1:
        raise InvalidTime(f"{' and '.join(said)} contradict each other; say only one of them")
    if when.after is not None and said != ["--within"]:
        raise InvalidTime("--after is the earliest of a random time; say the latest too, as in --after 1d --within 3d")


def _draw(within: str, after: str | None, *, now: Millis, rng: random.Random) -> Moment:
    latest, earliest = parse_duration(within), parse_duration(after) if after is not None else 0
    if latest <= 0:
        raise InvalidTime(f"{within!r} leaves no time at all; say how long it may take, as in 3d")
    if earliest >= latest:
        raise InvalidTime(f"--after {after} is not before --within {within}; make the window longer")
    until = _reachable(now + latest, within)
    rule = f"within {_canonical(latest)}" + (f" after {_canonical(earliest)}" if earliest else "")
    return Moment(
        due=now + rng.randint(earliest + 1, latest),
        window=Window(since=now + earliest, until=until),
        rule=rule,
    )


def _on_the_wall_clock(wall: datetime, text: str, zone: str | None) -> datetime:
    place: tzinfo = parse_zone(zone) if zone else UTC
    moment = wall.replace(tzinfo=place).astimezone(UTC)
    if moment.astimezone(place).replace(tzinfo=None) != wall:
        raise InvalidTime(f"{text!r} does not exist in {zone}: the clocks skip it that night; choose another time")
    return moment


def _bounded(text: str) -> str:
    if len(text) > PHRASE_CHARACTERS:
        raise InvalidTime(f"a time of {len(text)} characters is too long; at most {PHRASE_CHARACTERS} are read")
    phrase = text.strip()
    if not phrase.isascii():
        raise InvalidTime(f"{text!r} has characters that no time has; use digits, letters and - : + .")
    return phrase


def _reachable(due: Millis, text: str) -> Millis:
    if due >= LATEST:
        raise InvalidTime(f"{text!r} is beyond the year 2100; choose a time before that")
    return due


def _canonical(length: Millis) -> str:
    parts = []
    for unit, size in _UNITS.items():
        count, length = divmod(length, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
