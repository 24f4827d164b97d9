"""Goes through the store's keys, a page at a time; whoever comes back with the cursor goes on where the page ended."""

from __future__ import annotations

import re
from collections.abc import Sequence

from later.core.errors import Conflict
from later.store.calls import Calls


class Walk:
    """What SCAN promises: a key that is there from beginning to end comes at least once, in the server's own order."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def begin(self) -> str:
        """The cursor of the first page."""
        return f"{await self._server()}.0"

    async def page(self, pattern: str, *, cursor: str | None, looked_at: int) -> tuple[Sequence[str], str | None]:
        """Keys like this glob pattern among the next so many, and where the walk goes on (None: that was all).

        Raises Conflict where the server has been started anew since the cursor was given: its order is another now.
        """
        server, place = await self.check(cursor or await self.begin())
        following, found = await self._calls.command("SCAN", place, "MATCH", pattern, "COUNT", looked_at)
        return found, None if int(following) == 0 else f"{server}.{following}"

    async def check(self, cursor: str) -> tuple[str, str]:
        """This run of the server, and where in its order that is; raises Conflict as `page` does."""
        begun, _, place = cursor.rpartition(".")
        if begun != await self._server() or not is_a_place(place):
            raise Conflict("the store was restarted in the meantime; begin again")
        return begun, place

    async def _server(self) -> str:
        """This run of the server."""
        return str((await self._calls.command("INFO", "server"))["run_id"])


def is_a_place(text: str) -> bool:
    """Whether SCAN and ZSCAN go on from there, and do not refuse it."""
    return bool(re.fullmatch(r"[0-9]{1,20}", text)) and int(text) < 2**64
