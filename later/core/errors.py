"""Everything that can go wrong, as one family.

    LaterError
    ├── InvalidTask         what was asked cannot be kept as it stands
    │   └── InvalidTime     … because of its moment
    ├── InvalidSetting      a setting is unknown or unusable
    ├── NotFound            the owner has no such task
    ├── Conflict            the task is there, but not in a state that allows this
    │   ├── IdTaken         the id belongs to another task of the same owner
    │   └── TaskRunning     it is being performed right now
    ├── NotAuthorized       the caller may not do this
    │   └── NotAuthenticated  … because nobody knows who is calling
    └── Unavailable         not now; the same request may succeed later
        └── StoreUnavailable  the store does not answer, or answers that it cannot
            ├── StoreFull     … because its memory or its outbox is full
            └── StoreDamaged  … because one of its keys is not what it should be

A class's docstring is its default message. Each message says what was asked, what is wrong and what would work.
"""

from __future__ import annotations


class LaterError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)

    @property
    def message(self) -> str:
        return str(self.args[0])


class InvalidTask(LaterError):
    """This cannot be kept as a task."""


class InvalidTime(InvalidTask):
    """This is not a moment in the future."""


class InvalidSetting(LaterError):
    """A setting is unknown or unusable."""


class NotFound(LaterError):
    """There is no such task; `later list` shows the live ones, `later history` the past ones."""


class Conflict(LaterError):
    """The task is not in a state that allows this."""


class IdTaken(Conflict):
    """Another task has this id already; choose another id, or change that task."""


class TaskRunning(Conflict):
    """The task is being performed right now; try again when that is over."""

    def __init__(self, message: str | None = None, *, lease_until: int | None = None) -> None:
        super().__init__(message)
        self.lease_until = lease_until


class NotAuthorized(LaterError):
    """You may not do this."""


class NotAuthenticated(NotAuthorized):
    """A valid token is needed: send it as `Authorization: Bearer …`."""


class Unavailable(LaterError):
    """Later cannot do this right now; try again in a moment."""


class StoreUnavailable(Unavailable):
    """The store does not answer; nothing is lost, try again in a moment."""


class StoreFull(StoreUnavailable):
    """The store is full, so nothing new is kept; make room or raise its memory limit, then try again."""


class StoreDamaged(StoreUnavailable):
    """A key of the store is not of the type that it should be; `later fsck --repair` mends it."""
