"""A wall clock that a test steps while servers and daemons run by it; their monotonic clocks go on as ever."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import missing

SOURCE = Path(__file__).parent / "shim.c"
NANOSECONDS = 1_000_000_000


class WallClock:
    """The clock of all processes that were started with its `env`, and of their children."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.env: Mapping[str, str] = {"LD_PRELOAD": str(library), "WALLCLOCK": str(file)}
        self.ahead_s = 0.0
        self._write()

    def step(self, seconds: float) -> None:
        """Set it forwards, or back, by so much from what it shows; a server notices within a tenth of a second."""
        self.ahead_s += seconds
        self._write()

    def _write(self) -> None:
        file = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(file, struct.pack("q", round(self.ahead_s * NANOSECONDS)))  # in place: it is mapped
        finally:
            os.close(file)


@contextmanager
def wallclock() -> Iterator[WallClock]:
    """One that shows the time of this machine until it is stepped; skips the test where it cannot be built."""
    if sys.platform != "linux":
        pytest.skip("the wall clock of a process can be stepped on Linux only")
    home = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    try:
        library = home / "shim.so"
        words = [_compiler(), "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library), str(SOURCE)]
        subprocess.run(words, check=True, timeout=60)
        yield WallClock(library, home / "ahead")
    finally:
        shutil.rmtree(home)


def _compiler() -> str:
    return shutil.which("cc") or str(missing("cc"))
