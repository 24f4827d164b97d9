"""The two actions that need nobody else: the daemon's own terminal, and the inbox."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TextIO

import pytest

from later.actions.base import Action, PermanentFailure
from later.actions.console import ConsoleAction
from later.actions.inbox import InboxAction
from later.actions.registry import Surroundings
from later.core.errors import InvalidTask
from later.core.task import Status, Task
from later.settings import Settings
from tests.terminal import a_pty


def a_task(message: str = "Call Anna", to: str | None = None) -> Task:
    return Task(
        owner="ada",
        id="t1",
        uid="01hv5x",
        queue="default",
        status=Status.RUNNING,
        action="console",
        message=message,
        to=to,
        due=1000,
    )


def surroundings(audience: TextIO | None = None) -> Surroundings:
    return Surroundings(settings=Settings(), now=lambda: 1012, audience=audience)


@pytest.fixture
def terminal() -> Iterator[tuple[TextIO, int]]:
    """A terminal as the daemon sees it, and the end at which a person would read."""
    screen, keyboard = a_pty()
    with os.fdopen(keyboard, "w", encoding="utf-8") as audience:
        yield audience, screen
    os.close(screen)


@pytest.mark.parametrize("kind", [ConsoleAction, InboxAction])
def test_they_are_actions(kind: type[Action]) -> None:
    assert isinstance(kind(surroundings()), Action)


async def test_a_thought_is_printed_at_once_and_steers_nothing(terminal: tuple[TextIO, int]) -> None:
    audience, screen = terminal
    action = ConsoleAction(surroundings(audience))
    action.check(a_task())
    receipt = await action.perform(a_task("Grüße\n\x1b[31m\u202e"))
    assert os.read(screen, 1000).decode() == 'delivered t1: "Grüße\\n\\x1b[31m\\u202e" 12 ms after its time\r\n'
    assert receipt.detail == "printed on the daemon's terminal"


async def test_without_a_terminal_nothing_counts_as_printed() -> None:
    action = ConsoleAction(surroundings())
    with pytest.raises(InvalidTask, match="nobody would see it: this daemon has no terminal; use inbox"):
        action.check(a_task())
    with pytest.raises(PermanentFailure, match="nobody would see it"):
        await action.perform(a_task())


async def test_a_thought_is_kept_in_the_inbox() -> None:
    action = InboxAction(surroundings())
    action.check(a_task())
    assert (await action.perform(a_task())).detail == "kept in the inbox"


def test_the_inbox_wants_a_text_and_no_address() -> None:
    action = InboxAction(surroundings())
    with pytest.raises(InvalidTask, match="needs a text"):
        action.check(a_task(""))
    with pytest.raises(InvalidTask, match="it takes no address; leave --to out"):
        action.check(a_task(to="ada@example.org"))
