"""Prints the thought where somebody watches: only in a daemon that runs in the foreground on a terminal."""

from __future__ import annotations

from later.actions.base import PermanentFailure, Receipt
from later.actions.display import harmless
from later.actions.registry import Surroundings
from later.core.errors import InvalidTask
from later.core.task import Task


class ConsoleAction:
    """One line a task, flushed; control characters are shown and not obeyed."""

    name = "console"

    def __init__(self, surroundings: Surroundings) -> None:
        self._audience = surroundings.audience
        self._now = surroundings.now

    def check(self, task: Task) -> None:
        if self._audience is None:
            raise InvalidTask(
                "nobody would see it: this daemon has no terminal; use inbox, or run `later run` yourself"
            )

    async def perform(self, task: Task) -> Receipt:
        if self._audience is None:
            raise PermanentFailure("nobody would see it: this daemon has no terminal")
        late = max(0, self._now() - (task.due or 0))
        text = harmless(task.message).replace("\n", r"\n")
        self._audience.write(f'delivered {task.id}: "{text}" {late} ms after its time\n')
        self._audience.flush()
        return Receipt(detail="printed on the daemon's terminal")
