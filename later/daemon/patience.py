"""How a loop waits for a store that does not answer."""

from __future__ import annotations

import asyncio
import random

FIRST_S = 0.05
LONGEST_S = 2.0


class Patience:
    """Pauses that double, with jitter, so that daemons neither hammer a server nor return to it all at once."""

    def __init__(self, rng: random.Random, *, longest_s: float = LONGEST_S) -> None:
        self._rng = rng
        self._longest_s = min(longest_s, LONGEST_S)
        self._next = FIRST_S

    async def pause(self) -> None:
        await asyncio.sleep(self._rng.uniform(self._next / 2, self._next))
        self._next = min(self._next * 2, self._longest_s)

    def reset(self) -> None:
        """It has answered."""
        self._next = FIRST_S
