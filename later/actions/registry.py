"""The actions there are: built-ins and plug-ins, all through the entry point group `later.actions`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import TextIO

from later.actions.base import Action
from later.core.errors import InvalidTask
from later.core.task import Millis, Task
from later.settings import Settings

GROUP = "later.actions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an action may need to know when it is made.

    `now` is the store's time in milliseconds; `audience` is who watches the daemon's output (None: nobody).
    """

    settings: Settings
    now: Callable[[], Millis]
    audience: TextIO | None = None


class Registry:
    """Actions by name, each made when it is first needed."""

    def __init__(self, surroundings: Surroundings, doors: Iterable[EntryPoint] | None = None) -> None:
        self._surroundings = surroundings
        self._doors: Mapping[str, EntryPoint] = {
            door.name: door for door in (entry_points(group=GROUP) if doors is None else doors)
        }
        self._made: dict[str, Action] = {}

    @property
    def names(self) -> list[str]:
        return sorted(self._doors)

    def get(self, name: str) -> Action:
        """The action of that name; raises InvalidTask with the known ones."""
        if name not in self._made:
            door = self._doors.get(name)
            if door is None:
                close = get_close_matches(name, self.names, n=1)
                meant = f"; did you mean {close[0]}?" if close else ""
                raise InvalidTask(f"no action {name[:80]!r}; known: {', '.join(self.names)}{meant}")
            self._made[name] = door.load()(self._surroundings)
        return self._made[name]

    def check(self, task: Task) -> None:
        """Refuse a task that could never be performed. Raises InvalidTask."""
        self.get(task.action).check(task)
