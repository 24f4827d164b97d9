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
from tests.program import Program, installed
from tests.waiting import wait_until

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


def test_the_first_add_starts_a_daemon_and_says_how_long_it_lasts(fresh: Program) -> None:
    first = fresh.run("add", "first", "--in", "3d")
    assert first.stdout.startswith("added ")
    assert first.stderr == NOTICE
    second = fresh.run("add", "second", "--in", "3d")
    assert second.stderr == ""
    pid = the_daemon(fresh)
    assert os.getsid(pid) == pid  # the terminal's end is not the daemon's
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    log = fresh.state / "daemon.log"
    assert '"event": "started"' in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(fresh.state.stat().st_mode) == 0o700


def test_ten_first_adds_at_once_give_ten_tasks_and_one_daemon(fresh: Program) -> None:
    words = [sys.executable, "-m", "later", "add", "--in", "3d"]
    adds = [
        subprocess.Popen([*words, f"thought {number}"], env=fresh.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for number in range(10)
    ]
    said = [process.communicate(timeout=60)[1].decode() for process in adds]
    assert [process.returncode for process in adds] == [0] * 10
    assert sorted(said) == [""] * 9 + [NOTICE]
    assert sorted(task["message"] for task in tasks(fresh)) == sorted(f"thought {number}" for number in range(10))
    assert (fresh.state / "daemon.log").read_text().count('"event": "started"') == 1


async def test_after_kill_9_the_next_add_starts_a_new_one_and_nothing_is_lost(fresh: Program) -> None:
    fresh.run("add", "old", "--in", "3d", "--id", "old")
    first = the_daemon(fresh)
    os.kill(first, signal.SIGKILL)
    await wait_until(lambda: _ended(first))
    assert fresh.run("add", "new", "--in", "0s", "--id", "new").stderr == NOTICE
    assert the_daemon(fresh) != first
    assert [task["id"] for task in tasks(fresh) if task["id"] == "old"] == ["old"]
    await wait_until(lambda: status(fresh, "new") == "completed")


def test_it_listens_where_the_caller_meant_wherever_that_was(fresh: Program) -> None:
    fresh.run("add", "x", "--in", "3d", LATER_SOCKET="here.sock")
    assert (fresh.home / "here.sock").is_socket()
    assert len(fresh.json("list", LATER_SOCKET=str(fresh.home / "here.sock"))["tasks"]) == 1
    fresh.run("stop", LATER_SOCKET="here.sock")
    assert not (fresh.home / "here.sock").exists()


@pytest.mark.parametrize(
    ("setting", "value", "status", "sentence"),
    [
        ("LATER_WORKERS", "none", 2, "the daemon could not start: LATER_WORKERS: "),
        ("LATER_SOCKET", "/proc/api.sock", 2, "the daemon could not start: the API cannot listen at /proc/api.sock"),
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
