"""The daemon's own server: started beside it, restarted when it dies, adopted when it outlived an earlier daemon."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import anyio
import redis.asyncio as redis
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from later.clock import Clock
from later.core.errors import InvalidSetting, LaterError, Unavailable
from later.store import binary, directory, process
from later.store.binary import Build, Program
from later.store.calls import connect
from later.store.directory import AlreadyRunning
from later.store.process import Process

ANSWER_S = 10.0
STOP_S = 10.0
LOOK_S = 0.01
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
SOCKET_CHARACTERS = 100
"""A unix socket's path may have 108 bytes on Linux and 104 on macOS, NUL included."""

RULES = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "appendonly": "yes",
    # Acknowledged means kept, also when the power fails; WAITAOF was seen to answer before the disk did.
    "appendfsync": "always",
    # Plain commands: older servers and the checkers read them, which they do not with Valkey 9's own format.
    "aof-use-rdb-preamble": "no",
    "aof-load-truncated": "yes",
    "save": "",
    "maxmemory-policy": "noeviction",
    "hash-max-listpack-value": "1024",
}

__all__ = ["AlreadyRunning", "EmbeddedServer"]

log = structlog.get_logger()


class EmbeddedServer:
    """A Valkey or Redis server on a private socket, whose data are kept in the state directory."""

    def __init__(self, state_dir: Path, *, clock: Clock) -> None:
        self._home = state_dir.absolute()
        self._data = self._home / "redis"
        self._socket = self._home / "redis.sock"
        self._log = self._home / "redis.log"
        self._clock = clock
        self._build: Build | None = None
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}"

    @property
    def description(self) -> str:
        """Which server it is and where, for people."""
        return f"{self._build or 'a server of its own'} in {directory.from_home(self._data)}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The server answers inside and has ended afterwards; raises InvalidSetting, AlreadyRunning, Unavailable."""
        self._prepare()
        with directory.only_daemon(self._home):
            try:
                if not await self._adopt():
                    await self._start()
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await self._stop()

    async def supervise(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Restart the server whenever it has died, until cancelled; belongs inside of `running`."""
        task_status.started()
        pause = FIRST_PAUSE_S
        while True:
            began = self._clock.monotonic()
            await self._watch()
            if self._clock.monotonic() - began > LONGEST_PAUSE_S:
                pause = FIRST_PAUSE_S
            await asyncio.sleep(pause)
            await self._restart()
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _prepare(self) -> None:
        if len(os.fsencode(self._socket)) > SOCKET_CHARACTERS:
            most = SOCKET_CHARACTERS - len("/redis.sock")
            raise InvalidSetting(
                f"{self._socket} is too long for a socket; set LATER_STATE_DIR to at most {most} characters"
            )
        directory.make_private(self._home)
        directory.make_private(self._data)

    async def _adopt(self) -> bool:
        """Take over the server that an earlier daemon left running; False if there is none."""
        with directory.usable(self._socket):
            pid = process.listener(self._socket)
        if pid == 0:
            raise Unavailable(f"the server on {self._socket} runs outside of this container; end it there first")
        if pid is None or not await self._is_ours(orphan := Process(pid)):
            self._socket.unlink(missing_ok=True)
            return False
        self._process = orphan
        log.info("embedded_server_adopted", server=self.description, pid=orphan.pid)
        return True

    async def _start(self) -> None:
        began = self._clock.monotonic()
        program = await binary.find(self._data)
        binary.write_marker(self._data, program.build)
        self._process = await self._spawn(program)
        if not await self._answers(self._process):
            raise Unavailable(
                f"{program.build} ended at once ({self._process.ending}): {directory.last_line(self._log)}"
            )
        self._build = program.build
        took = self._clock.monotonic() - began
        log.info("embedded_server_started", server=self.description, pid=self._process.pid, took_s=round(took, 3))

    async def _spawn(self, program: Program) -> Process:
        """Start it with a lock that it holds as long as it lives: two servers on the same data would ruin them."""
        with directory.opened(self._data / "lock") as lock:
            await self._until_unused(lock)
            directory.keep_short(self._log)
            with directory.opened(self._log, os.O_APPEND) as output, directory.usable(program.path):
                return process.spawn([str(program.path), *self._options()], output=output, keep=lock)

    async def _until_unused(self, lock: int) -> None:
        """A server that is just ending, or is writing its file anew in a child, has the lock a little longer."""
        until = self._clock.monotonic() + ANSWER_S
        while not directory.locked(lock):
            if self._clock.monotonic() > until:
                raise Unavailable(
                    f"a server without a socket still works on {self._data}; find it with "
                    f"`fuser {self._data / 'lock'}`, end it, and start again"
                )
            await asyncio.sleep(LOOK_S)

    def _options(self) -> Iterator[str]:
        places = {"dir": self._data, "unixsocket": self._socket, "logfile": self._log}
        for name, value in {**RULES, **places}.items():
            yield f"--{name}"
            yield str(value)

    async def _answers(self, server: Process) -> bool:
        """Wait for it, as long as it takes while it loads its data; False if it ends instead. Raises Unavailable."""
        until = self._clock.monotonic() + ANSWER_S
        async with _asking(self.url) as client:
            while server.alive():
                reply = await _ping(client)
                if reply == "ready":
                    return True
                if reply == "loading":
                    until = self._clock.monotonic() + ANSWER_S
                elif self._clock.monotonic() > until:
                    raise Unavailable(f"the server on {self._socket} (pid {server.pid}) does not answer: {reply}")
                await asyncio.sleep(LOOK_S)
        return False

    async def _is_ours(self, orphan: Process) -> bool:
        """Make sure that it keeps our data, and learn which server it is; False if it has ended. Raises Unavailable."""
        try:
            if not await self._answers(orphan):
                return False
            async with _asking(self.url) as client:
                place = (await client.config_get("dir"))["dir"]
                facts = await client.info("server")
        except (RedisError, OSError) as error:
            raise Unavailable(f"the server on {self._socket} cannot be taken over: {error}") from None
        if not directory.same(self._data, Path(place or "")):
            raise Unavailable(
                f"the server on {self._socket} keeps its data in {place}, not in {self._data}; end it first"
            )
        self._build = Build.of(facts)
        return True

    async def _watch(self) -> None:
        """Sleep until the server has died."""
        if self._process is None:
            return
        await self._process.gone()
        log.warning("embedded_server_died", pid=self._process.pid, ending=self._process.ending, log=str(self._log))
        self._process = None
        self._socket.unlink(missing_ok=True)

    async def _restart(self) -> None:
        try:
            await self._start()
        except LaterError as error:
            log.error("embedded_server_not_started", error=error.message)
            await self._stop()

    async def _stop(self) -> None:
        """End the server, adopted or not: with SIGTERM it closes its file and removes its socket as after SHUTDOWN."""
        if self._process is None:
            return
        self._process.send(signal.SIGTERM)
        with anyio.move_on_after(STOP_S):
            await self._process.gone()
        if self._process.alive():
            log.warning("embedded_server_killed", pid=self._process.pid)
            self._process.send(signal.SIGKILL)
            with anyio.move_on_after(STOP_S):
                await self._process.gone()
        self._process = None
        self._socket.unlink(missing_ok=True)


@asynccontextmanager
async def _asking(url: str) -> AsyncIterator[redis.Redis]:
    client = connect(url)
    try:
        yield client
    finally:
        with anyio.CancelScope(shield=True):
            await client.aclose()


async def _ping(client: redis.Redis) -> str:
    """`ready`, `loading`, or what is in the way."""
    try:
        await client.ping()
    except BusyLoadingError:
        return "loading"
    except ResponseError as error:
        # With a full disk it answers so, and the store waits for that to pass.
        return "ready" if str(error).startswith("MISCONF") else str(error)
    except (RedisError, OSError) as error:
        return str(error) or type(error).__name__
    return "ready"
