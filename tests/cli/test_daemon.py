"""Commands about the daemon: run, demo, health, stop."""

from __future__ import annotations

import re
import signal
import sys
import time

from tests.asking import ask
from tests.cli.conftest import alone
from tests.program import Program
from tests.terminal import Terminal
from tests.waiting import wait_until

pytestmark = alone


def timed(program: Program, *words: str, check: int) -> tuple[str, float]:
    began = time.monotonic()
    stderr = program.run(*words, check=check).stderr
    return stderr, time.monotonic() - began


def test_health_of_no_daemon(program: Program) -> None:
    stderr, took = timed(program, "health", check=69)
    assert "no daemon answers" in stderr
    assert took < 5


def test_health_stop_and_what_is_left(program: Program) -> None:
    daemon = program.start()
    program.run("add", "still there", "--in", "3d", "--id", "kept")
    assert program.run("health").stdout == "ok\n"

    daemon.send_signal(signal.SIGSTOP)
    stderr, took = timed(program, "health", check=1)
    daemon.send_signal(signal.SIGCONT)
    assert stderr == f"later: the daemon at {program.state}/api.sock did not answer (timed out); try again\n"
    assert took < 5

    assert program.run("run", check=4).stderr.startswith(
        f"later: another daemon (pid {daemon.pid}) keeps its tasks in "
    )
    assert program.run("stop").stdout == f"stopped the daemon (process {daemon.pid})\n"
    # It has ended when that is said: another one may start at once.
    assert not (program.state / "api.sock").exists()
    assert daemon.wait(0.5) == 0
    assert "no daemon answers" in program.run("stop", check=69).stderr

    file = program.home / "my.env"
    file.write_text("LATER_WORKERS=7\n")
    program.start("--env-file", str(file))
    assert ask(program, "GET", "/v1/stats")["workers"]["places"] == 7
    started = program.events("started")[-1]
    assert re.fullmatch(r"Valkey [\d.]+ in ~/state/redis", started["store"])
    assert started["socket"] == str(program.state / "api.sock")
    assert program.json("get", "kept")["message"] == "still there"
    assert program.json("stop") == {"stopped": program.daemon.pid}  # type: ignore[union-attr]


def test_a_socket_in_a_groups_directory_is_the_groups_and_stays_its_daemons(program: Program) -> None:
    run = program.home / "run"
    run.mkdir()
    run.chmod(0o750)
    here = {"LATER_SOCKET": str(run / "api.sock")}
    program.start(**here)
    assert (run / "api.sock").stat().st_mode & 0o777 == 0o660
    second = program.run("run", check=2, **here, LATER_STATE_DIR=str(program.home / "other"))
    assert second.stderr.splitlines()[-1].startswith(f"later: another daemon listens at {run}/api.sock; stop it, or ")
    assert program.run("health", **here).stdout == "ok\n"
    program.stop()


def test_a_file_in_the_place_of_the_socket_is_left_alone(program: Program) -> None:
    notes = program.home / "notes"
    notes.write_text("mine")
    done = program.run("run", check=2, LATER_SOCKET=str(notes))
    assert done.stderr.splitlines()[-1].startswith(
        f"later: {notes} is there already and is no socket; set LATER_SOCKET"
    )
    assert notes.read_text() == "mine"


def test_a_file_of_settings_that_is_not_there_is_missed(program: Program) -> None:
    done = program.run("run", "--env-file", "/nowhere", check=2)
    assert done.stderr.startswith("later: there is no file /nowhere; ")


async def test_ctrl_c_ends_a_daemon_in_the_foreground_and_a_terminal_sees_what_comes(program: Program) -> None:
    env = {**program.env, "LATER_LOG": "auto"}
    with Terminal([sys.executable, "-m", "later", "run"], env=env, cwd=str(program.home)) as terminal:
        terminal.read_until(lambda screen: "api.sock" in screen)
        ask(program, "POST", "/v1/tasks", id="seen", message="look \x1b[31m here", action="console", **{"in": "0s"})
        terminal.read_until(lambda screen: 'delivered seen: "look \\x1b[31m here"' in screen)
        terminal.type("\x03")
        terminal.read_until(lambda screen: False)
        assert terminal.process.wait(20) == 0


async def test_the_demo_delivers_and_leaves_nothing_behind(program: Program) -> None:
    env = {**program.env, "LATER_WORKERS": "none of its business", "TMPDIR": str(program.home)}
    words = [sys.executable, "-m", "later", "demo"]
    with Terminal(words, env=env, cwd=str(program.home)) as terminal:
        shown = terminal.read_until(lambda screen: " after its time" in screen)
        added, delivered = shown.splitlines()[1:3]
        task_id = added.split()[1]
        assert added == f'added {task_id} "call mum" due in 3 s'
        assert re.fullmatch(rf'delivered {task_id} "call mum" \d+ ms after its time', delivered)
        assert shown.index("delivered") > shown.index("added")
        assert terminal.process.poll() is None
        terminal.type("\x03")
        terminal.read_until(lambda screen: False)
        assert terminal.process.wait(20) == 0
    await wait_until(lambda: not list(program.home.glob("later-demo-*")))
    assert not program.state.exists()
