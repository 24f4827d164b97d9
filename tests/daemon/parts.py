"""A daemon's parts, joined in this process as wiring joins them, around actions that a test brings along."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import anyio
import redis.asyncio as redis

from later.actions.registry import Registry, Surroundings
from later.clock import Clock
from later.core.lifecycle import Receipt
from later.core.past import Transition
from later.core.retry import RetryPolicy
from later.core.task import Millis, Status, Task
from later.daemon.diary import Diary
from later.daemon.leases import Leases
from later.daemon.manager import Manager
from later.daemon.performer import Performer
from later.daemon.pool import Pool
from later.daemon.settler import Settler
from later.daemon.suspects import Suspects
from later.daemon.worker import Worker
from later.settings import Settings
from later.store.base import Movement
from later.store.calls import connect
from later.store.redis import RedisStore
from tests.waiting import wait_until

OWNER = "ada"
HOUR_MS = 3_600_000
PATIENT = RetryPolicy(attempts=150, within=72 * HOUR_MS, base=5_000, cap=HOUR_MS)
EAGER = RetryPolicy(attempts=3, within=72 * HOUR_MS, base=1, cap=1)
"""Three attempts, one right after the other."""

Performing = Callable[[Task], Awaitable[Receipt | None]]


@dataclass(frozen=True)
class Start:
    """One beginning of an attempt: which, and when by this machine's clock, which is also the server's."""

    task: Task
    at: float

    @property
    def early_ms(self) -> float:
        assert self.task.due is not None
        return self.task.due - self.at


class Recorder:
    """An action that notes who was performed when; `perform` says what else it does."""

    def __init__(self, perform: Performing | None = None, *, name: str = "record") -> None:
        self.name = name
        self._perform = perform
        self.starts: list[Start] = []
        self.finished: list[Task] = []
        self.cut_off: list[Task] = []
        self.at_once = 0
        self.most_at_once = 0

    def check(self, task: Task) -> None:
        pass

    async def perform(self, task: Task) -> Receipt:
        self.starts.append(Start(task, time.time() * 1000))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            receipt = await self._perform(task) if self._perform else None
        except anyio.get_cancelled_exc_class():
            self.cut_off.append(task)
            raise
        finally:
            self.at_once -= 1
        self.finished.append(task)
        return receipt or Receipt(detail="noted")

    @property
    def times(self) -> Counter[str]:
        """How often each id was begun."""
        return Counter(start.task.id for start in self.starts)


class Gate:
    """Actions wait in front of it until it is opened."""

    def __init__(self) -> None:
        self._open = anyio.Event()

    async def __call__(self, task: Task) -> None:
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


def lasting(seconds: float) -> Performing:
    """An action that takes so long."""

    async def perform(task: Task) -> None:
        await anyio.sleep(seconds)

    return perform


@dataclass(frozen=True)
class Door:
    """An entry point for an action that is made already."""

    action: Any

    @property
    def name(self) -> str:
        return cast(str, self.action.name)

    def load(self) -> Callable[[Surroundings], Any]:
        return lambda surroundings: self.action


class Parts:
    """One daemon. The clock and the server are real; chance is seeded."""

    def __init__(
        self,
        url: str,
        *actions: Any,
        holder: str = "here:1:0",
        workers: int = 50,
        batch: int = 50,
        lease: Millis = 30_000,
        timeout: float = 60.0,
        wakeup_before: float = 1.0,
        policy: RetryPolicy = PATIENT,
        queues: Sequence[str] = ("default",),
        partitions: int = 1,
    ) -> None:
        self.clock = Clock()
        self.rng = random.Random(holder)
        self.lease = lease
        self.store = RedisStore(
            url, clock=self.clock, holder=holder, own_queues=frozenset(queues), partitions=partitions, lease=lease
        )
        registry = Registry(
            Surroundings(settings=Settings(), now=self.store.now), doors=[cast(Any, Door(action)) for action in actions]
        )
        self.settler = Settler(self.store, self.rng)
        self.worker = Worker(
            store=self.store,
            performer=Performer(registry, timeout=timeout),
            settler=self.settler,
            policy=policy,
            rng=self.rng,
            diary=Diary(self.clock),
        )
        self.pool = Pool(workers, Suspects(self.worker, self.store, self.rng, lease=lease).work)
        self.leases = Leases(self.store, self.pool, self.rng, lease=lease)
        self.managers = [
            Manager(
                lane,
                store=self.store,
                pool=self.pool,
                clock=self.clock,
                rng=self.rng,
                batch=batch,
                lease=lease,
                wakeup_before=wakeup_before,
            )
            for lane in self.store.lanes
        ]

    @property
    def manager(self) -> Manager:
        [manager] = self.managers
        return manager

    @asynccontextmanager
    async def reachable(self) -> AsyncIterator[None]:
        """Only the store: nothing is performed."""
        async with self.store.session():
            await self.store.open()
            yield

    @asynccontextmanager
    async def working(self, *, leases: bool = True, wakes: bool = True) -> AsyncIterator[None]:
        """Everything but the managers: attempts are performed, settled and, if wanted, kept under their leases."""
        async with AsyncExitStack() as house:
            await house.enter_async_context(self.reachable())
            lifelines = await house.enter_async_context(anyio.create_task_group())
            await lifelines.start(self.settler.run)
            if leases:
                await lifelines.start(self.leases.run)
            if wakes:
                await lifelines.start(self.store.listen)
            async with self.pool:
                yield
                await self.pool.drain(0)
            lifelines.cancel_scope.cancel()

    @asynccontextmanager
    async def running(self, *, leases: bool = True, wakes: bool = True) -> AsyncIterator[None]:
        """All of it, until the block ends; then what is running is put back."""
        async with self.working(leases=leases, wakes=wakes), anyio.create_task_group() as services:
            for manager in self.managers:
                await services.start(manager.run)
            yield
            services.cancel_scope.cancel()

    async def add(self, *tasks: Task) -> None:
        """Keep these tasks; all of them are new."""
        for task in tasks:
            assert not (await self.store.add(task)).kept

    async def claim_one(self) -> Task:
        """Take the one task that is due."""
        [claimed] = (await self.store.claim(self.store.lanes[0], limit=1, lease=self.lease)).tasks
        return claimed

    async def cancel(self, task_id: str) -> None:
        """Withdraw it in its owner's name, wherever it stands."""
        everywhere = frozenset({Status.CREATED, Status.PENDING, Status.RUNNING, Status.FAILED})
        await self.store.move(OWNER, task_id, Movement(states=everywhere, to=Status.CANCELLED))

    async def past(self) -> Sequence[Transition]:
        """The outbox, in order."""
        return await self.store.outbox.read(10_000)

    async def past_of(self, task_id: str) -> list[Status]:
        """What the outbox says of this id."""
        return [one.task.status for one in await self.past() if one.task.id == task_id]

    async def settled(self, count: int, *, within: float = 20.0) -> Mapping[Status, int]:
        """Wait until so many tasks have come to their end; says to which."""

        async def enough() -> bool:
            return len(await self.past()) >= count

        await wait_until(enough, within=within)
        return Counter(one.task.status for one in await self.past())


def task(task_id: str, *, due: Millis | None = None, action: str = "record", queue: str = "default") -> Task:
    """A new task of ada's, due now if nothing else is said."""
    now = int(time.time() * 1000)
    due = now if due is None else due
    return Task(
        owner=OWNER,
        id=task_id,
        uid=f"uid-{task_id}",
        queue=queue,
        status=Status.PENDING,
        action=action,
        message=f"think of {task_id}",
        due=due,
        nominal=due,
        created=now,
        updated=now,
    )


async def commands(url: str) -> Counter[str]:
    """How often each command was carried out on this server since it started, in scripts too; not this question."""
    async with connect(url) as server:
        found = await server.info("commandstats")
    counts = Counter({name.removeprefix("cmdstat_"): stats["calls"] for name, stats in found.items()})
    return Counter({name: count for name, count in counts.items() if name not in ("info", "client|setinfo")})


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[redis.Redis]:
    """A client of the server itself, for what no daemon would do."""
    async with connect(url) as server:
        yield server
