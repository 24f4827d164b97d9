"""The bounded pool of worker tasks: how many places there are, who has one, and how an attempt is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import structlog

from later.core.lifecycle import PutBack, Withdrawn
from later.core.task import Task

SETTLE_S = 10.0
"""How long a stopping daemon waits for its last settlements to be answered."""

log = structlog.get_logger()


class Lost:
    """The lease is somebody else's now: whatever came of the attempt must not be recorded."""


Ending = PutBack | Withdrawn | Lost


class Attempt:
    """One claimed task in one place of the pool."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.ending: Ending | None = None
        self.worker: asyncio.Task[None] | None = None
        self.performing: asyncio.Task[None] | None = None  # set only while the action is, so that it may be cancelled

    def end(self, ending: Ending) -> None:
        """Stop performing, for this reason; an attempt that has ended by itself is left alone."""
        if self.ending is None and self.performing is not None:
            self.ending = ending
            self.performing.cancel()


class Pool:
    """A semaphore whose holders are known. A place is held until the task is settled."""

    def __init__(self, places: int, work: Callable[[Attempt], Awaitable[None]]) -> None:
        self.places = places
        self._work = work
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._reserved = 0
        self._left = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Pool:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._group.__aexit__(kind, error, trace)

    @property
    def free(self) -> int:
        return self.places - len(self._attempts) - self._reserved

    @property
    def attempts(self) -> Sequence[Attempt]:
        return list(self._attempts.values())

    @property
    def claims(self) -> set[tuple[str, int]]:
        """What has a place, by name and claim number."""
        return set(self._attempts)

    @contextmanager
    def reserved(self, most: int) -> Iterator[int]:
        """Hold the free places, up to so many, for what a claim brings: other managers claim at the same time."""
        places = min(self.free, most)
        self._reserved += places
        try:
            yield places
        finally:
            self._reserved -= places
            self._left.set()

    def start(self, task: Task) -> None:
        """Give the task a place; one that has it already, under the same claim, keeps it."""
        key = (task.name, task.claim)
        if key not in self._attempts:
            attempt = self._attempts[key] = Attempt(task)
            attempt.worker = self._group.create_task(self._hold(key, attempt), name=f"perform {task.name}")

    async def wait_for_room(self, seconds: float) -> None:
        """Sleep until a place is left, or the time is over."""
        self._left.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._left.wait()
        except TimeoutError:
            return

    async def drain(self, grace: float) -> None:
        """Let what is running end by itself for so many seconds, then put the rest back.

        A store that does not answer by then is not waited for: the leases end, and the tasks come back.
        """
        await self._empty_within(grace)
        if self._attempts:
            log.warning("attempts_put_back", count=len(self._attempts), grace_s=grace)
        for attempt in self.attempts:
            attempt.end(PutBack())
        await self._empty_within(SETTLE_S)
        if self._attempts:
            log.error("settlements_given_up", count=len(self._attempts), waited_s=SETTLE_S)
        for attempt in self.attempts:
            if attempt.worker is not None:
                attempt.worker.cancel()

    async def _empty_within(self, seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while self._attempts and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await self.wait_for_room(left)

    async def _hold(self, key: tuple[str, int], attempt: Attempt) -> None:
        try:
            await self._work(attempt)
        finally:
            del self._attempts[key]
            self._left.set()
