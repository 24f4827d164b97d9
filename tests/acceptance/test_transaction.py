"""What a completion is on the wire: one transaction, as MONITOR shows it on the embedded server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from redis.asyncio.client import Monitor

from later.core.task import Status
from later.store.embedded import EmbeddedServer
from tests.daemon.parts import OWNER, Parts, Recorder, plain, task
from tests.waiting import wait_until

NEVER = {"WATCH", "UNWATCH", "KEYS", "SCAN"}
CHANGES = {"ZADD", "ZREM", "DEL", "HSET", "HDEL", "HINCRBY", "XADD", "XDEL", "SET"}
RUNNING, RECORD, LIST, OUTBOX = (
    "later:{0}:running:default",
    f"later:{{0}}:task:{OWNER}/t",
    f"later:{{0}}:user:{OWNER}",
    "later:{0}:outbox",
)


@dataclass(frozen=True)
class Command:
    """One command as the server carried it out, and whether a script called it."""

    words: Sequence[str]
    in_script: bool

    @property
    def name(self) -> str:
        return self.words[0].upper()


async def test_completing_a_task_is_one_transaction(server: EmbeddedServer) -> None:
    daemon = Parts(server.url, Recorder())
    async with daemon.running():
        await daemon.add(task("before"))
        await daemon.settled(1)  # from now on the server knows the scripts
        async with monitored(server) as seen:
            await daemon.add(task("t"))
            assert await daemon.settled(2) == {Status.COMPLETED: 2}

    names = [command.name for command in seen]
    begin, end = names.index("MULTI"), names.index("EXEC")
    assert [command.name for command in seen[begin : end + 1] if not command.in_script] == ["MULTI", "EVALSHA", "EXEC"]
    changes = [command for command in seen[begin:end] if command.name in CHANGES]
    assert all(command.in_script for command in changes)
    assert [(command.name, command.words[1]) for command in changes] == [
        ("ZREM", RUNNING),
        ("DEL", RECORD),
        ("ZREM", LIST),
        ("XADD", OUTBOX),
    ]
    assert names.count("MULTI") == names.count("EXEC") == 1
    assert not [command.words for command in seen[end:] if command.name in CHANGES]


async def test_from_add_to_archive_nothing_is_watched_or_searched_for(server: EmbeddedServer) -> None:
    daemon = Parts(server.url, Recorder())
    async with monitored(server) as seen, daemon.running():
        await daemon.add(task("t"), task("withdrawn", due=daemon.store.now() + 60_000))
        await daemon.cancel("withdrawn")
        past = []
        while len(past) < 2:
            past = list(await daemon.past())
        await daemon.store.outbox.forget(past)
    names = {command.name for command in seen}
    assert {"EVAL", "EVALSHA", "MULTI", "EXEC", "XADD", "XDEL"} <= names
    assert names & NEVER == set()


@asynccontextmanager
async def monitored(server: EmbeddedServer) -> AsyncIterator[list[Command]]:
    """All that the server carries out inside of the block; complete after it."""
    seen: list[Command] = []

    async def told(word: str) -> None:
        await client.echo(word)
        await wait_until(lambda: any(word in command.words for command in seen))

    async with plain(server.url) as client, client.monitor() as monitor, anyio.create_task_group() as listening:
        listening.start_soon(_listen, monitor, seen)
        await told("begin")
        yield seen
        await told("end")
        listening.cancel_scope.cancel()


async def _listen(monitor: Monitor, seen: list[Command]) -> None:
    while True:
        entry = await monitor.next_command()
        seen.append(Command(entry["command"].split(), entry["client_type"] == "lua"))
