"""What an action is, and how it says that it failed. An action knows no attempts, no store and no retries."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from later.core.lifecycle import Receipt
from later.core.task import Millis, Task

__all__ = ["Action", "PermanentFailure", "Receipt", "TemporaryFailure"]


class TemporaryFailure(Exception):
    """It did not work now, and may work later: not before `retry_after` milliseconds, if that is given."""

    def __init__(self, reason: str, retry_after: Millis | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class PermanentFailure(Exception):
    """It did not work and never will: trying again is pointless."""


@runtime_checkable
class Action(Protocol):
    """Something that can be done at a task's moment.

    An action is made once, as `cls(surroundings)`, and performs many tasks at a time. It is free to raise anything;
    what is not a PermanentFailure counts as temporary.
    """

    name: str

    def check(self, task: Task) -> None:
        """Refuse, when it is added, a task that could never be performed. Raises InvalidTask."""

    async def perform(self, task: Task) -> Receipt:
        """Do it, and say what the other side answered.

        Called again with the same `task.delivery_id` after a failure or a crash; `task.claim` only ever grows, so a
        receiver can refuse what is stale. Raises TemporaryFailure or PermanentFailure.
        """
