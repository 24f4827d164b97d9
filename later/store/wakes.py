"""Hears of sooner tasks. A wake-up is a hint: whoever misses one looks again by itself before long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import redis.asyncio as redis
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from redis.exceptions import RedisError

from later.store import keys
from later.store.keys import Lane

QUIET_S = 15.0
RETRY_S = 1.0


class Wakes:
    """Listens on the wake channels and lets those sleep who wait for a lane."""

    def __init__(self, server: redis.Redis, lanes: Sequence[Lane]) -> None:
        self._server = server
        self._channels = {keys.wake(lane.partition): lane.partition for lane in lanes}
        self._events = {lane: asyncio.Event() for lane in lanes}

    async def wait(self, lane: Lane, seconds: float) -> bool:
        """Sleep until the lane is woken (True) or the time is over (False); a wake-up in between counts."""
        event = self._events[lane]
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        event.clear()
        return True

    async def listen(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Hear the channels until cancelled; a lost connection is made again, and then every lane is woken."""
        task_status.started()
        while True:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with self._server.pubsub() as pubsub:
                    await pubsub.subscribe(*self._channels)
                    self._wake_all()
                    await self._hear(pubsub)
            await asyncio.sleep(RETRY_S)

    async def _hear(self, pubsub: redis.client.PubSub) -> None:
        while True:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=QUIET_S)
            if message is not None and message["type"] == "message":
                event = self._events.get(Lane(self._channels[message["channel"]], message["data"]))
                if event is not None:
                    event.set()

    def _wake_all(self) -> None:
        for event in self._events.values():
            event.set()
