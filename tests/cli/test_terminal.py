"""What a person sees on a terminal, and what a pipe gets."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from later.cli import output
from tests.asking import ask, asking, status, tasks
from tests.program import Program
from tests.terminal import Terminal, on_a_terminal
from tests.waiting import wait_until

ESCAPE = "\x1b"
UNREAD = "later: 1 unread thought: `later inbox`\n"
FAILED = "later: 1 task has failed: `later list --status failed` shows why\n"


def add(later: Program, task_id: str, **body: str) -> None:
    ask(later, "POST", "/v1/tasks", id=task_id, **{"message": task_id, **body})


async def nothing_waits(later: Program) -> None:
    """No unread thought, and no failed task."""
    later.run("inbox")
    with asking(later) as client:
        for task in tasks(later):
            client.delete(f"/v1/tasks/{task['id']}")


async def one_waits(later: Program) -> None:
    """One unread thought, one failed task."""
    await nothing_waits(later)
    add(later, "come", **{"in": "0s"})
    add(later, "lost", action="email", to="ada@example.org", **{"in": "0s"})
    await wait_until(lambda: (status(later, "come"), status(later, "lost")) == ("completed", "failed"))


async def test_a_table_on_a_terminal_and_plain_text_in_a_pipe(later: Program) -> None:
    await nothing_waits(later)
    add(later, "short", at="2045-11-25 10:14", message="東京 calls")
    add(later, "a-longer-id", at="2045-11-25 10:15")
    screen = on_a_terminal(later, "list").screen
    heading, *rows = [line.rstrip() for line in re.sub(rf"{ESCAPE}\[[0-9;]*m", "", screen).splitlines()]
    assert f"{ESCAPE}[1m" in screen
    assert heading == "id           status   when                    how            text"
    assert rows == [
        "short        pending  Sat 25 Nov 2045, 10:14  in your inbox  東京 calls",
        "a-longer-id  pending  Sat 25 Nov 2045, 10:15  in your inbox  a-longer-id",
    ]
    piped = later.run("list").stdout
    assert piped == (
        "short\tpending\tSat 25 Nov 2045, 10:14\tin your inbox\t東京 calls\n"
        "a-longer-id\tpending\tSat 25 Nov 2045, 10:15\tin your inbox\ta-longer-id\n"
    )


async def test_no_color_is_respected(later: Program) -> None:
    add(later, "plain")
    assert ESCAPE not in on_a_terminal(later, "list", NO_COLOR="1").screen


@pytest.mark.parametrize("columns", [70, 100, 0])
async def test_a_long_text_is_shortened_to_the_terminal_alone(later: Program, columns: int) -> None:
    await nothing_waits(later)
    add(later, "long", message="wörd東 " * 5000)
    lines = on_a_terminal(later, "list", columns=columns, NO_COLOR="1").screen.splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("…")
    assert len(lines[1]) <= (columns or 80)
    assert "wörd東 " * 4999 in later.run("list").stdout


async def test_the_cause_of_a_failure_is_shown_whole(later: Program) -> None:
    await one_waits(later)
    [failure] = ask(later, "GET", "/v1/tasks/lost")["failures"]
    screen = on_a_terminal(later, "list", "--status", "failed", columns=40, NO_COLOR="1").screen
    lines = [line[-28:].strip() for line in screen.splitlines()]
    assert failure["reason"].replace(" ", "") in "".join(lines).replace(" ", "")


async def test_an_empty_list_says_so(later: Program) -> None:
    await nothing_waits(later)
    assert on_a_terminal(later, "list").screen == "nothing is still to come\n"


async def test_what_waits_is_said_once_on_a_terminal(later: Program) -> None:
    await one_waits(later)
    commands = [["list"], ["get", "come"], ["history"], ["stats"], ["doctor"], ["add", "x", "--hold"]]
    commands += [["update", "lost", "--message", "y"], ["list", "--json"], ["delete", "lost"]]
    for command in commands:
        screen = on_a_terminal(later, *command).screen
        notices = UNREAD if command == ["delete", "lost"] else UNREAD + FAILED
        assert screen.endswith(f"\n{notices}"), command
        assert screen.count("unread thought") == 1, command


async def test_it_is_said_on_stderr_and_never_in_a_pipe(later: Program) -> None:
    await one_waits(later)
    seen = on_a_terminal(later, "list", piped=True)
    assert seen.screen == UNREAD + FAILED
    assert "unread thought" not in seen.piped
    in_a_pipe = later.run("list")
    assert "unread thought" not in in_a_pipe.stdout
    assert in_a_pipe.stderr == ""


async def test_after_the_inbox_nothing_is_unread(later: Program) -> None:
    await one_waits(later)
    screen = on_a_terminal(later, "inbox").screen
    assert re.fullmatch(r"\w+ \d+ \w+, [\d:]+  come  \(come\)\n" + re.escape(FAILED), screen)


async def test_many_retries_show_how_far_they_are(later: Program) -> None:
    await nothing_waits(later)
    with asking(later) as client:
        for number in range(100):
            body = {"id": f"r{number}", "message": "x", "action": "email", "to": "ada@example.org", "in": "0s"}
            client.post("/v1/tasks", json=body)
    await wait_until(lambda: {task["status"] for task in tasks(later)} == {"failed"})
    seen = on_a_terminal(later, "retry", "--all", piped=True)
    assert re.search(r"retrying .*100%", seen.screen)
    assert seen.piped == "retrying 100 failed tasks\n"


def test_a_text_cannot_steer_the_terminal(later: Program) -> None:
    add(later, "nasty", message="\x1b]0;gone\x07\x9b2J\u202eevil\r\x08")
    for command in (["list"], ["get", "nasty"]):
        screen = on_a_terminal(later, *command, NO_COLOR="1").screen
        assert r"\x1b]0;gone\x07\x9b2J\u202eevil\r\x08" in screen
        assert ESCAPE not in screen


@pytest.mark.parametrize(
    "text", ["\U0001f468\u200d\U0001f469\u200d\U0001f467", "10\xa0€", "two\nlines", "tab\ttab", "שלום", "👍🏽"]
)
def test_what_belongs_to_a_text_is_shown_as_it_is(text: str) -> None:
    assert output.printable(text) == text


def test_a_terminal_that_knows_no_unicode_gets_an_answer_too(later: Program) -> None:
    done = Program.run(later, "add", "☕", "--in", "3d", PYTHONIOENCODING="latin-1")
    assert '"\\u2615"' in done.stdout
    done = Program.run(later, "add", "☕", "--in", "3d", "--json", PYTHONIOENCODING="latin-1")
    assert json.loads(done.stdout)["message"] == "☕"


def test_a_reader_that_has_gone_is_no_news(later: Program) -> None:
    with asking(later) as client:
        for number in range(40):
            client.post("/v1/tasks", json={"id": f"p{number}", "message": "x" * 5000})
    words = [sys.executable, "-m", "later", "list"]
    process = subprocess.Popen(
        words, env=later.env, cwd=later.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(20) == 1
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_full_disk_is_one_sentence(later: Program) -> None:
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "later", "stats"]
        done = subprocess.run(words, env=later.env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "later: this went wrong: [Errno 28] No space left on device\n"


def test_ctrl_c_ends_a_command_with_130(later: Program) -> None:
    assert later.daemon is not None
    words = [sys.executable, "-m", "later", "list"]
    later.daemon.send_signal(signal.SIGSTOP)
    try:
        with Terminal(words, env=later.env, cwd=str(later.home)) as terminal:
            _until_it_waits(terminal.process.pid)
            terminal.type("\x03")
            screen = terminal.read_until(lambda screen: False)
            assert terminal.process.wait(10) == 130
        assert "Traceback" not in screen
    finally:
        later.daemon.send_signal(signal.SIGCONT)


def _until_it_waits(pid: int) -> None:
    """Until the process sleeps in a call that waits for a socket."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        sockets = list(_open_files(pid))
        with open(f"/proc/{pid}/stat") as stat:
            state = stat.read().rpartition(")")[2].split()[0]
        if state == "S" and any(name.startswith("socket:") for name in sockets):
            return
        time.sleep(0.01)
    raise AssertionError("it never waited")


def _open_files(pid: int) -> Iterator[str]:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # it was closed just now
            yield os.readlink(f"/proc/{pid}/fd/{fd}")


def test_it_is_a_module_too(later: Program) -> None:
    program = os.path.join(os.path.dirname(sys.executable), "later")
    if not os.path.exists(program):
        pytest.skip("the console script is not installed beside this Python")
    answers = [
        subprocess.run([*words, "--version"], env=later.env, capture_output=True, text=True).stdout
        for words in ([program], [sys.executable, "-m", "later"])
    ]
    assert answers[0] == answers[1]
