"""The moment of a task: durations, instants, zones, random draws, and what is refused in which words."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from later.core.errors import InvalidTask, InvalidTime
from later.core.task import Window
from later.core.when import (
    HOLD,
    LATEST,
    PHRASE_CHARACTERS,
    Moment,
    When,
    parse_duration,
    parse_instant,
    parse_zone,
    resolve,
    rfc3339,
    spell,
)

SECOND, MINUTE, HOUR, DAY, WEEK = 1000, 60_000, 3_600_000, 86_400_000, 604_800_000
NOW = 1_795_335_240_123  # 2026-11-22T08:14:00.123Z
DRAWS = 10_000

PROPERTY = settings(derandomize=True, deadline=None, max_examples=300)


def at(text: str, now: int = NOW, **said: str | None) -> Moment:
    return resolve(When(at=text), now=now, rng=random.Random(0), **said)


def delayed(text: str, now: int = NOW) -> Moment:
    return resolve(When(in_=text), now=now, rng=random.Random(0))


def drawn(within: str, after: str | None = None, *, now: int = NOW, seed: int = 0) -> Moment:
    return resolve(When(within=within, after=after), now=now, rng=random.Random(seed))


def millis(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "length"),
        [
            ("45s", 45 * SECOND),
            ("90m", 90 * MINUTE),
            ("3d", 3 * DAY),
            ("1h30m", 90 * MINUTE),
            ("2w", 2 * WEEK),
            ("1w2d3h4m5s", WEEK + 2 * DAY + 3 * HOUR + 4 * MINUTE + 5 * SECOND),
            ("0s", 0),
            ("007m", 7 * MINUTE),
            ("  5m\n", 5 * MINUTE),
            ("999999999w", 999_999_999 * WEEK),
        ],
    )
    def test_it_is_read(self, text: str, length: int) -> None:
        assert parse_duration(text) == length

    @pytest.mark.parametrize(
        "text",
        ["", " ", "5", "m", "5min", "5 m", "1m1h", "1h1h", "1.5h", "+5m", "5M", "1y", "P3D", "0x5s", "5s;", "5s\0"],
    )
    def test_what_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidTime) as refusal:
            parse_duration(text)
        assert refusal.value.message == (
            f"{text!r}: that is not a duration; use w, d, h, m and s in that order, as in 45s, 90m, 3d, 1h30m or 2w"
        )

    @pytest.mark.parametrize("text", ["-5m", " -1h30m", "-"])
    def test_a_negative_one_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidTime, match=f"^'{text}': a duration cannot be negative; use w, d, h, m and s"):
            parse_duration(text)

    @pytest.mark.parametrize("text", ["٣d", "３d", "5\N{MICRO SIGN}s", "½h", "\ud800"])
    def test_digits_of_other_scripts_are_refused(self, text: str) -> None:
        with pytest.raises(InvalidTime) as refusal:
            parse_duration(text)
        assert refusal.value.message == f"{text!r} has characters that no time has; use digits, letters and - : + ."

    def test_a_long_one_is_refused_unread(self) -> None:
        with pytest.raises(
            InvalidTime, match=f"^a time of 257 characters is too long; at most {PHRASE_CHARACTERS} are"
        ):
            parse_duration("1" * 257)

    @PROPERTY
    @given(st.integers(0, 10**12))
    def test_its_canonical_form_reads_the_same(self, seconds: int) -> None:
        length = min(seconds * SECOND, LATEST - NOW - 1) // SECOND * SECOND
        rule = delayed(f"{length // SECOND % 10**9}s").rule
        assert rule is not None
        canonical = rule.removeprefix("in ")
        assert parse_duration(canonical) == length // SECOND % 10**9 * SECOND
        assert delayed(canonical).rule == rule

    @PROPERTY
    @given(st.lists(st.integers(0, 99), min_size=5, max_size=5))
    def test_equal_lengths_have_one_canonical_form(self, counts: list[int]) -> None:
        text = "".join(f"{count}{unit}" for count, unit in zip(counts, "wdhms", strict=True))
        again = f"{parse_duration(text) // SECOND}s"
        assert delayed(text).rule == delayed(again).rule


class TestInstant:
    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("2026-11-25T10:14:00Z", millis(2026, 11, 25, 10, 14)),
            ("2026-11-25t10:14:00z", millis(2026, 11, 25, 10, 14)),
            ("2026-11-25 10:14:00Z", millis(2026, 11, 25, 10, 14)),
            ("2026-11-25T10:14:00+01:00", millis(2026, 11, 25, 9, 14)),
            ("2026-11-25T10:14:00-09:30", millis(2026, 11, 25, 19, 44)),
            ("2026-11-25T10:14:00.5Z", millis(2026, 11, 25, 10, 14) + 500),
            ("2026-11-25T10:14:00.123456789Z", millis(2026, 11, 25, 10, 14) + 123),
            ("2026-11-25 10:14", millis(2026, 11, 25, 10, 14)),
            ("2026-11-25T10:14", millis(2026, 11, 25, 10, 14)),
            ("2026-11-25T10:14:07", millis(2026, 11, 25, 10, 14, 7)),
            (" 2026-11-25 10:14:07 ", millis(2026, 11, 25, 10, 14, 7)),
            ("1970-01-01T00:00:00Z", 0),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ],
    )
    def test_it_is_read(self, text: str, moment: int) -> None:
        assert parse_instant(text) == moment

    def test_a_wall_time_is_of_its_zone(self) -> None:
        assert parse_instant("2026-11-25 10:14", zone="Europe/Lisbon") == millis(2026, 11, 25, 10, 14)
        assert parse_instant("2026-07-25 10:14", zone="Europe/Lisbon") == millis(2026, 7, 25, 9, 14)
        assert parse_instant("2026-11-25 10:14", zone="Asia/Kathmandu") == millis(2026, 11, 25, 4, 29)
        assert parse_instant("2026-11-25T10:14:00Z", zone="Asia/Kathmandu") == millis(2026, 11, 25, 10, 14)

    def test_of_a_wall_time_that_exists_twice_the_first_is_meant(self) -> None:
        assert parse_instant("2026-10-25 02:30", zone="Europe/Berlin") == millis(2026, 10, 25, 0, 30)

    def test_a_wall_time_that_the_clocks_skip_is_refused(self) -> None:
        with pytest.raises(InvalidTime) as refusal:
            parse_instant("2027-03-28 02:30", zone="Europe/Berlin")
        assert refusal.value.message == (
            "'2027-03-28 02:30' does not exist in Europe/Berlin: the clocks skip it that night; choose another time"
        )
        assert parse_instant("2027-03-28 03:00", zone="Europe/Berlin") == millis(2027, 3, 28, 1)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "tomorrow",
            "10:14",
            "2026-11-25",
            "2026-11-25T10",
            "2026-11-31 10:14",
            "2026-13-01 10:14",
            "2026-11-25 24:01",
            "2026-11-25 23:59:60",
            "2026-11-25T10:14Z",
            "2026-11-25T10:14:00+25:00",
            "2026-11-25T10:14:00+0100",
            "2026-11-25T10:14:00.Z",
            "2026-11-25T10:14:00.1234567890Z",
            "20261125T101400Z",
            "2026-W48-3",
            "0000-01-01 00:00",
            "-2026-11-25 10:14",
            "1795335240",
            "2026-11-25 10:14 Europe/Lisbon",
        ],
    )
    def test_what_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidTime) as refusal:
            parse_instant(text)
        assert refusal.value.message == (
            f"{text!r} is not a time; use 2026-11-25 10:14 or 2026-11-25T10:14:00+01:00 (RFC 3339)"
        )

    def test_the_far_future_is_refused(self) -> None:
        assert parse_instant("2100-12-31T23:59:59.999Z") == LATEST - 1
        for text in ("2101-01-01T00:00:00Z", "9999-12-31 23:59"):
            with pytest.raises(InvalidTime) as refusal:
                parse_instant(text)
            assert refusal.value.message == f"{text!r} is beyond the year 2100; choose a time before that"

    @pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/St_Johns", "UTC"])
    @pytest.mark.parametrize("text", ["0001-01-01 00:00", "9999-12-31 23:59:59"])
    def test_the_ends_of_the_calendar_break_nothing(self, text: str, zone: str) -> None:
        with suppress(InvalidTime):
            assert parse_instant(text, zone=zone) < 0

    @PROPERTY
    @given(st.integers(0, LATEST - 1))
    def test_what_programs_read_is_read_back(self, moment: int) -> None:
        assert parse_instant(rfc3339(moment)) == moment


class TestZone:
    @pytest.mark.parametrize("name", ["UTC", "Europe/Lisbon", "America/Argentina/Ushuaia", "Etc/GMT+5"])
    def test_it_is_known_by_its_name(self, name: str) -> None:
        assert parse_zone(name).key == name

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "Europe",
            "Lisbon",
            "europe/nowhere",
            "+01:00",
            "../../../etc/passwd",
            "/etc/localtime",
            "a\0b",
            "\ud800",
            "Ü",
        ],
    )
    def test_what_is_none_is_refused(self, name: str) -> None:
        with pytest.raises(InvalidTime) as refusal:
            parse_zone(name)
        assert refusal.value.message == f"{name!r} is not a time zone; use a name such as Europe/Lisbon or UTC"

    def test_a_long_one_is_refused_in_few_words(self) -> None:
        with pytest.raises(InvalidTime) as refusal:
            parse_zone("Europe/" * 150_000)
        assert len(refusal.value.message) < 200

    def test_it_is_refused_with_the_time(self) -> None:
        with pytest.raises(InvalidTime, match="'Mars/Olympus' is not a time zone"):
            at("2026-11-25 10:14", zone="Mars/Olympus")


class TestResolve:
    def test_without_a_time_it_is_held(self) -> None:
        for when in (When(), When(hold=True)):
            assert resolve(when, now=NOW, rng=random.Random(0)) == HOLD == Moment(due=None)

    def test_who_said_nothing_said_nothing(self) -> None:
        assert not When().said
        assert When(hold=True).said
        assert When(in_="3d").said

    def test_at_is_that_instant(self) -> None:
        assert at("2026-11-25T10:14:00Z") == Moment(due=millis(2026, 11, 25, 10, 14), rule="at 2026-11-25T10:14:00Z")
        assert at(" 2026-11-25 10:14\t", zone="Asia/Kathmandu") == Moment(
            due=millis(2026, 11, 25, 4, 29), rule="at 2026-11-25 10:14"
        )

    def test_at_a_past_instant_is_refused(self) -> None:
        with pytest.raises(InvalidTime) as refusal:
            at("2026-11-22T07:00:00Z")
        assert refusal.value.message == (
            "'2026-11-22T07:00:00Z' is 1 h 14 m in the past; give a time that is still to come"
        )
        with pytest.raises(InvalidTime, match="is 0 ms in the past"):
            at(rfc3339(NOW))
        assert at(rfc3339(NOW + 1)).due == NOW + 1

    def test_in_is_so_much_later(self) -> None:
        assert delayed("90m") == Moment(due=NOW + 90 * MINUTE, rule="in 1h30m")
        assert delayed("0s") == Moment(due=NOW, rule="in 0s")

    def test_in_too_long_is_refused(self) -> None:
        with pytest.raises(InvalidTime) as refusal:
            delayed("99999w")
        assert refusal.value.message == "'99999w' is beyond the year 2100; choose a time before that"

    def test_within_has_a_window(self) -> None:
        moment = drawn("72h")
        assert (moment.window, moment.rule) == (Window(since=NOW, until=NOW + 3 * DAY), "within 3d")

    def test_within_and_after_have_a_later_window(self) -> None:
        moment = drawn("3d", "24h")
        assert moment.window == Window(since=NOW + DAY, until=NOW + 3 * DAY)
        assert moment.rule == "within 3d after 1d"

    def test_within_nothing_is_refused(self) -> None:
        with pytest.raises(InvalidTime) as refusal:
            drawn("0s")
        assert refusal.value.message == "'0s' leaves no time at all; say how long it may take, as in 3d"

    @pytest.mark.parametrize("after", ["3d", "72h", "4d"])
    def test_an_empty_window_is_refused(self, after: str) -> None:
        with pytest.raises(InvalidTime) as refusal:
            drawn("3d", after)
        assert refusal.value.message == f"--after {after} is not before --within 3d; make the window longer"

    def test_within_too_long_is_refused(self) -> None:
        with pytest.raises(InvalidTime, match=r"^'9999w' is beyond the year 2100; choose a time before that$"):
            drawn("9999w")

    @pytest.mark.parametrize(
        ("when", "said"),
        [
            (When(at="x", in_="y"), "--at and --in"),
            (When(in_="x", within="y"), "--in and --within"),
            (When(within="x", hold=True), "--within and --hold"),
            (When(at="x", in_="x", within="x", hold=True, after="x"), "--at and --in and --within and --hold"),
        ],
    )
    def test_contradictions_are_refused(self, when: When, said: str) -> None:
        with pytest.raises(InvalidTime) as refusal:
            resolve(when, now=NOW, rng=random.Random(0))
        assert refusal.value.message == f"{said} contradict each other; say only one of them"

    @pytest.mark.parametrize("when", [When(after="1d"), When(after="1d", in_="3d"), When(after="1d", hold=True)])
    def test_an_earliest_without_a_latest_is_refused(self, when: When) -> None:
        with pytest.raises(InvalidTime) as refusal:
            resolve(when, now=NOW, rng=random.Random(0))
        assert refusal.value.message == (
            "--after is the earliest of a random time; say the latest too, as in --after 1d --within 3d"
        )


class TestDraw:
    @pytest.mark.parametrize("after", [None, "1d"])
    def test_ten_thousand_draws_are_uniform_and_never_outside(self, rng: random.Random, after: str | None) -> None:
        begin, end = NOW + (DAY if after else 0), NOW + 3 * DAY
        when = When(within="3d", after=after)
        draws = [resolve(when, now=NOW, rng=rng).due for _ in range(DRAWS)]
        assert all(due is not None and begin < due <= end for due in draws)
        assert kolmogorov_smirnov([(due - begin) / (end - begin) for due in draws if due is not None]) > 0.01

    def test_the_test_of_uniformity_knows_what_is_not(self, rng: random.Random) -> None:
        assert kolmogorov_smirnov([rng.random() ** 1.1 for _ in range(DRAWS)]) < 0.01
        assert kolmogorov_smirnov([rng.random() * 0.97 for _ in range(DRAWS)]) < 0.01
        assert kolmogorov_smirnov([at / DRAWS for at in range(DRAWS)]) > 0.99

    def test_each_moment_of_a_short_window_comes_up_and_no_other(self, rng: random.Random) -> None:
        draws = {resolve(When(within="1s"), now=NOW, rng=rng).due for _ in range(DRAWS)}
        assert draws == set(range(NOW + 1, NOW + 1001))

    def test_the_same_chance_draws_the_same(self) -> None:
        assert drawn("3d", seed=7) == drawn("3d", seed=7) != drawn("3d", seed=8)


PHRASES = st.one_of(
    st.text(max_size=300),
    st.from_regex(r"[-+]?(\d{1,12}[wdhms]){0,6}", fullmatch=True),
    st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,12})?)?(Z|[+-]\d\d:\d\d)?", fullmatch=True),
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
)


class TestHostile:
    @PROPERTY
    @given(PHRASES, PHRASES, st.integers(0, 2**40))
    @example("1s", "0s", NOW)
    def test_what_is_accepted_is_never_past(self, one: str, other: str, seed: int) -> None:
        for when in (When(at=one), When(in_=one), When(within=one), When(within=one, after=other)):
            try:
                moment = resolve(when, now=NOW, rng=random.Random(seed))
            except InvalidTime:
                continue
            assert moment.due is not None
            assert moment.due >= NOW if when.in_ is not None else moment.due > NOW
            assert moment.due < LATEST
            if moment.window is not None:
                assert moment.window.since < moment.due <= moment.window.until

    @pytest.mark.parametrize(
        "make",
        [
            lambda size: "1" * size,
            lambda size: "1w" * (size // 2),
            lambda size: " " * size + "x",
            lambda size: "-" * size,
            lambda size: "2026-11-25T10:14:00." + "0" * size + "Z",
            lambda size: "\u0663" * size,
            lambda size: "\0" * size,
        ],
        ids=["digits", "weeks", "spaces", "dashes", "fractions", "other digits", "NULs"],
    )
    @pytest.mark.parametrize("size", [250, 1_000_000])
    def test_an_answer_comes_at_once(self, make: Callable[[int], str], size: int) -> None:
        text = make(size)
        began = time.perf_counter()
        for ask in (at, delayed, drawn, parse_zone):
            with pytest.raises(InvalidTask) as refusal:
                ask(text)
            assert len(refusal.value.message) < 20 * PHRASE_CHARACTERS
        assert time.perf_counter() - began < 1.0


class TestTelling:
    @pytest.mark.parametrize(
        ("length", "words"),
        [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (61_999, "1 m 1 s"),
            (3 * DAY + 4 * HOUR + 59 * MINUTE, "3 d 4 h"),
            (2 * WEEK, "2 w"),
            (WEEK + SECOND, "1 w 1 s"),
        ],
    )
    def test_a_length_is_told_in_its_two_largest_units(self, length: int, words: str) -> None:
        assert spell(length) == words

    def test_a_moment_is_told_in_utc_with_milliseconds(self) -> None:
        assert rfc3339(NOW) == "2026-11-22T08:14:00.123Z"
        assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
        assert rfc3339(-1) == "1969-12-31T23:59:59.999Z"
        assert datetime.fromisoformat(rfc3339(LATEST)) - timedelta(milliseconds=LATEST) == datetime(
            1970, 1, 1, tzinfo=UTC
        )


def kolmogorov_smirnov(sample: list[float]) -> float:
    """How likely numbers from [0, 1] that are uniform stray at least this far from the diagonal (asymptotic p).

    With Stephens' correction for finite samples, as in Press et al., "Numerical Recipes", 14.3.
    """
    ordered, size = sorted(sample), len(sample)
    distance = max(max((at + 1) / size - x, x - at / size) for at, x in enumerate(ordered))
    scaled = (math.sqrt(size) + 0.12 + 0.11 / math.sqrt(size)) * distance
    if scaled < 0.2:
        return 1.0
    return 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
