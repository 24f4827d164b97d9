"""Where a contract test takes place: some stores that share one ground, and that ground's time.

In the real one time goes by itself and is waited for; in the model's the test moves it.
"""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack
from typing import Any, Protocol

import anyio

from later.clock import Clock
from later.core.lifecycle import Receipt, Settlement
from later.core.task import LONGEST_LEASE, Failure, Millis, Status, Task
from later.store.base import Store
from later.store.calls import connect
from later.store.keys import Layout
from later.store.redis import RedisStore
from tests.contract.model import Ground, ModelStore
from tests.servers import Server
from tests.waiting import wait_until

HOUR: Millis = 3_600_000
LEASE: Millis = LONGEST_LEASE
OWN_QUEUES = frozenset({"default", "slow"})


class World(Protocol):
    async def store(self, holder: str = "one", **options: Any) -> Store:
        """One daemon's door, open."""

    async def now(self) -> Millis:
        """The ground's own time."""

    async def until(self, moment: Millis) -> None:
        """Return once the ground's time is there."""

    async def breathe(self) -> None:
        """Let a little time go by."""


class ServerWorld:
    """A real server, and real stores on it."""

    def __init__(self, server: Server, stack: AsyncExitStack) -> None:
        self.server = server
        self.raw = connect(server.url)
        self._stack = stack
        stack.push_async_callback(self.raw.aclose)

    async def store(self, holder: str = "one", **options: Any) -> RedisStore:
        store = RedisStore(self.server.url, clock=Clock(), holder=holder, **{"own_queues": OWN_QUEUES, **options})
        await self._stack.enter_async_context(store.session())
        await store.open()
        return store

    async def now(self) -> Millis:
        seconds, micros = await self.raw.time()
        return seconds * 1000 + micros // 1000

    async def until(self, moment: Millis) -> None:
        async def reached() -> bool:
            return await self.now() >= moment

        await wait_until(reached)

    async def breathe(self) -> None:
        await anyio.sleep(0.001)


class ModelWorld:
    """The model, and its clock."""

    def __init__(self) -> None:
        self.ground = Ground(now=1_790_000_000_000, layout=Layout(partitions=1, own_queues=OWN_QUEUES))

    async def store(self, holder: str = "one") -> ModelStore:
        return ModelStore(self.ground, holder)

    async def now(self) -> Millis:
        return self.ground.now

    async def until(self, moment: Millis) -> None:
        self.ground.now = max(self.ground.now, moment)

    async def breathe(self) -> None:
        self.ground.now += 1


uids = itertools.count(1)


def thought(task_id: str = "milk", *, due: Millis | None, owner: str = "ana", **said: Any) -> Task:
    """A new task, pending or (without a due time) created, with a uid of its own."""
    task = {
        "uid": f"u{next(uids)}",
        "queue": "default",
        "status": Status.CREATED if due is None else Status.PENDING,
        "action": "inbox",
        "message": f"think of {task_id}",
        "nominal": due,
        "created": 1_700_000_000_000,
        "updated": 1_700_000_000_000,
    }
    return Task(owner=owner, id=task_id, due=due, **{**task, **said})


def completed(task: Task, detail: str = "kept") -> Settlement:
    return Settlement(
        task=task,
        status=Status.COMPLETED,
        due=None,
        attempts=task.attempts + 1,
        crashes=task.crashes,
        blamed=task.blamed,
        failures=task.failures,
        started=1_700_000_000_123,
        receipt=Receipt(detail=detail, data={"id": 7}),
    )


def retried(task: Task, due: Millis, reason: str = "the server said 421") -> Settlement:
    """Another failed attempt; it is tried again at `due`."""
    failures = (*task.failures, Failure(at=1_700_000_000_200, reason=reason))
    return Settlement(
        task=task, status=None, due=due, attempts=task.attempts + 1, crashes=0, blamed=0, failures=failures, started=1
    )


def failed(task: Task, reason: str = "no such mailbox") -> Settlement:
    """The last failed attempt."""
    failures = (*task.failures, Failure(at=1_700_000_000_300, reason=reason))
    return Settlement(
        task=task,
        status=Status.FAILED,
        due=None,
        attempts=task.attempts + 1,
        crashes=0,
        blamed=0,
        failures=failures,
        started=1_700_000_000_123,
    )


def put_back(task: Task) -> Settlement:
    """The attempt is as if it had not begun."""
    return Settlement(
        task=task,
        status=None,
        due=task.due,
        attempts=task.attempts,
        crashes=task.crashes,
        blamed=task.blamed,
        failures=task.failures,
        started=1,
    )


def withdrawn(task: Task) -> Settlement:
    """The owner asked for the end while it was running."""
    return Settlement(
        task=task,
        status=Status.CANCELLED,
        due=None,
        attempts=task.attempts,
        crashes=task.crashes,
        blamed=task.blamed,
        failures=task.failures,
        started=1,
    )
