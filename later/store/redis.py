"""The store on Redis or Valkey ≥ 7.0. The set a task is in is its state; each transition is one script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from redis.exceptions import ResponseError

from later.clock import Clock
from later.core.errors import Conflict, IdTaken, InvalidSetting, NotFound, StoreDamaged, StoreFull, TaskRunning
from later.core.lifecycle import Settlement
from later.core.task import Millis, Status, Task
from later.store import codec, keys
from later.store.base import (
    Added,
    Claim,
    Examined,
    Held,
    Moved,
    Movement,
    Overdue,
    Page,
    Recovered,
    Restored,
    Settled,
    Standing,
    Walked,
)
from later.store.calls import Calls, connect
from later.store.contact import Contact
from later.store.fsck.examiner import Examiner
from later.store.fsck.inspection import Inspection
from later.store.holding import Holding
from later.store.keys import Lane
from later.store.outbox import RedisOutbox
from later.store.reader import Reader, read_task
from later.store.scripts import Call, Script
from later.store.stocktaking import Stocktaking
from later.store.wakes import QUIET_S, Wakes

OUTBOX_LIMIT = 100_000
"""Adds are refused beyond this many transitions that nobody has kept: better no new task than a lost past."""

ENDING = "{!r} is about to end as cancelled; add it again once that is over"
OUTBOX_FULL = "too many finished tasks wait to be archived, so nothing new is kept; is a daemon running?"


class RedisStore:
    """Keeps live tasks on a server of its own or of somebody else's."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        holder: str,
        own_queues: frozenset[str] = frozenset({"default"}),
        partitions: int = 1,
        replicas: int = 0,
        lease: Millis = 30_000,
    ) -> None:
        """`own_queues` are performed by daemons; every other queue belongs to its owner and is pulled by clients.

        `replicas`: so many must have what an owner asks for before it is acknowledged.
        """
        self.url = url
        self.holder = holder
        self.partitions = partitions
        self._layout = keys.Layout(partitions=partitions, own_queues=own_queues)
        self._clock = clock
        self._contact = Contact(clock, tolerance=lease / 3000)
        self._server = connect(url)
        self._listener = connect(url, health_check_interval=int(QUIET_S))
        self._calls = Calls(self._server, self._contact, clock, replicas=replicas)
        self._wakes = Wakes(self._listener, self._layout.lanes)
        self._reader = Reader(self._calls, self._layout)
        self._stocktaking = Stocktaking(self._calls, self._reader)
        self._inspection = Inspection(self._calls, self._layout, self._contact.now)
        self._examiner = Examiner(self._calls, self._layout, self._inspection, clock)
        self.outbox = RedisOutbox(self._calls, partitions)
        self._holding = Holding(self._calls, self._layout, self._inspection, holder)
        self._add, self._move = Script("add"), Script("move")

    @property
    def lanes(self) -> Sequence[Lane]:
        return self._layout.lanes

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self._server.aclose()
                await self._listener.aclose()

    async def open(self) -> None:
        try:
            await self.ping()
        except ResponseError as refusal:  # of what the address says: the number of the database, for one
            raise InvalidSetting(f"LATER_REDIS_URL: the server refuses it: {refusal}") from None
        try:
            kept = await self._calls.command("HGET", keys.META, "partitions")
        except StoreDamaged:  # `later fsck` has to come in to mend it
            return
        if kept is None:  # asked first, as a full server refuses to write, and has to be drained all the same
            await self._calls.command("HSETNX", keys.META, "partitions", self.partitions)
            kept = await self._calls.command("HGET", keys.META, "partitions")
        if kept != str(self.partitions):
            raise InvalidSetting(
                f"LATER_PARTITIONS is {self.partitions}, but this store was begun with {kept}; set it to {kept}, "
                "or take everything to an empty one: `later export --all`, then `later import`"
            )

    async def listen(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        await self._wakes.listen(task_status=task_status)

    def now(self) -> Millis:
        return self._contact.now()

    def instant(self, moment: Millis) -> float:
        return self._contact.instant(moment)

    def steady_for(self) -> float:
        return self._contact.steady_for()

    def trouble(self) -> str | None:
        return self._contact.trouble

    async def ping(self) -> None:
        sent = self._clock.monotonic()
        seconds, micros = await self._calls.command("TIME")
        self._contact.heard(int(seconds) * 1_000_000 + int(micros), sent)

    async def add(self, task: Task) -> Added:
        answer, *kept = await self._calls.acknowledged(self._add, *self._adding(task))
        match answer:
            case "added" | "replaced":
                return Added(task=task, kept=False, replaced=answer == "replaced")
            case "kept" if (there := _kept(task.name, *kept)) is not None:
                return Added(task=there, kept=True)
            case "ending":
                raise Conflict(ENDING.format(task.id))
            case "taken" | "kept":
                raise IdTaken(
                    f"{task.id!r} is another task already, and it stays; choose another id or change that task"
                )
            case _:
                raise StoreFull(OUTBOX_FULL)

    async def restore(self, ones: Sequence[Standing]) -> Sequence[Restored]:
        # Also where there are none: then replicas have what is here already.
        answers = await self._calls.acknowledged_each(
            self._add, [self._adding(one.task, since=one.since) for one in ones]
        )
        if ["full"] in answers:
            raise StoreFull(OUTBOX_FULL)
        return [Restored(answer) for [answer] in answers]

    def _adding(self, task: Task, *, since: Millis | str = "") -> Call:
        partition = self._layout.partition(task.owner)
        queue = self._layout.queue(task.owner, task.queue)
        of_keys = [
            keys.task(partition, task.name),
            keys.user(partition, task.owner),
            keys.created(partition),
            keys.due(partition, queue),
            keys.failed(partition),
            keys.outbox(partition),
            keys.running(partition, queue),
        ]
        due = "" if task.due is None else task.due
        arguments = [task.name, task.id, task.status, due, since, keys.wake(partition), queue, OUTBOX_LIMIT]
        return of_keys, [*arguments, *codec.pack(task, lane=queue)]

    async def claim(self, lane: Lane, *, limit: int, lease: Millis) -> Claim:
        return await self._holding.claim(lane, limit=limit, lease=lease)

    async def adopt(self, lane: Lane) -> Sequence[Task]:
        return await self._reader.held_by(lane, self.holder)

    async def extend(self, tasks: Sequence[Task], *, lease: Millis, alone: bool = False) -> Sequence[Held]:
        return await self._holding.extend(tasks, lease=lease, alone=alone)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        results = await self._holding.settle(settlements)
        self.outbox.written()
        return results

    async def recover(self, lane: Lane, *, limit: int, every: bool = False) -> Recovered:
        return await self._holding.recover(lane, limit=limit, bound=None if every else self.now())

    async def move(self, owner: str, task_id: str, movement: Movement) -> Moved:
        partition, name = self._layout.partition(owner), f"{owner}/{task_id}"
        code, status, lease_end = await self._calls.acknowledged(
            self._move,
            [
                keys.task(partition, name),
                keys.user(partition, owner),
                keys.created(partition),
                keys.failed(partition),
                keys.outbox(partition),
                keys.quarantine(partition),
            ],
            [
                keys.root(partition),
                name,
                task_id,
                movement.to or "",
                "" if movement.due is None else movement.due,
                f" {' '.join(movement.states)} ",
                "" if movement.version is None else movement.version,
                keys.wake(partition),
                *codec.pack_movement(movement),
            ],
        )
        match code:
            case "absent":
                raise NotFound(f"there is no live task {task_id!r}; `later list` shows those there are")
            case "version":
                raise Conflict(f"{task_id!r} was changed in the meantime; read it again and repeat what you want")
            case "ending":
                raise Conflict(ENDING.format(task_id))
            case "untimed":
                raise Conflict(f"{task_id!r} never had a time to go back to; say when, as in --in 3d")
            case "state" if status == Status.RUNNING:
                until = codec.score(lease_end)
                raise TaskRunning(
                    f"{task_id!r} is being performed right now; try again when that is over",
                    lease_until=until,
                )
            case "state":
                raise Conflict(f"{task_id!r} is {status}, and this is only for tasks that are {_or(movement.states)}")
        self.outbox.written()
        return Moved(status=Status(status), withdrawn=code == "withdrawn")

    async def get(self, owner: str, task_id: str) -> Task | None:
        [task] = await self._reader.read(owner, [task_id])
        return task

    async def page(self, owner: str, *, statuses: Iterable[Status], cursor: str | None, limit: int) -> Page:
        return await self._reader.page(owner, statuses=frozenset(statuses), cursor=cursor, limit=limit)

    async def uids(self, names: Sequence[str]) -> Sequence[str | None]:
        return await self._reader.uids(names)

    async def walk(self, owner: str | None, *, cursor: str | None, looked_at: int) -> Walked:
        return await self._stocktaking.page(owner, cursor=cursor, looked_at=looked_at)

    async def head(self, lane: Lane) -> Millis | None:
        return await self._reader.head(lane)

    async def overdue(self, lane: Lane) -> Overdue:
        return await self._reader.overdue(lane, self.now())

    async def counts(self) -> Mapping[str, int]:
        return await self._reader.counts()

    async def live_of(self, owner: str) -> int:
        return await self._reader.live_of(owner)

    async def failed_of(self, owner: str) -> int:
        return await self._reader.failed_of(owner)

    async def examine(self, cursor: str | None, *, mend: bool) -> Examined:
        return await self._examiner.examine(cursor, mend=mend)

    async def describe(self) -> Mapping[str, Any]:
        return await self._reader.describe()

    async def wait(self, lane: Lane, seconds: float) -> bool:
        return await self._wakes.wait(lane, seconds)


def _kept(name: str, created: str | None, lease: str | None, due: Any, fields: Sequence[str]) -> Task | None:
    """The task that stays, as the script saw it: it may have ended since. None if its record cannot be read."""
    return read_task(name, codec.pairs(fields), due=due, created=created, failed=None, lease=lease)


def _or(states: Iterable[Status]) -> str:
    return " or ".join(sorted(states))
