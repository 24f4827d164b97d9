"""The daemon's life: start, serve, and stop in the order that loses nothing."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from later.daemon.pool import Pool

log = structlog.get_logger()

Loop = Callable[..., Awaitable[None]]
"""Runs until cancelled, and reports through `task_status` when it has begun."""


class StoppedUnexpectedly(Exception):
    """A loop that should run for ever has ended; the process ends too, so that somebody restarts it whole."""


async def serve(
    *,
    pool: Pool,
    lifelines: Sequence[tuple[str, Loop]],
    services: Sequence[tuple[str, Loop]],
    grace: float,
    ready: Callable[[], None],
    stopping: Callable[[], None],
) -> int:
    """Run until a signal says stop; returns the exit status.

    Each loop comes with the sentence that names it. The order of stopping is the indentation: `services` (what takes
    work in) end first; then running attempts get the grace period and the rest is put back; the `lifelines` (leases,
    settlements, the archive) end last. A second signal stops at once, with status 1: what was running comes back when
    its lease ends.
    """
    status = 0

    async def stop_at_once(signals: AsyncIterator[signal.Signals]) -> None:
        nonlocal status
        await anext(signals)
        status = 1
        log.warning("stopped_at_once", running=len(pool.attempts))
        outer.cancel_scope.cancel()

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with anyio.create_task_group() as outer:
            await _start(outer, lifelines)
            async with pool:
                async with anyio.create_task_group() as inner:
                    await _start(inner, services)
                    ready()
                    await anext(signals)
                    stopping()
                    log.info("stopping", running=len(pool.attempts))
                    outer.start_soon(stop_at_once, signals, name="stop at once on a second signal")
                    inner.cancel_scope.cancel()
                await pool.drain(grace)
            outer.cancel_scope.cancel()
    return status


async def _start(group: anyio.abc.TaskGroup, loops: Sequence[tuple[str, Loop]]) -> None:
    for sentence, loop in loops:
        await group.start(_for_ever, sentence, loop, name=sentence)


async def _for_ever(sentence: str, loop: Loop, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
    await loop(task_status=task_status)
    raise StoppedUnexpectedly(f"this has ended by itself: {sentence}")
