"""Starts a person's own daemon in the background, where `later add` finds none."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from later.cli import http, places
from later.cli.output import Refused, unavailable

START_S = 30.0
LOOK_EVERY_S = 0.02
LOG_BYTES = 1024 * 1024


def start() -> http.Daemon:
    """A daemon in the background; of several callers at once one starts it and the others wait for it."""
    state_dir = Path(places.state_dir())
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _one_at_a_time(state_dir / "starting"):
            found = http.find()
            if found is None:
                found = _started(state_dir)
                click.echo(
                    "later: started a daemon in the background; it lasts until reboot, "
                    "`later service install` makes it permanent",
                    err=True,
                )
            return found
    except OSError as error:
        raise unavailable(f"no daemon can be started in {state_dir} ({error.strerror}); set LATER_STATE_DIR") from None


def _started(state_dir: Path) -> http.Daemon:
    log = state_dir / "daemon.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as diary:
        log.chmod(0o600)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "later", "run"],
            cwd="/",
            env={**_own_environment(), **_absolute_places(state_dir)},
            stdin=subprocess.DEVNULL,
            stdout=diary,
            stderr=diary,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if (found := http.find()) is not None:
            return found
        if (ending := process.poll()) is not None:
            raise _stillborn(log, before, ending)
        time.sleep(LOOK_EVERY_S)
    raise unavailable(f"the daemon has not answered for {START_S:.0f} s; its log is {log}")


def _absolute_places(state_dir: Path) -> dict[str, str]:
    """Where the caller means them to be, for a daemon that works from /."""
    socket = places.variable("LATER_SOCKET")
    return {"LATER_STATE_DIR": str(state_dir), **({"LATER_SOCKET": places.absolute(socket)} if socket else {})}


def _stillborn(log: Path, before: int, ending: int) -> Refused:
    """What the daemon said when it ended at once, with its own exit status where it refused a setting."""
    with log.open("rb") as diary:
        diary.seek(before)
        said = diary.read().decode(errors="replace").strip().splitlines()
    reason = said[-1].removeprefix("later: ") if said else f"it said nothing; its log is {log}"
    sentence = f"the daemon could not start: {reason}"
    return Refused(sentence, status=2) if ending == 2 else unavailable(sentence)


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        path.chmod(0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _own_environment() -> dict[str, str]:
    """Ours, without what a service manager said to the program that calls us."""
    theirs = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    return {name: value for name, value in os.environ.items() if name not in theirs}
