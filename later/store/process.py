"""A server's process, this daemon's or an orphan of an earlier one, held so that no other is mistaken for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

import anyio

LOOK_S = 0.25
"""How often a process is looked at where the system does not tell of its end (macOS, kernels before 5.3)."""


class Process:
    """One process, watched until its end."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        """`child` if it is one of this process, and so has to be reaped."""
        self.pid = pid
        self._child = child
        self._handle = _open_handle(pid)
        if self._handle is not None:
            weakref.finalize(self, os.close, self._handle)

    def alive(self) -> bool:
        """Whether it runs still; reaps it if not."""
        if self._child is not None:
            return self._child.poll() is None
        if self._handle is not None:
            return not _readable(self._handle)
        return _exists(self.pid)

    async def gone(self) -> None:
        """Sleep until it has ended."""
        if self._handle is not None:
            await anyio.wait_readable(self._handle)
        while self.alive():  # noqa: ASYNC110 - here the system has no event to wait for
            await asyncio.sleep(LOOK_S)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if not self.alive():
            return
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "linux" and self._handle is not None:
                signal.pidfd_send_signal(self._handle, number)
            else:
                os.kill(self.pid, number)

    @property
    def ending(self) -> str:
        """How it ended, as far as that is known here."""
        code = None if self._child is None else self._child.returncode
        if code is None:
            return "unknown"
        return f"signal {-code}" if code < 0 else f"exit {code}"


def spawn(words: Sequence[str], *, output: int, keep: int) -> Process:
    """Start a program that Ctrl-C does not reach, whose files are private, and that keeps this descriptor open."""
    child = subprocess.Popen(  # noqa: S603 - no shell, and the words are ours
        words,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        umask=0o077,
        pass_fds=(keep,),
    )
    return Process(child.pid, child)


def listener(path: Path) -> int | None:
    """The pid of whoever listens on this socket, 0 if it is outside of this container; None if nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        return _peer(probe)


if sys.platform == "linux":

    def _peer(connection: socket.socket) -> int:
        credentials = struct.Struct("3i")
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
        return int(credentials.unpack(raw)[0])

    def _open_handle(pid: int) -> int | None:
        try:
            return os.pidfd_open(pid)
        except OSError:
            return None

else:

    def _peer(connection: socket.socket) -> int:
        sol_local, local_peerpid = 0, 2
        return int.from_bytes(connection.getsockopt(sol_local, local_peerpid, 4), sys.byteorder)

    def _open_handle(pid: int) -> int | None:
        return None


def _readable(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
