"""What an owner can ask for: the one set of verbs behind the HTTP API, the command line and the Python API."""

from __future__ import annotations

import random
import secrets
from base64 import b32encode
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from later.actions.registry import Registry
from later.archive.archive import Archive
from later.archive.writer import Writer
from later.core.errors import Conflict, InvalidTask, NotFound
from later.core.past import Transition
from later.core.task import Millis, Spec, Status, Task, check_id, check_message
from later.core.when import When, parse_zone, resolve
from later.store.base import Added, Moved, Movement, Page, Store

HOLD = When(hold=True)

AT_REST = frozenset({Status.CREATED, Status.PENDING, Status.FAILED})
"""The states in which a task waits for its owner or its time, so that its owner may change it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a task gets that does not say."""

    queue: str
    action: str
    to: str | None
    zone: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """What a caller says of a new task; None is left to the defaults."""

    message: str = ""
    id: str | None = None
    action: str | None = None
    to: str | None = None
    payload: Mapping[str, Any] | None = None
    options: Mapping[str, Any] | None = None
    zone: str | None = None
    when: When = HOLD


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What an owner changes of a task; None stays."""

    message: str | None = None
    to: str | None = None
    action: str | None = None


class Client:
    """One owner's view of Later."""

    def __init__(
        self,
        owner: str,
        *,
        store: Store,
        archive: Archive,
        writer: Writer,
        actions: Registry,
        defaults: Defaults,
        rng: random.Random,
    ) -> None:
        self.owner = owner
        self._store = store
        self._archive = archive
        self._writer = writer
        self._actions = actions
        self._defaults = defaults
        self._rng = rng

    async def add(self, new: NewTask) -> Added:
        """Keep a new task. Once this has returned, only its owner or its own end removes it.

        Raises InvalidTask, InvalidTime, IdTaken, StoreFull, StoreUnavailable; after the last the same id may be sent
        again: it is the same task.
        """
        zone = _checked_zone(new.zone or self._defaults.zone)
        now = self._store.now()
        moment = resolve(new.when, now=now, rng=self._rng, zone=zone)
        task = Task(
            owner=self.owner,
            id=check_id(new.id) if new.id is not None else draw_id(),
            uid=draw_uid(),
            queue=self._defaults.queue,
            status=Status.CREATED if moment.due is None else Status.PENDING,
            action=new.action or self._defaults.action,
            message=check_message(new.message),
            to=new.to,
            payload=new.payload,
            options=new.options,
            zone=zone,
            rule=moment.rule,
            window=moment.window,
            due=moment.due,
            nominal=moment.due,
            created=now,
            updated=now,
        )
        self._actions.check(task)
        return await self._store.add(task)

    async def get(self, task_id: str) -> Task | Transition:
        """The live task of that id, or the latest past one. Raises NotFound."""
        task = await self._store.get(self.owner, check_id(task_id))
        return task or await self._past(task_id)

    async def page(self, statuses: Iterable[Status], *, cursor: str | None = None, limit: int = 100) -> Page:
        """Live tasks in these states, in due order."""
        return await self._store.page(self.owner, statuses=statuses, cursor=cursor, limit=limit)

    async def history(
        self, statuses: Iterable[Status], *, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Transition], str | None]:
        """Past tasks that came to these states, newest first, and where the list goes on."""
        await self._writer.catch_up()
        rows, following = await self._archive.page(self.owner, statuses=tuple(statuses), cursor=cursor, limit=limit)
        return list(rows), following

    async def update(self, task_id: str, changes: Changes) -> Task:
        """Change what is to be done; its time stays. Raises NotFound, Conflict, TaskRunning, InvalidTask."""
        task = await self._at_rest(task_id)
        spec = replace(
            task.spec,
            message=task.message if changes.message is None else check_message(changes.message),
            to=task.to if changes.to is None else changes.to or None,
            action=changes.action or task.action,
        )
        return await self._respecify(task, spec, Movement(states=AT_REST))

    async def schedule(self, task_id: str, when: When, *, zone: str | None = None) -> Task:
        """Give it another time, as if it had been added with it. Raises InvalidTime, NotFound, TaskRunning."""
        task = await self._at_rest(task_id)
        zone = _checked_zone(zone or task.zone)
        moment = resolve(when, now=self._store.now(), rng=self._rng, zone=zone)
        if moment.due is None:
            raise InvalidTask("say when: --at, --in or --within")
        return await self._respecify(
            task,
            replace(task.spec, rule=moment.rule, zone=zone),
            Movement(
                states=AT_REST,
                to=Status.PENDING,
                due=moment.due,
                nominal=moment.due,
                window=moment.window,
                afresh=task.status is Status.FAILED,
            ),
        )

    async def snooze(self, task_id: str, duration: str) -> Task:
        """Let it come this much later from now; one that has come already comes again."""
        moment = resolve(When(in_=duration), now=self._store.now(), rng=self._rng)
        assert moment.due is not None
        return await self._bring(task_id, moment.due)

    async def execute(self, task_id: str) -> Task:
        """Let it come now; one that has come already comes again."""
        return await self._bring(task_id, self._store.now())

    async def delete(self, task_id: str) -> Moved:
        """Cancel it; a running one is not performed again. Raises NotFound."""
        states = frozenset({*AT_REST, Status.RUNNING})
        return await self._store.move(self.owner, check_id(task_id), Movement(states=states, to=Status.CANCELLED))

    async def retry(self, task_id: str) -> Task:
        """Try a failed task again now, with all its attempts. Raises NotFound, Conflict."""
        task = await self._at_rest(task_id)
        movement = Movement(states=frozenset({Status.FAILED}), to=Status.PENDING, due=self._store.now(), afresh=True)
        return await self._move(task, movement)

    async def retry_all(self) -> int:
        """Try all failed tasks again; returns how many."""
        # All are found before the first is tried: one that fails again at once would be found for ever.
        failed, cursor = [], None
        while True:
            page = await self.page([Status.FAILED], cursor=cursor, limit=1000)
            failed += [task.id for task in page.tasks]
            cursor = page.next
            if cursor is None:
                break
        count = 0
        for task_id in failed:
            with suppress(NotFound, Conflict):  # its owner was faster
                await self.retry(task_id)
                count += 1
        return count

    async def inbox(self) -> list[Transition]:
        """Thoughts that have come and were not read yet, oldest first."""
        await self._writer.catch_up()
        return list(await self._archive.unread(self.owner))

    async def mark_read(self, delivery_ids: Collection[str]) -> int:
        """Mark these thoughts of the inbox as read; returns how many were not before."""
        seen = [past.key for past in await self._archive.unread(self.owner) if past.task.delivery_id in delivery_ids]
        await self._archive.mark_read(self.owner, seen)
        return len(seen)

    async def unread(self) -> int:
        """How many thoughts wait in the inbox."""
        await self._writer.catch_up()
        return await self._archive.count_unread(self.owner)

    async def failed(self) -> int:
        """How many tasks have failed and wait for their owner."""
        return await self._store.failed_of(self.owner)

    async def _bring(self, task_id: str, due: Millis) -> Task:
        """Move a live task to this moment, or add a past one again as a new task with the same content."""
        live = await self._store.get(self.owner, check_id(task_id))
        if live is not None:
            movement = Movement(states=AT_REST, to=Status.PENDING, due=due, afresh=live.status is Status.FAILED)
            return await self._move(live, movement)
        past = (await self._past(task_id)).task
        now = self._store.now()
        again = Task(
            owner=self.owner,
            id=past.id,
            uid=draw_uid(),
            queue=past.queue,
            status=Status.PENDING,
            due=due,
            nominal=due,
            created=now,
            updated=now,
            **{field: getattr(past.spec, field) for field in past.spec.__slots__},
        )
        self._actions.check(again)
        return (await self._store.add(again)).task

    async def _respecify(self, task: Task, spec: Spec, movement: Movement) -> Task:
        """Change the content together with the movement, unless somebody else has changed it since it was read."""
        self._actions.check(replace(task, **{field: getattr(spec, field) for field in spec.__slots__}))
        return await self._move(task, replace(movement, spec=spec, version=task.version))

    async def _at_rest(self, task_id: str) -> Task:
        task = await self._store.get(self.owner, check_id(task_id))
        if task is None:
            raise NotFound(f"there is no live task {task_id!r}; `later list` shows those there are")
        return task

    async def _move(self, task: Task, movement: Movement) -> Task:
        """Change it; the task as it stands then, or as it was changed where it has ended in another daemon's past."""
        await self._store.move(self.owner, task.id, movement)
        with suppress(NotFound):
            there = await self.get(task.id)
            return there if isinstance(there, Task) else there.task
        return _moved(task, movement)

    async def _past(self, task_id: str) -> Transition:
        # First, because the archive may know an earlier task of that id.
        await self._writer.catch_up()
        past = await self._archive.latest(self.owner, task_id)
        if past is None:
            raise NotFound(f"there is no task {task_id!r}; `later list` shows the live ones, `later history` the past")
        return past


def _moved(task: Task, movement: Movement) -> Task:
    """The task as the movement leaves it."""
    spec = movement.spec or task.spec
    said: dict[str, Any] = {field: getattr(spec, field) for field in spec.__slots__}
    if movement.due is not None:
        said["due"] = movement.due
    if movement.nominal is not None:
        said |= {"nominal": movement.nominal, "window": movement.window}
    if movement.afresh:
        said |= {"attempts": 0, "crashes": 0, "failures": ()}
    return replace(task, status=movement.to or task.status, version=task.version + 1, **said)


def draw_id() -> str:
    """A new id: 10 characters of base32, 50 bits of chance; readable aloud, and without case."""
    return b32encode(secrets.token_bytes(7)).decode().lower()[:10]


def draw_uid() -> str:
    """A task's uid: 80 bits of chance, 16 characters."""
    return b32encode(secrets.token_bytes(10)).decode().lower()


def _checked_zone(zone: str | None) -> str | None:
    return parse_zone(zone).key if zone else None
