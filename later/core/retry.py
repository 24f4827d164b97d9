"""How long to wait before the next attempt, and when to stop trying."""

from __future__ import annotations

import random
from dataclasses import dataclass

from later.core.task import Millis


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Capped exponential backoff with full jitter, under two budgets; whichever ends first ends the trying.

    `attempts` counts performances, `within` runs from the nominal moment, `blamed` counts leases that ended without a
    word while the task was performed alone: those are never charged to the attempts.
    """

    attempts: int
    within: Millis
    base: Millis
    cap: Millis
    blamed: int = 4  # by chance three met innocent tasks when daemons were killed every few seconds

    def exhausted(self, *, attempts: int, began: Millis, next_at: Millis) -> bool:
        """Whether an attempt at `next_at` would be one too many or too late."""
        return attempts >= self.attempts or next_at > began + self.within


def backoff(policy: RetryPolicy, attempt: int, rng: random.Random) -> Millis:
    """The pause after the given failed attempt (1 for the first): uniform over [0, min(cap, base · 2^(attempt-1))].

    "Full jitter" as in M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015). Any attempt number
    is safe: the exponent is bounded before the power is taken.
    """
    return rng.randint(0, ceiling(policy, attempt))


def ceiling(policy: RetryPolicy, attempt: int) -> Millis:
    """The longest pause that `backoff` may draw after this attempt."""
    return min(policy.cap, policy.base << min(max(attempt, 1) - 1, 40))
