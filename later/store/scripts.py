"""Runs the Lua scripts: by their digest, and by their text where the server has forgotten them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

import redis.asyncio as redis
from redis.exceptions import NoScriptError, OutOfMemoryError

Argument = str | int | float


class Script:
    """One transition, as its file in `lua/` says it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = resources.files("later.store").joinpath(f"lua/{name}.lua").read_text(encoding="utf-8")
        # The digest is the script's name to the server, not a safeguard.
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, server: redis.Redis, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """The script's answer; sent as text to the same server when that has forgotten it (restart, SCRIPT FLUSH)."""
        try:
            return await server.execute_command("EVALSHA", self.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await server.execute_command("EVAL", self.text, len(keys), *keys, *arguments)

    async def run_and_wait(
        self, server: redis.Redis, keys: Sequence[str], arguments: Sequence[Argument], *, replicas: int, within_ms: int
    ) -> tuple[Any, int]:
        """The script's answer, and how many replicas have what it wrote; both over one connection, as WAIT asks."""
        answer: Any = None
        reached = 0
        for command, body in (("EVALSHA", self.sha), ("EVAL", self.text)):
            async with server.pipeline(transaction=False) as pipeline:
                pipeline.execute_command(command, body, len(keys), *keys, *arguments)
                pipeline.execute_command("WAIT", replicas, within_ms)
                answer, reached = await pipeline.execute(raise_on_error=False)
            if not isinstance(answer, NoScriptError):
                break
        for said in (answer, reached):
            if isinstance(said, Exception):
                raise said
        return answer, reached

    async def run_in_transaction(self, server: redis.Redis, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """The same as MULTI · EVALSHA · EXEC.

        A server that is out of memory refuses whatever is queued in MULTI, even a script that may run then; such a
        script is sent bare.
        """
        try:
            return await self._transaction(server, "EVALSHA", self.sha, keys, arguments)
        except NoScriptError:
            return await self._transaction(server, "EVAL", self.text, keys, arguments)
        except OutOfMemoryError:
            return await self.run(server, keys, arguments)

    async def _transaction(
        self, server: redis.Redis, command: str, body: str, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:
        async with server.pipeline(transaction=True) as pipeline:
            pipeline.execute_command(command, body, len(keys), *keys, *arguments)
            [answer] = await pipeline.execute()
        return answer
