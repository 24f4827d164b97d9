"""A destination outside of every daemon: a plug-in action that appends each arrival to a file, durably."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PLUGIN = '''
"""Appends what arrives to the file that SINK names. The message says what else happens."""

import asyncio
import json
import os
import time

from later.actions.base import Receipt


class SinkAction:
    name = "sink"

    def __init__(self, surroundings):
        self._home = os.environ["SINK"]

    def check(self, task):
        pass

    async def perform(self, task):
        verb, _, rest = task.message.partition(" ")
        if verb == "pass":  # by thousands: one line, which outlives this daemon but not this machine
            self._note("begun", task, durably=False)
            await asyncio.sleep(float(rest or 0))
            return Receipt(detail="noted")
        self._note("begun", task)
        if verb == "wait":  # for the gate
            while not os.path.exists(self._home + "/gate"):
                await asyncio.sleep(0.01)
        elif verb == "take":
            await asyncio.sleep(float(rest))
        elif verb == "kill":
            await asyncio.sleep(float(rest))
            os.kill(os.getpid(), 9)
        self._note("done", task)
        return Receipt(detail="noted")

    def _note(self, kind, task, durably=True):
        line = {
            "kind": kind, "id": task.id, "delivery_id": task.delivery_id, "claim": task.claim, "due": task.due,
            "at": time.time() * 1000, "monotonic": time.monotonic(),
            "attempts": task.attempts, "crashes": task.crashes, "pid": os.getpid(),
        }
        file = os.open(self._home + "/arrivals", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, json.dumps(line).encode() + b"\\n")
            if durably:
                os.fsync(file)
        finally:
            os.close(file)
'''
METADATA = "Metadata-Version: 2.1\nName: later-sink\nVersion: 1\n"
ENTRY_POINTS = "[later.actions]\nsink = later_sink:SinkAction\n"


class Sink:
    """Where it lies, and what has arrived."""

    def __init__(self, home: Path) -> None:
        self._home = home
        distribution = home / "plugin" / "later_sink-1.dist-info"
        distribution.mkdir(parents=True)
        (home / "plugin" / "later_sink.py").write_text(PLUGIN)
        (distribution / "METADATA").write_text(METADATA)
        (distribution / "entry_points.txt").write_text(ENTRY_POINTS)

    @property
    def settings(self) -> Mapping[str, str]:
        """What a daemon must be told to find it."""
        return {"PYTHONPATH": str(self._home / "plugin"), "SINK": str(self._home)}

    def open_gate(self) -> None:
        """Let those go on that wait for it, now and from now on."""
        (self._home / "gate").touch()

    def lines(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What has arrived, in order."""
        path = self._home / "arrivals"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in found if kind in (None, line["kind"])]

    def wait_for(self, kind: str, count: int, *, within: float = 20.0) -> None:
        """Return once so many have arrived."""
        until = time.monotonic() + within
        while len(found := self.lines(kind)) < count:
            assert time.monotonic() < until, f"only {len(found)} of {count}: {found[-3:]}"
            time.sleep(0.01)


@contextmanager
def sink() -> Iterator[Sink]:
    """An empty one; removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    try:
        yield Sink(home)
    finally:
        shutil.rmtree(home)
