"""What a store of live tasks can do, in the words of tasks and not of any server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from later.core.lifecycle import Settlement
from later.core.past import Transition
from later.core.task import Millis, Spec, Status, Task, Window
from later.store.keys import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """`kept` means that the same thought was there already; `task` is then the one that stays."""

    task: Task
    kept: bool
    replaced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The tasks that a claim took, oldest first, and the due time of the next one that stays (None: there is none)."""

    tasks: Sequence[Task]
    next_due: Millis | None


class Held(StrEnum):
    """What has become of a lease that was to be extended."""

    KEPT = "kept"
    CANCEL = "cancel"  # kept, and the owner asks for an end
    LOST = "lost"


class Settled(StrEnum):
    """What has become of a settlement."""

    DONE = "done"
    ALREADY = "already"  # an earlier try of the same settlement had arrived
    STALE = "stale"  # the lease was lost; nothing was changed
    GONE = "gone"  # the task is not there any more
    DAMAGED = "damaged"  # its lane cannot be used before it is mended; nothing was changed
    QUARANTINED = "quarantined"  # its record cannot be read


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """A change that an owner asks for.

    `to` is the new status (None: it stays), `states` those from which it may happen. `due` alone moves the task and
    leaves the series as it is; `nominal` and `window` come together and say that it is meant for another time now.
    None leaves a field as it is. A `version` that is not the task's current one refuses the change.
    """

    states: frozenset[Status]
    to: Status | None = None
    due: Millis | None = None
    nominal: Millis | None = None
    window: Window | None = None
    spec: Spec | None = None
    afresh: bool = False  # attempts, crashes, blame and failures begin at none again
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The status after the movement; `withdrawn` means that it is running and will end as cancelled."""

    status: Status
    withdrawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """How many expired leases were put back to due, and when the next lease ends (None: there is none)."""

    count: int
    next_end: Millis | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """How many tasks of a lane wait past their due time, and by how much the oldest."""

    count: int
    late: Millis


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of an owner's tasks in due order; `next` continues (None: that was the last)."""

    tasks: Sequence[Task]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A live task, and since when it has been in its state."""

    task: Task
    since: Millis


class Restored(StrEnum):
    """What has become of a task that came from elsewhere."""

    ADDED = "added"
    KEPT = "kept"  # the very same is here already, and stays as it is
    TAKEN = "taken"  # another task has its id


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """Some live tasks on a walk through all of them, the names of those that cannot be read, and where it goes on."""

    found: Sequence[Standing]
    unreadable: Sequence[str]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What a part of an examination has counted and found; `next` continues (None: that was all).

    Damages and advice come by kind, with what it says, how many there are, how many were mended and the first names.
    `keys` says roughly how many records there may be in all.
    """

    counts: Mapping[str, int]
    damages: Sequence[Mapping[str, Any]]
    advice: Sequence[Mapping[str, Any]]
    keys: int
    next: str | None


class Outbox(Protocol):
    """The final transitions that nobody has kept elsewhere yet, in order."""

    async def read(self, limit: int) -> Sequence[Transition]:
        """The oldest ones, at most this many."""

    async def forget(self, transitions: Sequence[Transition]) -> None:
        """Delete those that are kept elsewhere now."""

    async def wait(self, seconds: float) -> None:
        """Sleep until there may be more, or the time is over."""


class Store(Protocol):
    """Keeps live tasks; every method is one step that happens whole or not at all.

    All raise StoreUnavailable when the outcome is unknown or the server cannot serve now; none repeats a write by
    itself.
    """

    @property
    def outbox(self) -> Outbox:
        """What is past, on its way to the archive."""

    @property
    def lanes(self) -> Sequence[Lane]:
        """The lines of due tasks that daemons perform."""

    def session(self) -> AbstractAsyncContextManager[None]:
        """Hold connections to the server; let go of them at the end."""

    async def open(self) -> None:
        """Reach the server and make sure that its keys are of this layout. Raises InvalidSetting."""

    async def listen(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Hear of sooner tasks until cancelled; without it `wait` only waits."""

    def now(self) -> Millis:
        """The store's own time, as known here."""

    def instant(self, moment: Millis) -> float:
        """The monotonic second here at which the store's clock will show this moment."""

    def steady_for(self) -> float:
        """Seconds since which contact has had no gap and the store's clock no step."""

    def trouble(self) -> str | None:
        """Why the server takes nothing just now, though it may answer what is read; None if it does."""

    async def ping(self) -> None:
        """Prove a round trip."""

    async def add(self, task: Task) -> Added:
        """Keep a new task; a failed one of that id is replaced.

        Raises IdTaken when other content has the id, Conflict while its owner's wish to end it is being carried out.
        """

    async def restore(self, ones: Sequence[Standing]) -> Sequence[Restored]:
        """Keep tasks that come from elsewhere as they were, each for itself; they replace nothing. Raises StoreFull."""

    async def claim(self, lane: Lane, *, limit: int, lease: Millis) -> Claim:
        """Take due tasks under a lease, oldest first."""

    async def adopt(self, lane: Lane) -> Sequence[Task]:
        """The tasks that are claimed in this holder's name: more than it knows of, where a claim's reply was lost."""

    async def extend(self, tasks: Sequence[Task], *, lease: Millis, alone: bool = False) -> Sequence[Held]:
        """Let the leases of claimed tasks end this much later from now.

        `alone`: each is performed alone from now on, so that a crash under this claim can be blamed on it.
        """

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        """Record what came of claimed tasks, each for itself, all in one step."""

    async def recover(self, lane: Lane, *, limit: int, every: bool = False) -> Recovered:
        """Put tasks whose lease has ended back to due, counting a crash; `every` does not ask whether it has."""

    async def move(self, owner: str, task_id: str, movement: Movement) -> Moved:
        """Change a task for its owner. Raises NotFound, Conflict or TaskRunning."""

    async def get(self, owner: str, task_id: str) -> Task | None:
        """The live task of that id."""

    async def page(self, owner: str, *, statuses: Iterable[Status], cursor: str | None, limit: int) -> Page:
        """The owner's live tasks in these states, in due order."""

    async def uids(self, names: Sequence[str]) -> Sequence[str | None]:
        """The uids of the live tasks of these names, `<owner>/<id>`; None where there is none."""

    async def walk(self, owner: str | None, *, cursor: str | None, looked_at: int) -> Walked:
        """Live tasks of the owner (None: of all) among the next so many keys, in no order.

        One that is there from the walk's beginning to its end comes at least once. Raises Conflict for a cursor that
        has become void.
        """

    async def head(self, lane: Lane) -> Millis | None:
        """When the lane's next task is due."""

    async def overdue(self, lane: Lane) -> Overdue:
        """What of the lane waits past its time."""

    async def counts(self) -> Mapping[str, int]:
        """How many tasks there are by status, and in quarantine and outbox."""

    async def live_of(self, owner: str) -> int:
        """How many live tasks the owner has."""

    async def failed_of(self, owner: str) -> int:
        """How many of the owner's tasks have failed."""

    async def wait(self, lane: Lane, seconds: float) -> bool:
        """Sleep until a sooner task becomes the lane's head (True) or the time is over (False)."""

    async def examine(self, cursor: str | None, *, mend: bool) -> Examined:
        """Look for about a second whether every task is where it must be, and mend what is not. Raises Conflict."""

    async def describe(self) -> Mapping[str, Any]:
        """What server this is, where, and the settings on which its promises rest."""
