"""What is known of the server's clock and of the contact to it, from replies whose times the test says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from later.clock import Clock
from later.store.contact import DRIFT, Contact

BOOT = 1_790_000_000.0
"""Where the fake monotonic clock begins on the wall."""
TOLERANCE = 10.0


class FakeClock(Clock):
    """A clock that stands still until it is moved."""

    def __init__(self, *, wall_error: float = 0.0) -> None:
        self.at = 0.0
        self._wall_error = wall_error

    def monotonic(self) -> float:
        return self.at

    def wall(self) -> float:
        return BOOT + self.at + self._wall_error


class Wire:
    """A server whose clock is `offset` ahead of the monotonic clock here, and replies that take their time."""

    def __init__(self, *, wall_error: float = 0.0) -> None:
        self.clock = FakeClock(wall_error=wall_error)
        self.contact = Contact(self.clock, tolerance=TOLERANCE)
        self.offset = BOOT

    def reply(self, there: float = 0.0, back: float = 0.0, *, wrote: bool = True) -> None:
        """One round trip, `there` seconds to the server and `back` from it."""
        sent = self.clock.at
        self.clock.at += there
        server_us = round((self.clock.at + self.offset) * 1e6)
        self.clock.at += back
        self.contact.answered(wrote=wrote)
        self.contact.heard(server_us, sent)

    def early_by(self) -> float:
        """How much before a moment, by the server's clock, its instant is."""
        moment = 1_900_000_000_000
        return moment / 1000 - (self.contact.instant(moment) + self.offset)


@pytest.fixture
def wire() -> Wire:
    return Wire()


class TestTime:
    def test_before_the_first_reply_this_machines_clock_is_believed(self) -> None:
        wire = Wire(wall_error=2.5)
        assert wire.contact.now() == (BOOT + 2.5) * 1000
        assert wire.contact.instant(int(BOOT * 1000)) == -2.5

    def test_the_first_reply_is_believed_more(self) -> None:
        wire = Wire(wall_error=3600)
        with capture_logs() as logs:
            wire.reply(0.010, 0.030)
        assert wire.contact.now() == pytest.approx((BOOT + 0.040) * 1000, abs=21)
        assert logs == []

    def test_it_goes_on_between_replies(self, wire: Wire) -> None:
        wire.reply()
        wire.clock.at += 100
        assert wire.contact.now() == (BOOT + 100) * 1000

    def test_each_reply_narrows_what_is_known(self, wire: Wire) -> None:
        wire.reply(0.100, 0.100)
        assert wire.early_by() == pytest.approx(-0.100, abs=1e-5)  # late by what the reply may have taken
        wire.reply(0.200, 0.001)
        assert wire.early_by() == pytest.approx(-0.001, abs=1e-4)
        wire.reply(0.500, 0.500)  # a slow one takes nothing away
        assert wire.early_by() == pytest.approx(-0.001, abs=2e-4)
        assert wire.contact.now() == pytest.approx((wire.clock.at + BOOT) * 1000, abs=50)

    def test_what_is_known_fades_with_time(self, wire: Wire) -> None:
        """Two sound clocks part by some millionths; an old interval is as much wider."""
        wire.reply(0.001, 0.001)
        wire.clock.at += 1000
        wire.offset -= 0.05  # 50 ppm
        wire.reply(0.100, 0.100)
        assert wire.early_by() <= 0
        assert wire.early_by() == pytest.approx(-0.1, abs=0.06)

    def test_the_reply_itself_does_not_count_as_the_last_look_at_the_clock(self, wire: Wire) -> None:
        """Every call is counted as answered before its time is read; that must not hide how old the last time is."""
        wire.reply(0.001, 0.001)
        wire.clock.at += 1000
        wire.offset -= DRIFT * 900
        with capture_logs() as logs:
            wire.reply(0.0, 0.0)
        assert wire.early_by() <= 1e-6
        assert logs == []

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(
        st.lists(
            st.tuples(st.floats(0, 2), st.floats(0, 2), st.floats(0, 600), st.floats(-1, 1)), min_size=1, max_size=20
        )
    )
    def test_an_instant_is_never_early(self, replies: list[tuple[float, float, float, float]]) -> None:
        wire = Wire(wall_error=5)
        for there, back, pause, drift in replies:
            wire.reply(there, back)
            assert wire.early_by() <= 2e-6
            assert wire.early_by() >= -back - 2e-6 - DRIFT * 1000
            wire.clock.at += pause
            wire.offset += drift * DRIFT * pause


class TestSteps:
    @pytest.mark.parametrize("step", [60.0, -60.0, 3600.0, 10.1, -10.1])
    def test_a_step_begins_a_new_count(self, wire: Wire, step: float) -> None:
        wire.reply(0.001, 0.001)
        wire.clock.at += 100
        assert wire.contact.steady_for() == pytest.approx(100, abs=0.1)
        wire.offset += step
        with capture_logs() as logs:
            wire.reply(0.001, 0.001)
        assert wire.contact.steady_for() == 0
        [entry] = logs
        assert (entry["event"], entry["log_level"]) == ("server_clock_stepped", "warning")
        assert entry["seconds"] == pytest.approx(abs(step), abs=0.02)

    @pytest.mark.parametrize("step", [0.5, -0.5, 9.5, -9.5])
    def test_a_step_that_no_lease_can_have_suffered_from_is_followed_quietly(self, wire: Wire, step: float) -> None:
        wire.reply(0.001, 0.001)
        wire.clock.at += 100
        wire.offset += step
        with capture_logs() as logs:
            wire.reply(0.001, 0.001)
        assert wire.contact.steady_for() == pytest.approx(100, abs=0.1)
        assert wire.early_by() == pytest.approx(-0.001, abs=1e-5)
        assert logs == []

    def test_what_was_known_before_a_step_is_forgotten(self, wire: Wire) -> None:
        wire.reply(0.001, 0.001)
        wire.offset -= 60
        wire.reply(0.5, 0.5)
        assert wire.early_by() == pytest.approx(-0.5, abs=1e-5)
        assert wire.contact.now() == pytest.approx((wire.clock.at + wire.offset) * 1000, abs=510)


class TestGaps:
    def test_without_trouble_it_counts_from_the_beginning(self, wire: Wire) -> None:
        for _ in range(5):
            wire.clock.at += 15
            wire.reply(0.001, 0.001)
        assert wire.contact.steady_for() == pytest.approx(75, abs=0.1)

    def test_silence_that_nobody_broke_is_no_gap(self, wire: Wire) -> None:
        wire.reply()
        wire.clock.at += 1000
        wire.reply()
        assert wire.contact.steady_for() == 1000

    def test_while_it_is_lost_nothing_is_steady(self, wire: Wire) -> None:
        wire.reply()
        wire.clock.at += 100
        with capture_logs() as logs:
            for _ in range(3):
                wire.contact.missed("cut")
                wire.clock.at += 1
        assert wire.contact.lost
        assert wire.contact.steady_for() == 0
        assert [(entry["event"], entry["error"]) for entry in logs] == [("store_lost", "cut")]

    @pytest.mark.parametrize(("seconds", "steady"), [(9.9, 109.9), (10.1, 0.0), (3600, 0.0)])
    def test_only_a_long_gap_begins_a_new_count(self, wire: Wire, seconds: float, steady: float) -> None:
        wire.clock.at += 100
        wire.reply()
        wire.contact.missed("cut")
        wire.clock.at += seconds
        with capture_logs() as logs:
            wire.reply()
        assert not wire.contact.lost
        assert wire.contact.steady_for() == pytest.approx(steady)
        assert [(entry["event"], entry["after_s"]) for entry in logs] == [("store_back", round(seconds, 1))]

    @pytest.mark.parametrize(("there", "back"), [(11, 0), (0, 11), (6, 6)])
    def test_a_reply_that_took_too_long_is_a_gap(self, wire: Wire, there: float, back: float) -> None:
        wire.clock.at += 100
        with capture_logs() as logs:
            wire.reply(there, back)
        assert wire.contact.steady_for() == 0
        assert [entry["event"] for entry in logs] == ["server_stalled"]

    def test_a_stall_is_told_once_however_many_waited_for_it(self, wire: Wire) -> None:
        wire.reply()
        sent = wire.clock.at
        wire.clock.at += 11
        with capture_logs() as logs:
            for _ in range(60):
                wire.contact.heard(round((wire.clock.at + wire.offset) * 1e6), sent)
            wire.clock.at += 100
            wire.reply(11)
        assert [entry["event"] for entry in logs] == ["server_stalled", "server_stalled"]

    def test_while_writes_are_refused_an_answered_read_is_no_contact(self, wire: Wire) -> None:
        """Nobody could extend a lease meanwhile."""
        wire.clock.at += 100
        wire.reply()
        with capture_logs() as logs:
            for _ in range(4):
                wire.contact.missed("READONLY", refused=True)
                wire.reply(wrote=False)
                wire.clock.at += 5
            assert wire.contact.steady_for() == 0
            wire.reply(wrote=True)
        assert wire.contact.steady_for() == 0
        assert [entry["event"] for entry in logs] == ["store_lost", "store_back"]
        wire.clock.at += 30
        assert wire.contact.steady_for() == 30

    def test_after_a_cut_any_reply_is_contact(self, wire: Wire) -> None:
        wire.contact.missed("READONLY", refused=True)
        wire.contact.missed("cut")
        wire.reply(wrote=False)
        assert not wire.contact.lost


def test_now_is_whole_milliseconds_and_never_ahead_of_the_middle() -> None:
    wire: Wire = Wire()
    wire.reply()
    for _ in range(100):
        wire.clock.at += 0.000_37
        assert isinstance(wire.contact.now(), int)
        assert wire.contact.now() <= (wire.clock.at + BOOT) * 1000 + 1e-3
