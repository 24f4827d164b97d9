"""Tasks that may end daemons are performed one at a time, so that none is blamed for what its neighbour does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from later.core.task import Millis, Task

SUSPECT = 2
"""After one crash all are tried again side by side; after a second one of them may be to blame."""
ASIDE_MS: Millis = 2_000
"""How long, at most, a suspect stands aside before it asks again."""


class Suspects:
    """Lets one suspect in; the others are to be put back, because whatever is claimed shares the blame of a crash."""

    def __init__(self) -> None:
        self._here = 0
        self._left = asyncio.Event()

    @staticmethod
    def include(task: Task) -> bool:
        return task.crashes >= SUSPECT

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Inside, whether this one may be performed; if so, all others have been put back by then."""
        self._here += 1
        first = self._here == 1
        try:
            await asyncio.sleep(0)  # those of the same claim begin in the same turn of the event loop
            while first and self._here > 1:
                self._left.clear()
                await self._left.wait()
            yield first
        finally:
            self._here -= 1
            self._left.set()
