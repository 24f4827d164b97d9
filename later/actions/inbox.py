"""Keeps the thought as unread: `later inbox` shows it, and the shell's prompt announces it."""

from __future__ import annotations

from later.actions.base import Receipt
from later.actions.registry import Surroundings
from later.core.errors import InvalidTask
from later.core.task import Task


class InboxAction:
    """The delivery is the record itself: the archive keeps it as unread in the owner's inbox."""

    name = "inbox"

    def __init__(self, surroundings: Surroundings) -> None:
        pass

    def check(self, task: Task) -> None:
        if not task.message:
            raise InvalidTask("a thought for the inbox needs a text")
        if task.to is not None:
            raise InvalidTask("the inbox is your own, so it takes no address; leave --to out")

    async def perform(self, task: Task) -> Receipt:
        return Receipt(detail="kept in the inbox")
