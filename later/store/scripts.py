"""Runs the Lua scripts: by their digest, and by their text where the server has forgotten them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

import redis.asyncio as redis
from redis.exceptions import NoScriptError, OutOfMemoryError

from later.store.keys import REPLICAS

Argument = str | int | float
Call = tuple[Sequence[str], Sequence[Argument]]
"""The keys and the arguments of a script."""


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

    async def run_each(
        self, server: redis.Redis, calls: Sequence[Call], *, replicas: int, within_ms: int
    ) -> tuple[list[Any], int]:
        """The answers to these calls, and how many replicas have what they wrote: one round trip, one connection.

        They are made again, all of them, where the server has forgotten the script meanwhile.
        """
        answers: list[Any] = []
        for command, body in (("EVALSHA", self.sha), ("EVAL", self.text)):
            async with server.pipeline(transaction=False) as pipeline:
                for keys, arguments in calls:
                    pipeline.execute_command(command, body, len(keys), *keys, *arguments)
                if replicas:
                    # WAIT looks at what this connection wrote last. A repetition writes nothing, but what it repeats
                    # may be nowhere else yet; this goes to the replicas behind all of it, also where memory is full.
                    pipeline.execute_command("PUBLISH", REPLICAS, "")
                    pipeline.execute_command("WAIT", replicas, within_ms)
                answers = await pipeline.execute(raise_on_error=False)
            if not any(isinstance(answer, NoScriptError) for answer in answers):
                break
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return (answers[:-2], answers[-1]) if replicas else (answers, 0)

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
