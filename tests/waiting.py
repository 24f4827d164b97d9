"""Waiting for a condition instead of a duration."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

import anyio


async def wait_until(condition: Callable[[], bool | Awaitable[bool]], *, within: float = 20.0) -> None:
    """Return as soon as the condition, plain or async, holds; TimeoutError if it does not within so many seconds."""
    # Not asyncio.timeout: it cancels once, and in Python 3.11 redis-py (by asyncio.wait_for) may swallow that.
    with anyio.fail_after(within):
        while not await _holds(condition):
            await anyio.sleep(0.01)


async def _holds(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    found = condition()
    return await found if inspect.isawaitable(found) else found
