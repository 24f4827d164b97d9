"""Tells systemd how it goes, where systemd asks (sd_notify(3)); elsewhere does nothing."""

from __future__ import annotations

import asyncio
import os
import random
import socket

import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from later.core.errors import StoreUnavailable
from later.daemon.patience import Patience
from later.store.base import Store

log = structlog.get_logger()


class Notifier:
    """Speaks to the socket that $NOTIFY_SOCKET names."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._watchdog_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6

    def ready(self) -> None:
        self._say("READY=1")

    def stopping(self, within: float) -> None:
        """It will take at most so many seconds, which may be more than the unit allows for."""
        self._say(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(within * 1e6)}")

    @property
    def watched(self) -> bool:
        return self._watchdog_s > 0

    async def watch(
        self, store: Store, rng: random.Random, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED
    ) -> None:
        """Report life only as proof: each report follows a round trip to the store."""
        task_status.started()
        patience = Patience(rng)
        while True:
            try:
                await store.ping()
            except StoreUnavailable:
                await patience.pause()
                continue
            patience.reset()
            self._say("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 3)

    def _say(self, state: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the NUL of the abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as systemd:
            try:
                systemd.connect(address)
                systemd.send(state.encode())
            except OSError as error:
                log.warning("systemd_not_told", error=error.strerror)
