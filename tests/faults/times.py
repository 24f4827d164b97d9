"""What the server's clock showed, as far as that can be told from our own and the steps it was made to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.events import NEVER, Step

HEARSAY_MS = 30_000.0
"""How long a daemon may go by what it heard of the server's clock: it looks again every 15 s, unless it is cut off."""


@dataclass(frozen=True, slots=True)
class ServerTime:
    """Our ms → the server's ms."""

    steps: Sequence[Step]

    def latest(self, since: float, until: float) -> float:
        """The most that it can have shown at some moment in between."""
        return max(
            min(end, until) + offset for begin, end, offset in self._stretches() if begin <= until and end >= since
        )

    def earliest(self, since: float, until: float) -> float:
        """The least that a daemon can have taken it to show in between: it may not have heard of the last step yet."""
        return min(
            max(begin, since) + offset
            for begin, end, offset in self._stretches()
            if begin <= until and end >= since - HEARSAY_MS
        )

    def reached(self, shown: float, since: float) -> float:
        """Our moment, not before `since`, at which it first showed so much."""
        for begin, end, offset in self._stretches():
            if (at := max(begin, since, shown - offset)) <= end:
                return at
        raise AssertionError("the last stretch has no end")

    def doubtful_until(self, at: float) -> float:
        """What a claim's number must be beyond, in ms, to tell when it was drawn.

        Claims are numbered by the server's clock, but never fall back with it; so those after a step back are numbered
        by what the clock had shown at most.
        """
        return max((step.until + before for before, step in self._backward() if step.since <= at), default=-NEVER)

    def _stretches(self) -> list[tuple[float, float, float]]:
        begins = [(-NEVER, 0.0), *((step.since, step.offset) for step in self.steps)]
        ends = [*(step.until for step in self.steps), NEVER]
        return [(begin, end, offset) for (begin, offset), end in zip(begins, ends, strict=True)]

    def _backward(self) -> list[tuple[float, Step]]:
        offsets = [0.0, *(step.offset for step in self.steps)]
        return [(before, step) for before, step in zip(offsets, self.steps, strict=False) if step.offset < before]
