"""What a store of live tasks means, said as simply as it can be: dictionaries, and a clock that the test moves.

`Ground` is what several daemons share, as they share a server; `ModelStore` is one daemon's door to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from later.core.errors import Conflict, IdTaken, NotFound, StoreFull, TaskRunning
from later.core.lifecycle import Settlement
from later.core.past import Transition
from later.core.task import LIVE, LONGEST_LEASE, Millis, Status, Task
from later.store.base import Added, Claim, Held, Moved, Movement, Overdue, Page, Recovered, Restored, Settled, Standing
from later.store.keys import Lane, Layout

Key = tuple[str, str]


@dataclass
class Ground:
    """All that is kept. A task's status and due time are in the task itself; a lease's end beside it."""

    now: Millis
    layout: Layout
    outbox_limit: int = 100_000
    tasks: dict[Key, Task] = field(default_factory=dict)
    past: list[Transition] = field(default_factory=list)
    alone: set[tuple[str, int]] = field(default_factory=set)  # claims under which a task is performed alone
    claims: int = 0
    transitions: int = 0

    def finish(self, task: Task, status: Status, **known: object) -> None:
        """Append a final transition to the outbox."""
        self.transitions += 1
        task = replace(task, status=status, updated=self.now, lease_until=None)
        key, partition = f"{self.transitions}-0", self.layout.partition(task.owner)
        self.past.append(Transition(partition=partition, key=key, task=task, at=self.now, **known))


class ModelOutbox:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def read(self, limit: int) -> Sequence[Transition]:
        return self._ground.past[:limit]

    async def forget(self, transitions: Sequence[Transition]) -> None:
        kept = {one.key for one in transitions}
        self._ground.past = [one for one in self._ground.past if one.key not in kept]


class ModelStore:
    """The verbs of `later.store.base.Store` that change or show tasks."""

    def __init__(self, ground: Ground, holder: str) -> None:
        self.holder = holder
        self.outbox = ModelOutbox(ground)
        self._ground = ground

    @property
    def lanes(self) -> Sequence[Lane]:
        return self._ground.layout.lanes

    async def restore(self, ones: Sequence[Standing]) -> Sequence[Restored]:
        if len(self._ground.past) >= self._ground.outbox_limit:
            raise StoreFull
        return [self._restore(one.task) for one in ones]

    def _restore(self, task: Task) -> Restored:
        there = self._ground.tasks.get((task.owner, task.id))
        if there is None:
            self._put(task)
            return Restored.ADDED
        return Restored.KEPT if there.uid == task.uid else Restored.TAKEN

    async def add(self, task: Task) -> Added:
        there = self._ground.tasks.get((task.owner, task.id))
        if there is not None and there.status is not Status.FAILED:
            if there.cancel:
                raise Conflict
            if (there.spec, there.queue) == (task.spec, task.queue):
                return Added(task=there, kept=True)
            raise IdTaken
        if len(self._ground.past) >= self._ground.outbox_limit:
            raise StoreFull
        self._ground.tasks[task.owner, task.id] = task
        return Added(task=task, kept=False, replaced=there is not None)

    async def claim(self, lane: Lane, *, limit: int, lease: Millis) -> Claim:
        now = self._ground.now
        waiting = sorted(self._of(lane, Status.PENDING), key=lambda task: (task.due, task.name))
        taken = [task for task in waiting if task.due <= now][:limit]
        if taken:
            self._ground.claims += 1
        claim = {"status": Status.RUNNING, "claim": self._ground.claims, "holder": self.holder}
        for task in taken:
            self._put(replace(task, **claim, lease_until=now + lease))
        rest = waiting[len(taken) :]
        return Claim(tasks=[replace(task, **claim) for task in taken], next_due=rest[0].due if rest else None)

    async def adopt(self, lane: Lane) -> Sequence[Task]:
        return [task for task in self._of(lane, Status.RUNNING) if task.holder == self.holder]

    async def extend(self, tasks: Sequence[Task], *, lease: Millis, alone: bool = False) -> Sequence[Held]:
        return [self._extend(task, lease, alone) for task in tasks]

    def _extend(self, task: Task, lease: Millis, alone: bool) -> Held:
        there = self._held(task)
        if there is None:
            return Held.LOST
        self._put(replace(there, lease_until=self._ground.now + lease))
        if alone:
            self._ground.alone.add((there.name, there.claim))
        return Held.CANCEL if there.cancel else Held.KEPT

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        return [self._settle(settlement) for settlement in settlements]

    def _settle(self, settlement: Settlement) -> Settled:
        there = self._ground.tasks.get((settlement.task.owner, settlement.task.id))
        if there is None:
            return Settled.GONE
        if there.claim != settlement.task.claim:
            return Settled.STALE
        if there.status is not Status.RUNNING:
            return Settled.ALREADY
        status, due = settlement.status, settlement.due
        if there.cancel and status is not Status.COMPLETED:
            status, due = Status.CANCELLED, None
        outcome = {"attempts": settlement.attempts, "failures": settlement.failures}
        if status is not None:
            receipt = settlement.receipt and {"detail": settlement.receipt.detail, **settlement.receipt.data}
            self._ground.finish(replace(there, **outcome), status, started=settlement.started, receipt=receipt)
        if due is None and status is not Status.FAILED:
            del self._ground.tasks[there.owner, there.id]
            return Settled.DONE
        self._put(
            replace(
                there,
                status=status or Status.PENDING,
                due=there.due if due is None else due,
                crashes=settlement.crashes,
                blamed=settlement.blamed,
                lease_until=None,
                **outcome,
            )
        )
        return Settled.DONE

    async def recover(self, lane: Lane, *, limit: int, every: bool = False) -> Recovered:
        running = sorted(self._of(lane, Status.RUNNING), key=lambda task: (task.lease_until, task.name))
        far = self._ground.now + LONGEST_LEASE + 60_000
        ended = [task for task in running if every or not self._ground.now < task.lease_until <= far][:limit]
        for task in ended:
            back = {"status": Status.PENDING, "lease_until": None, "claim": 0, "holder": ""}
            blamed = task.blamed + ((task.name, task.claim) in self._ground.alone)
            self._put(replace(task, crashes=task.crashes + 1, blamed=blamed, **back))
        rest = [task for task in running if task not in ended]
        return Recovered(count=len(ended), next_end=rest[0].lease_until if rest else None)

    async def move(self, owner: str, task_id: str, movement: Movement) -> Moved:
        task = self._ground.tasks.get((owner, task_id))
        if task is None:
            raise NotFound
        if movement.version not in (None, task.version):
            raise Conflict
        if task.status not in movement.states:
            raise TaskRunning(lease_until=task.lease_until) if task.status is Status.RUNNING else Conflict
        if task.status is Status.RUNNING:
            if movement.to is not Status.CANCELLED:
                raise TaskRunning(lease_until=task.lease_until)
            self._put(replace(task, cancel=True))
            return Moved(status=Status.RUNNING, withdrawn=True)
        if task.cancel and movement.to is not Status.CANCELLED:
            raise Conflict
        if movement.to is Status.CANCELLED:
            self._ground.finish(task, Status.CANCELLED)
            del self._ground.tasks[owner, task_id]
            return Moved(status=Status.CANCELLED)
        if movement.to is Status.PENDING and movement.due is None and task.due is None:
            raise Conflict
        self._put(self._moved(task, movement))
        return Moved(status=movement.to or task.status)

    def _moved(self, task: Task, movement: Movement) -> Task:
        task = replace(task, version=task.version + 1, updated=self._ground.now, status=movement.to or task.status)
        if movement.to is Status.PENDING and movement.due is not None:
            task = replace(task, due=movement.due)
        if movement.nominal is not None:
            task = replace(task, nominal=movement.nominal, window=movement.window)
        if movement.spec is not None:
            task = replace(task, **{name: getattr(movement.spec, name) for name in movement.spec.__slots__})
        return replace(task, attempts=0, crashes=0, blamed=0, failures=()) if movement.afresh else task

    async def get(self, owner: str, task_id: str) -> Task | None:
        return self._ground.tasks.get((owner, task_id))

    async def uids(self, names: Sequence[str]) -> Sequence[str | None]:
        there = {task.name: task.uid for task in self._ground.tasks.values()}
        return [there.get(name) for name in names]

    async def page(self, owner: str, *, statuses: Iterable[Status], cursor: str | None, limit: int) -> Page:
        wanted = frozenset(statuses)
        mine = [task for task in self._ground.tasks.values() if task.owner == owner and task.status in wanted]
        mine.sort(key=lambda task: (task.due is None, task.due, task.id))
        begin = int(cursor or 0)
        end = begin + limit
        return Page(tasks=mine[begin:end], next=str(end) if len(mine) > end else None)

    async def head(self, lane: Lane) -> Millis | None:
        return min((task.due for task in self._of(lane, Status.PENDING)), default=None)

    async def overdue(self, lane: Lane) -> Overdue:
        late = [self._ground.now - task.due for task in self._of(lane, Status.PENDING) if task.due <= self._ground.now]
        return Overdue(count=len(late), late=max(late, default=0))

    async def counts(self) -> Mapping[str, int]:
        own = self._ground.layout.own_queues
        kept = Counter(
            task.status.value
            for task in self._ground.tasks.values()
            if task.status in (Status.CREATED, Status.FAILED) or task.queue in own
        )
        total = {status.value: kept[status.value] for status in LIVE}
        return {**total, "quarantined": 0, "outbox": len(self._ground.past)}

    async def failed_of(self, owner: str) -> int:
        return sum(task.owner == owner and task.status is Status.FAILED for task in self._ground.tasks.values())

    def _of(self, lane: Lane, status: Status) -> list[Task]:
        layout = self._ground.layout
        return [
            task
            for task in self._ground.tasks.values()
            if task.status is status and layout.lane(task.owner, task.queue) == lane
        ]

    def _held(self, task: Task) -> Task | None:
        there = self._ground.tasks.get((task.owner, task.id))
        held = there is not None and there.status is Status.RUNNING and there.claim == task.claim
        return there if held else None

    def _put(self, task: Task) -> None:
        self._ground.tasks[task.owner, task.id] = task
