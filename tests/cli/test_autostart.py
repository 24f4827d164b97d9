"""The first `later add` starts a daemon, and only one."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.asking import status, tasks
from tests.cli.conftest import alone
from tests.program import Program, installed
from tests.waiting import wait_until

pytestmark = alone

NOTICE = (
    "later: started a daemon in the background; it lasts until reboot, `later service install` makes it permanent\n"
)


@pytest.fixture
def fresh() -> Iterator[Program]:
    """A home in which nothing was ever started, and in which `add` may start a daemon."""
    with installed(LATER_AUTOSTART="1") as program:
        yield program


def the_daemon(program: Program) -> int:
    return int(program.json("stats")["pid"])


async def test_the_first_add_starts_a_daemon_and_after_kill_9_the_next_add_does(fresh: Program) -> None:
    first = fresh.run("add", "old", "--in", "3d", "--id", "old")
    assert first.stdout.startswith("added ")
    assert first.stderr == NOTICE
    assert fresh.run("add", "second", "--in", "3d").stderr == ""
    pid = the_daemon(fresh)
    assert os.getsid(pid) == pid  # the terminal's end is not the daemon's
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    log = fresh.state / "daemon.log"
    assert '"event": "started"' in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(fresh.state.stat().st_mode) == 0o700

    os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: _ended(pid))
    assert fresh.run("add", "new", "--in", "0s", "--id", "new").stderr == NOTICE
    assert the_daemon(fresh) != pid
    assert "old" in {task["id"] for task in tasks(fresh)}
    await wait_until(lambda: status(fresh, "new") == "completed")


def test_ten_first_adds_at_once_give_ten_tasks_and_one_daemon_where_it_was_meant(fresh: Program) -> None:
    words = [sys.executable, "-m", "later", "add", "--in", "3d"]
    here = {**fresh.env, "LATER_SOCKET": "here.sock"}
    pipe = subprocess.PIPE
    adds = [
        subprocess.Popen([*words, f"thought {number}"], env=here, cwd=fresh.home, stdout=pipe, stderr=pipe)
        for number in range(10)
    ]
    said = [process.communicate(timeout=60)[1].decode() for process in adds]
    assert [process.returncode for process in adds] == [0] * 10
    assert sorted(said) == [""] * 9 + [NOTICE]
    assert (fresh.state / "daemon.log").read_text().count('"event": "started"') == 1
    socket = fresh.home / "here.sock"
    listed = fresh.json("list", LATER_SOCKET=str(socket))["tasks"]
    assert sorted(task["message"] for task in listed) == sorted(f"thought {number}" for number in range(10))
    fresh.run("stop", LATER_SOCKET="here.sock")
    assert not socket.exists()


@pytest.mark.parametrize(
    ("setting", "value", "status", "sentence"),
    [
        ("LATER_WORKERS", "none", 2, "the daemon could not start: LATER_WORKERS: "),
        ("LATER_STATE_DIR", "/proc/later", 69, "no daemon can be started in /proc/later "),
    ],
)
def test_one_that_cannot_start_says_why(fresh: Program, setting: str, value: str, status: int, sentence: str) -> None:
    done = fresh.run("add", "x", "--in", "3d", check=status, **{setting: value})
    assert done.stdout == ""
    assert done.stderr.startswith(f"later: {sentence}")
    assert len(done.stderr.splitlines()) == 1


def _ended(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
