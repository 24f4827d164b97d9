"""Group commit: everything that is ready to be settled goes out in one transaction."""

from __future__ import annotations

import asyncio
import random

from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from later.core.errors import StoreUnavailable
from later.core.lifecycle import Settlement
from later.daemon.patience import Patience
from later.store.base import Settled, Store

BATCH = 50
"""Settlements in one transaction: they hold the server up for about a millisecond."""

DAMAGED_S = 1.0
"""How soon a settlement is tried again whose lane has to be mended."""


class Settler:
    """Collects settlements while one transaction is under way, and sends them together with the next."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self._store = store
        self._rng = rng
        self._waiting: list[tuple[Settlement, asyncio.Future[Settled]]] = []
        self._ready = asyncio.Event()

    async def record(self, settlement: Settlement) -> Settled:
        """Have it settled; returns when the store has answered, however long that takes."""
        answer: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        self._put(settlement, answer)
        return await answer

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Settle until cancelled."""
        task_status.started()
        while True:
            await self._ready.wait()
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not self._waiting:
                self._ready.clear()
            results = await self._settle([settlement for settlement, _ in batch])
            for (settlement, answer), result in zip(batch, results, strict=True):
                if answer.done():
                    continue
                if result is Settled.DAMAGED:  # the others do not wait for it
                    asyncio.get_running_loop().call_later(DAMAGED_S, self._put, settlement, answer)
                else:
                    answer.set_result(result)

    def _put(self, settlement: Settlement, answer: asyncio.Future[Settled]) -> None:
        self._waiting.append((settlement, answer))
        self._ready.set()

    async def _settle(self, settlements: list[Settlement]) -> list[Settled]:
        """Repeated until the store answers: the fence makes a repetition harmless."""
        patience = Patience(self._rng)
        while True:
            try:
                return list(await self._store.settle(settlements))
            except StoreUnavailable:
                await patience.pause()
