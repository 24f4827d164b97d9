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
from later.cli.output import unavailable

START_S = 30.0
LOOK_EVERY_S = 0.02
LOG_BYTES = 1024 * 1024


def wanted() -> bool:
    """Whether a daemon may be started: nobody has said where another one is, and it is not switched off."""
    off = (places.variable("LATER_AUTOSTART") or "1").lower() in ("0", "false", "no", "off")
    elsewhere = places.variable("LATER_URL") or places.variable("LATER_REDIS_URL") or places.SYSTEM_DIR.exists()
    return not off and not elsewhere


def start() -> http.Daemon:
    """A daemon in the background; of several callers at once one starts it and the others wait for it."""
    state_dir = places.state_dir()
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
            env={**os.environ, "LATER_STATE_DIR": str(state_dir)},
            stdin=subprocess.DEVNULL,
            stdout=diary,
            stderr=diary,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if (found := http.find()) is not None:
            return found
        if process.poll() is not None:
            with log.open("rb") as diary:
                diary.seek(before)
                said = diary.read().decode(errors="replace").strip().splitlines()
            raise unavailable(f"the daemon could not start: {said[-1] if said else 'it said nothing'}")
        time.sleep(LOOK_EVERY_S)
    raise unavailable(f"the daemon has not answered for {START_S:.0f} s; its log is {log}")


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        path.chmod(0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
