"""A unix socket between a store and its server on which replies are delayed, withheld or cut off, or nothing passes."""

from __future__ import annotations

import random
import shutil
import tempfile
from asyncio import StreamReader, StreamWriter, open_unix_connection, start_unix_server
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio


class Proxy:
    """Passes everything on, until it is told otherwise."""

    def __init__(self, target: Path, path: Path) -> None:
        self._target = target
        self._path = path
        self._cut: bytes | None = None
        self._hold: bytes | None = None
        self._hold_each = False
        self._released = anyio.Event()
        self._writers: set[StreamWriter] = set()
        self._passable = anyio.Event()
        self._passable.set()
        self._rng = random.Random(20261122)
        self.delay_s = 0.0
        self.cut_share = 0.0
        """Of all replies, the share in whose place the connection is cut: the server has carried the request out."""
        self.cuts = 0
        self.held = 0

    @property
    def url(self) -> str:
        return f"unix://{self._path}"

    def cut_reply_to(self, words: str) -> None:
        """Cut the connection in place of the reply to the next request with these words; the server carries it out."""
        self._cut = words.encode()

    def hold_reply_to(self, words: str, *, each: bool = False) -> None:
        """Keep back the reply to the next request, or to each, with these words until `release`."""
        self._hold, self._hold_each = words.encode(), each
        self._released = anyio.Event()

    def release(self) -> None:
        """Pass on what was kept back."""
        self._hold = None
        self._released.set()

    def block(self) -> None:
        """Half open: every connection stays, and is made, but nothing passes on it until `unblock`."""
        self._passable = anyio.Event()

    def unblock(self) -> None:
        """Pass everything on again, first of all what came meanwhile."""
        self._passable.set()

    def drop(self) -> None:
        """Cut every connection there is."""
        for writer in list(self._writers):
            writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        listener = await start_unix_server(self._serve, str(self._path))
        try:
            yield self
        finally:
            listener.close()
            self.release()
            self.unblock()
            self.drop()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            server_reader, server_writer = await open_unix_connection(str(self._target))
        except OSError:  # the server is down
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        ways = Connection(cut=anyio.Event(), held=anyio.Event())
        try:
            async with anyio.create_task_group() as both_ways:
                both_ways.start_soon(self._ask, reader, server_writer, ways)
                both_ways.start_soon(self._answer, server_reader, writer, ways)
        finally:
            self._writers -= {writer, server_writer}
            for one in (writer, server_writer):
                one.transport.abort()

    async def _ask(self, reader: StreamReader, server: StreamWriter, connection: Connection) -> None:
        with suppress(OSError):
            while request := await reader.read(1 << 20):
                await self._passable.wait()
                if self._cut is not None and self._cut in request:
                    self._cut = None
                    connection.cut.set()
                if self._hold is not None and self._hold in request:
                    self._hold = self._hold if self._hold_each else None
                    connection.held.set()
                server.write(request)
                await server.drain()
        server.transport.abort()

    async def _answer(self, server: StreamReader, writer: StreamWriter, connection: Connection) -> None:
        with suppress(OSError):
            while reply := await server.read(1 << 20):
                await anyio.sleep(self.delay_s)
                await self._passable.wait()
                if connection.cut.is_set() or self._rng.random() < self.cut_share:
                    self.cuts += 1
                    break
                if connection.held.is_set():
                    self.held += 1
                    await self._released.wait()
                    connection.held = anyio.Event()
                writer.write(reply)
                await writer.drain()
        writer.transport.abort()


@dataclass
class Connection:
    """What is to become of the replies on one connection."""

    cut: anyio.Event
    held: anyio.Event


@asynccontextmanager
async def between(target: str) -> AsyncIterator[Proxy]:
    """A proxy in front of the server at this unix:// address."""
    home = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    try:
        async with Proxy(Path(target.removeprefix("unix://")), home / "proxy.sock").running() as proxy:
            yield proxy
    finally:
        shutil.rmtree(home)
