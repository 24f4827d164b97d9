"""Moving a large house: how long it takes, what memory it takes, and how late the daemon is with others meanwhile."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import httpx2
import pytest

from tests import house
from tests.asking import asking
from tests.program import Program, installed

TASKS = int(os.environ.get("MOVED", "10000"))
"""Live ones, and as many past ones; the figures in docs/operations.md are of 100,000."""

LATE_MS = 500.0
DAEMON_MIB, COMMAND_MIB = 300.0, 100.0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_large_house_moves_in_bounded_memory_and_disturbs_nobody(tmp_path: Path) -> None:
    file = house.write(tmp_path / "large", getpass.getuser(), lives=TASKS, pasts=TASKS)
    with installed() as program:
        program.start()
        for words in (["import", str(file)], ["import", str(file)], ["export", "out"]):
            took, late, memory = moved(program, *words)
            print(
                f"{words[0]} {2 * TASKS:,} tasks: {took:.1f} s, {2 * TASKS / took:,.0f}/s; the command at most "
                f"{memory:.0f} MiB, the daemon {rss_mib(program):.0f} MiB; others late by at most {max(late):.0f} ms, "
                f"median {sorted(late)[len(late) // 2]:.0f} ms of {len(late)}"
            )
            assert memory < COMMAND_MIB
            assert sorted(late)[len(late) // 2] < LATE_MS
        assert rss_mib(program) < DAEMON_MIB
        with (program.home / "out").open("rb") as out:
            assert sum(1 for _ in out) >= 2 * TASKS + 2


def moved(program: Program, *words: str) -> tuple[float, list[float], float]:
    """Seconds that the command takes, how late in ms other tasks come meanwhile, and the command's memory in MiB."""
    ended = threading.Event()
    ids: list[str] = []

    def others() -> None:
        with asking(program) as client:
            while not ended.wait(0.1):
                answer = client.post("/v1/tasks", json={"message": "beside it", "in": "1s"})
                ids.append(answer.json()["id"])

    beside = threading.Thread(target=others)
    beside.start()
    began = time.perf_counter()
    command = [sys.executable, "-m", "later", *words]
    most = 0.0
    with (program.home / "said").open("wb") as said:
        done = subprocess.Popen(command, env=program.env, cwd=program.home, stdout=said, stderr=said)
        while done.poll() is None:  # what is known of a process after its end includes what it was forked from
            most = max(most, peak_mib(done.pid))
            time.sleep(0.02)
    took = time.perf_counter() - began
    ended.set()
    beside.join()
    assert done.returncode == 0, (program.home / "said").read_text()
    with asking(program) as client:
        late = [lateness_ms(client, task_id) for task_id in ids]
    return took, late, most


def lateness_ms(client: httpx2.Client, task_id: str) -> float:
    """How long after its moment it was begun, once it was."""
    while (task := client.get(f"/v1/tasks/{task_id}").json())["started_at"] is None:
        time.sleep(0.05)
    started, due = (datetime.fromisoformat(task[name]) for name in ("started_at", "due"))
    return (started - due).total_seconds() * 1000


def rss_mib(program: Program) -> float:
    assert program.daemon is not None
    return peak_mib(program.daemon.pid)


def peak_mib(pid: int) -> float:
    """The most memory it has had so far; 0 for one that has just ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
