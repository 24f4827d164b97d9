"""Where the command line looks for a daemon, and what it says when it may not ask or finds none."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from later.cli import places
from later.cli.output import Refused
from tests.cli.conftest import alone
from tests.program import Program, installed

pytestmark = alone

NOBODY_UID = 65_534
TOKEN = "a-token-of-the-tests"

as_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv to act as another user"
)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home without a daemon, and a system directory without one, for this very process."""
    home = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(places, "SYSTEM_DIR", str(home / "run"))
    yield home
    shutil.rmtree(home)


@contextmanager
def listening(path: Path) -> Iterator[Path]:
    """Somebody listens there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path


def test_the_order_is_url_socket_own_directory_system_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, system, named = here / ".local/state/later/api.sock", here / "run/api.sock", here / "named.sock"
    assert [str(door) for door in places.doors()] == [str(own), str(system)]
    monkeypatch.setenv("LATER_SOCKET", str(named))
    assert [str(door) for door in places.doors()] == [str(named)]
    monkeypatch.setenv("LATER_URL", "http://127.0.0.1:9")
    assert [str(door) for door in places.doors()] == ["http://127.0.0.1:9"]


def test_the_first_that_answers_is_asked(here: Path) -> None:
    own, system = here / ".local/state/later/api.sock", here / "run/api.sock"
    with listening(system):
        assert asked(here) == str(system)
        with listening(own):
            assert asked(here) == str(own)
        assert own.exists()  # a daemon that was killed leaves its socket
        assert asked(here) == str(system)


def asked(home: Path) -> str:
    """Which daemon a process of its own would ask."""
    probe = "import sys; from later.cli import http, places; places.SYSTEM_DIR = sys.argv[1]; print(http.find().door)"
    env = {"HOME": str(home), "PATH": os.environ["PATH"]}
    words = [sys.executable, "-c", probe, str(home / "run")]
    return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    "words", [["list"], ["get", "x"], ["inbox"], ["stats"], ["stop"], ["health"], ["execute", "x"]]
)
def test_nothing_but_add_starts_a_daemon(program: Program, words: list[str]) -> None:
    done = program.run(*words, check=69, LATER_AUTOSTART="1")
    assert done.stderr == (
        f"later: no daemon answers at {program.state}/api.sock nor /run/later/api.sock; "
        "start one: `later add` something, `later run` here, or `later service install` for good\n"
    )
    assert not program.state.exists()


def test_add_does_not_start_one_where_that_is_switched_off(program: Program) -> None:
    assert "start one: `later run` here" in program.run("add", "x", check=69, LATER_AUTOSTART="0").stderr
    assert not program.state.exists()


def test_add_does_not_start_one_where_a_url_names_one(program: Program) -> None:
    done = program.run("add", "x", check=69, LATER_AUTOSTART="1", LATER_URL="http://127.0.0.1:9")
    assert done.stderr.startswith(
        "later: no daemon answers at http://127.0.0.1:9; start it there, or correct LATER_URL"
    )
    assert not program.state.exists()


def test_add_does_not_start_one_where_the_machine_has_one(here: Path) -> None:
    (here / "run").mkdir()
    assert not places.may_start_one()
    (here / "run").rmdir()
    assert places.may_start_one()


def test_a_daemon_of_the_machine_that_is_down_is_missed(here: Path) -> None:
    (here / "run").mkdir()
    from later.cli.add import add

    refusal = CliRunner().invoke(add, ["x"]).exception
    assert isinstance(refusal, Refused)
    assert (refusal.status, str(here / "run/api.sock") in str(refusal)) == (69, True)


@as_root
@pytest.mark.parametrize("mode", [0o700, 0o750])
def test_a_socket_that_refuses_is_told_with_what_to_do(mode: int) -> None:
    with installed() as program:
        program.home.chmod(0o755)
        closed = program.home / "run"
        closed.mkdir()
        with listening(closed / "api.sock"):
            closed.chmod(mode)
            done = as_nobody(program, "list", LATER_SOCKET=str(closed / "api.sock"))
    assert done.returncode == 69
    advice = {
        0o750: "join its group: sudo usermod -aG later $USER, then log in again",
        0o700: "it belongs to another user; set LATER_STATE_DIR to a directory of your own",
    }
    assert done.stderr == f"later: you may not use the daemon at {closed}/api.sock; {advice[mode]}\n"


@as_root
def test_another_user_sees_nothing_of_ours() -> None:
    """The system daemon's shape: a directory for a group, and each caller known by the kernel's word."""
    with installed() as program:
        program.home.chmod(0o755)
        run = program.home / "run"
        run.mkdir(mode=0o750)
        os.chown(run, 0, NOBODY_UID)
        run.chmod(0o750)
        program.env["LATER_SOCKET"] = str(run / "api.sock")
        program.start()
        os.chown(run / "api.sock", 0, NOBODY_UID)
        assert (run / "api.sock").stat().st_mode & 0o777 == 0o660
        assert program.json("add", "mine", "--hold", "--id", "one")["owner"] == "root"
        assert as_nobody(program, "get", "one").returncode == 3
        assert '"owner": "nobody"' in as_nobody(program, "add", "theirs", "--hold", "--id", "one", "--json").stdout
        assert as_nobody(program, "list").stdout == "one\tcreated\tnot scheduled\tin your inbox\ttheirs\n"
        assert program.json("get", "one")["message"] == "mine"
        refused = as_nobody(program, "stop")
        assert refused.returncode == 1
        assert refused.stderr == "later: this needs the right to admin, which nobody does not have here\n"
        assert program.run("health").stdout == "ok\n"


def as_nobody(program: Program, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """One command of another user, who has the command line and click from a place that everybody can read."""
    place = program.home / "lib"
    if not place.exists():
        for package in ("later", "click"):
            source = Path(str(importlib.import_module(package).__file__)).parent
            shutil.copytree(source, place / package, ignore=shutil.ignore_patterns("__pycache__"))
    identity = [f"--reuid={NOBODY_UID}", f"--regid={NOBODY_UID}", "--clear-groups"]
    python = os.path.realpath(sys.executable)
    done = subprocess.run(
        ["setpriv", *identity, python, "-m", "later", *arguments],
        env={**program.env, "HOME": "/nonexistent", "PYTHONPATH": str(place), **env},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
    )
    if done.returncode in (126, 127):
        pytest.skip(f"another user may not run {python}")
    return done


def test_a_persons_daemon_is_closed_to_all_others(later: Program) -> None:
    assert later.state.stat().st_mode & 0o777 == 0o700
    assert (later.state / "api.sock").stat().st_mode & 0o777 == 0o600


def test_over_tcp_the_token_says_who_calls() -> None:
    port = free_port()
    with installed(LATER_PORT=str(port), LATER_TOKEN=TOKEN, LATER_OWNER="ada") as program:
        program.start()
        there = {"LATER_URL": f"http://127.0.0.1:{port}/", "LATER_STATE_DIR": str(program.home / "none")}
        assert program.json("add", "x", "--hold", **there)["owner"] == "ada"
        wrong = program.run("list", check=1, **there, LATER_TOKEN="another-token-of-the-tests")
        assert wrong.stderr.startswith("later: the daemon refuses LATER_TOKEN: ")
        none = program.run("list", check=1, **there, LATER_TOKEN="")
        assert none.stderr == "later: the daemon needs a token; set LATER_TOKEN to the one that it was started with\n"
        assert "right to admin" in program.run("stop", check=1, **there).stderr
        assert program.run("health", **there, LATER_TOKEN="").stdout == "ok\n"


def test_what_answers_and_is_not_later_is_told(program: Program) -> None:
    program.state.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(program.state / "api.sock"))
        listener.listen()
        words = [sys.executable, "-m", "later", "list"]
        process = subprocess.Popen(words, env=program.env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        caller, _ = listener.accept()
        caller.recv(65_536)
        caller.sendall(b"220 mail.example.org ESMTP\r\n")
        caller.close()
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 69
    assert stderr == (
        f"later: the daemon at {program.state}/api.sock did not answer (that is not an answer of Later); try again\n"
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
