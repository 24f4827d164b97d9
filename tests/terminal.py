"""Runs a command on a terminal of its own: a pty, as a person has one."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.program import Program

ROWS = 40


@dataclass(frozen=True)
class Seen:
    """What a person saw, what went into the pipe in place of stdout, and how it ended."""

    screen: str
    piped: str
    status: int


def a_pty() -> tuple[int, int]:
    """Both ends of a new terminal; a root without /dev/pts has none to give."""
    try:
        return pty.openpty()
    except OSError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no terminal can be had here: {error}")


def on_a_terminal(
    program: Program, *arguments: str, piped: bool = False, columns: int = 120, timeout: float = 30, **env: str
) -> Seen:
    """One command to its end, on a terminal; with `piped` its stdout goes elsewhere."""
    words = [sys.executable, "-m", "later", *arguments]
    with Terminal(words, env={**program.env, **env}, cwd=str(program.home), columns=columns, piped=piped) as terminal:
        terminal.read_until(lambda screen: False, timeout=timeout)
        return Seen(terminal.screen, terminal.piped(), terminal.process.wait(timeout))


class Terminal:
    """A process on a terminal: what it shows, and a keyboard."""

    def __init__(
        self, words: list[str], *, env: dict[str, str], cwd: str, columns: int = 120, piped: bool = False
    ) -> None:
        self._master, slave = a_pty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        self.screen = ""
        self.process = subprocess.Popen(
            words,
            env={"TERM": "xterm-256color", **env},
            cwd=cwd,
            stdin=slave,
            stdout=subprocess.PIPE if piped else slave,
            stderr=slave,
            # The terminal becomes the controlling one, so that its Ctrl-C is a signal.
            preexec_fn=_take_the_terminal,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self._master)

    def type(self, keys: str) -> None:
        """Press these keys; Ctrl-C is \\x03."""
        os.write(self._master, keys.encode())

    def read_until(self, seen: Callable[[str], bool], *, timeout: float = 20) -> str:
        """Read until that is seen or nothing more comes; returns the screen so far."""
        deadline = time.monotonic() + timeout
        while not seen(self.screen):
            if not select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"not seen within {timeout} s:\n{self.screen}")
            try:
                shown = os.read(self._master, 65_536)
            except OSError:  # Linux says EIO when the last process has left the terminal
                break
            if not shown:
                break
            self.screen += shown.decode(errors="replace").replace("\r\n", "\n")
        return self.screen

    def piped(self) -> str:
        """What came on stdout, if that was no terminal."""
        return self.process.stdout.read().decode() if self.process.stdout is not None else ""


def _take_the_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
