"""Runs the real program, `python -m later …`, in a home of its own, with nothing of the caller's settings."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_S = 30.0


class Program:
    """One user's Later: a home, a state directory, and the commands that are run there."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.state = home / "state"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "LATER_STATE_DIR": str(self.state),
            "LATER_AUTOSTART": "0",
            "LATER_LOG": "json",
            **settings,
        }
        self.daemon: subprocess.Popen[bytes] | None = None

    def run(
        self, *arguments: str, check: int | None = 0, timeout: float = 30, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """One command to its end; `check` is the exit status that it must have (None: any)."""
        done = subprocess.run(
            [sys.executable, "-m", "later", *arguments],
            env={**self.env, **env},
            cwd=self.home,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
        )
        if check is not None:
            assert done.returncode == check, f"{arguments}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str, **env: str) -> Any:
        """What a command answers with --json."""
        return json.loads(self.run(*arguments, "--json", **env).stdout)

    def start(self, *arguments: str, wait: bool = True, **env: str) -> subprocess.Popen[bytes]:
        """The daemon, in the background; its log is `home/log`. Waits until it is healthy."""
        with (self.home / "log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [sys.executable, "-m", "later", "run", *arguments],
                env={**self.env, **env},
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.wait_for_log("started")
        return self.daemon

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 40) -> int:
        """Send the daemon a signal and wait for its end; returns its exit status."""
        assert self.daemon is not None
        self.daemon.send_signal(number)
        return self.daemon.wait(timeout)

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The daemon's log so far, or the events of that name."""
        path = self.home / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [event for event in events if name is None or event["event"] == name]

    def wait_for_log(self, name: str, count: int = 1, timeout: float = START_S) -> dict[str, Any]:
        """The newest event of that name, once there are so many; `started` counts for the present daemon alone."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = self.events(name)
            if name == "started":
                found = [event for event in found if self.daemon is None or event["pid"] == self.daemon.pid]
            if len(found) >= count:
                return found[-1]
            if self.daemon is not None and self.daemon.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"no event {name!r} in the daemon's log:\n{(self.home / 'log').read_text()[-4000:]}")

    def server_pid(self) -> int | None:
        """The embedded server's process, if there is one."""
        found = [
            event for event in self.events() if event["event"] in ("embedded_server_started", "embedded_server_adopted")
        ]
        return int(found[-1]["pid"]) if found else None

    def close(self) -> None:
        """End what is still there: only what was started here."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGCONT)
            self.daemon.terminate()
            try:
                self.daemon.wait(20)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        self.run("stop", check=None)
        pid = self.server_pid()
        if pid is not None and str(self.state) in _command_line(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def installed(**settings: str) -> Iterator[Program]:
    """A program with a home of its own, short enough for sockets; removed at the end with all that runs there."""
    home = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    program = Program(home, **settings)
    try:
        yield program
    finally:
        program.close()
        shutil.rmtree(home, ignore_errors=True)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
