"""What is known of the server from here: whether it answers, and what its clock shows."""

from __future__ import annotations

import structlog

from later.clock import Clock
from later.core.task import Millis

DRIFT = 1e-4
"""How far two sound clocks may part, in seconds a second: 100 ppm, twice what quartz promises."""

TOLD_EVERY_S = 1.0
"""All that waits for a stalled server is answered at once; one line says so."""

log = structlog.get_logger()


class Contact:
    """Listens to every reply.

    A reply that carries the server's time proves that its clock minus ours lay between `server - received` and
    `server - sent`. Each new interval is cut with what was known; where they do not meet, a clock has stepped.
    While the server refuses to write, nobody can extend a lease: then the reply to a read is no contact.
    """

    def __init__(self, clock: Clock, *, tolerance: float) -> None:
        """`tolerance`: the longest gap, and the largest step, in seconds that no lease can have suffered from."""
        self._clock = clock
        self._tolerance = tolerance
        self._low = self._high = clock.wall() - clock.monotonic()
        self._low_known = False
        self._timed = self._heard = self._steady_since = clock.monotonic()
        self._lost = self._refused = False
        self._reason = ""
        self._told: dict[str, float] = {}

    def heard(self, server_us: int, sent: float) -> None:
        """A reply has just come to what was sent then; the server's clock showed these microseconds in between."""
        received = self._clock.monotonic()
        slack = (received - self._timed) * DRIFT
        low, high = server_us / 1e6 - received, server_us / 1e6 - sent
        if self._low_known:
            step = max(low - self._high, self._low - high, 0.0)
            if step <= slack:
                low, high = max(low, self._low - slack), min(high, self._high + slack)
            elif step > self._tolerance:
                self._disturbed(received, "server_clock_stepped", seconds=round(step, 3))
        self._low, self._high, self._low_known, self._timed = low, high, True, received
        if received - sent > self._tolerance:
            self._disturbed(received, "server_stalled", seconds=round(received - sent, 3))

    def answered(self, *, wrote: bool) -> None:
        """A reply has come; `wrote` if it proves that the server writes."""
        if self._refused and not wrote:
            return
        received = self._clock.monotonic()
        if self._lost:
            self._lost = self._refused = False
            gap = received - self._heard
            log.info("store_back", after_s=round(gap, 1))
            if gap > self._tolerance:
                self._steady_since = received
        self._heard = received

    def missed(self, reason: str, *, refused: bool = False) -> None:
        """No reply has come, or one that says that the server cannot serve (`refused`)."""
        self._refused = refused
        self._reason = reason
        if not self._lost:
            self._lost = True
            log.warning("store_lost", error=reason)

    def now(self) -> Millis:
        """The server's time; exact to half the shortest round trip."""
        return int((self._clock.monotonic() + (self._low + self._high) / 2) * 1000)

    def instant(self, moment: Millis) -> float:
        """The monotonic second at which the server's clock surely shows this moment: late rather than early."""
        return moment / 1000 - self._low

    def steady_for(self) -> float:
        """Seconds without a gap or a step."""
        return 0.0 if self._lost else self._clock.monotonic() - self._steady_since

    @property
    def lost(self) -> bool:
        return self._lost

    @property
    def trouble(self) -> str | None:
        """Why the server does not serve just now; None if it does."""
        return self._reason if self._lost else None

    def _disturbed(self, at: float, event: str, **facts: float) -> None:
        self._steady_since = at
        if at - self._told.get(event, -TOLD_EVERY_S) >= TOLD_EVERY_S:
            self._told[event] = at
            log.warning(event, **facts)
