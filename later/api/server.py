"""Serves the application on a unix socket and, if asked, on a TCP port: uvicorn as one of the daemon's services."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from asyncio import Transport
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import uvicorn
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from later.api.principal import PEER
from later.core.errors import InvalidSetting

STOP_S = 5
LOOK_S = 1.0
GROUP_DIRECTORY = 0o750


class PeerProtocol(HttpToolsProtocol):
    """Notes who is on the other end of a unix socket as the connection's client."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family == socket.AF_UNIX:
            self.client = (f"{PEER}{_uid_of(peer)}", 0)


class Server:
    """uvicorn without its own signals, its own socket modes and its own clock."""

    def __init__(self, app: FastAPI, *, path: Path, host: str, port: int | None) -> None:
        self._app = app
        self._path = path
        self._host = host
        self._port = port

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then let requests under way finish."""
        config = uvicorn.Config(
            self._app,
            http=PeerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=STOP_S,
            limit_concurrency=256,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        async with self._sockets() as sockets:
            await server.startup(sockets=sockets)
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await server.shutdown(sockets=sockets)

    @contextlib.asynccontextmanager
    async def _sockets(self) -> AsyncIterator[list[socket.socket]]:
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(self._unix_socket())]
            if self._port is not None:
                sockets.append(stack.enter_context(_tcp_socket(self._host, self._port)))
            yield sockets

    @contextlib.contextmanager
    def _unix_socket(self) -> Iterator[socket.socket]:
        """Bound under a name of its own and renamed, so that nobody meets it before its mode is right."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_taken(self._path)
        fresh = self._path.with_suffix(f".{os.getpid()}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            try:
                fresh.unlink(missing_ok=True)
                listener.bind(str(fresh))
                fresh.chmod(_mode_in(self._path.parent))
                listener.listen(128)
                fresh.replace(self._path)
            except OSError as error:
                raise InvalidSetting(
                    f"the API cannot listen at {self._path} ({error.strerror}); set LATER_SOCKET elsewhere"
                ) from None
            mine = self._path.stat().st_ino
            try:
                yield listener
            finally:
                with contextlib.suppress(FileNotFoundError):
                    if self._path.stat().st_ino == mine:
                        self._path.unlink()


@contextlib.contextmanager
def _tcp_socket(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise InvalidSetting(
            f"the API cannot listen on {host} port {port} ({error.strerror}); choose another LATER_PORT"
        ) from None
    with listener:
        yield listener


def _refuse_taken(path: Path) -> None:
    """What is there and is no socket is somebody's file; where somebody listens is another daemon's place."""
    if not path.exists():
        return
    if not path.is_socket():
        raise InvalidSetting(f"{path} is there already and is no socket; set LATER_SOCKET to a name that is free")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor, contextlib.suppress(OSError):
        visitor.settimeout(LOOK_S)
        visitor.connect(str(path))
        raise InvalidSetting(f"another daemon listens at {path}; stop it, or set LATER_SOCKET to another place")


def _mode_in(directory: Path) -> int:
    """A directory made for a group (0750, as systemd's RuntimeDirectory) lets that group call; all others the owner."""
    return 0o660 if directory.stat().st_mode & 0o777 == GROUP_DIRECTORY else 0o600


def _uid_of(peer: socket.socket) -> int:
    """The user at the other end, as the kernel knows it: SO_PEERCRED on Linux, LOCAL_PEERCRED on macOS and BSD."""
    if hasattr(socket, "SO_PEERCRED"):
        _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    else:
        # struct xucred: version, uid, …; SOL_LOCAL is 0 and LOCAL_PEERCRED 1 in <sys/un.h>.
        _, uid = struct.unpack_from("Ii", peer.getsockopt(0, 1, 76))
    return int(uid)
