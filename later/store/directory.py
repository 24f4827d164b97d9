"""The directory in which a server's data lie: private, one daemon's at a time, one server's at a time."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from later.core.errors import Conflict, InvalidSetting, Unavailable

LOG_BYTES = 1_000_000
ADVICE = "set LATER_STATE_DIR to a directory of your own"


class AlreadyRunning(Conflict):
    """Another daemon keeps its tasks there; use or stop that one, or set LATER_STATE_DIR to another directory."""


def make_private(directory: Path) -> None:
    """Make sure that the directory is there, is ours and is nobody else's; raises InvalidSetting."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        raise InvalidSetting(f"{directory} cannot be used: {error.strerror}; {ADVICE}") from None
    if found.st_uid != os.geteuid():
        raise InvalidSetting(f"{directory} belongs to somebody else (uid {found.st_uid}); {ADVICE}")
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise InvalidSetting(f"{directory} cannot be written; run: chmod u+rwx {directory}, or {ADVICE}")
    if found.st_mode & stat.S_IWOTH:
        raise InvalidSetting(f"everybody may write to {directory}; run: chmod 700 {directory}, or {ADVICE}")


@contextmanager
def only_daemon(directory: Path) -> Iterator[None]:
    """Hold the directory for this daemon, to the end of the process if need be; raises AlreadyRunning.

    The descriptor is closed in every program that is started, or a server that outlives its daemon would keep it.
    """
    with opened(directory / "lock") as file:
        if not locked(file):
            raise AlreadyRunning(
                f"another daemon{_pid_in(file)} keeps its tasks in {directory}; use or stop that one, "
                "or set LATER_STATE_DIR to another directory"
            )
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield


def locked(file: int) -> bool:
    """Lock it until its last copy is closed, and say whether that was possible; raises InvalidSetting."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InvalidSetting(f"files cannot be locked there ({error.strerror}); {ADVICE} on a local disk") from None
    return True


@contextmanager
def opened(path: Path, flags: int = 0) -> Iterator[int]:
    """A file that only its owner can read, made if it is missing. Raises Unavailable."""
    with usable(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Refusals of the file system, such as a full disk, in Later's words."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{path} cannot be used: {error.strerror or error}") from None


def keep_short(log: Path) -> None:
    """Put a long log aside, in the place of the one before it."""
    with usable(log):
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))


def last_line(log: Path) -> str:
    """What a server said last, without its pid and time."""
    with usable(log):
        lines = log.read_bytes()[-4096:].decode(errors="replace").split("\n")
    said = [line for line in lines if line.strip()]
    return re.sub(r"^\d+:\w .*? [.*#-] ", "", said[-1]).strip() if said else f"nothing in {log}"


def same(one: Path, other: Path) -> bool:
    """Whether both names lead to the same place."""
    return one.resolve() == other.resolve()


def from_home(path: Path) -> str:
    """A path as people write it."""
    home = Path(os.environ.get("HOME") or "/")
    return f"~/{path.relative_to(home)}" if home != Path("/") and path.is_relative_to(home) else str(path)


def _pid_in(file: int) -> str:
    pid = os.pread(file, 32, 0).decode(errors="replace").strip()
    return f" (pid {pid})" if pid.isdecimal() else ""
