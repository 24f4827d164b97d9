"""The snippets for shells: new thoughts at the prompt, at the price of looking for a file."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from later.cli import places
from later.cli.shell import shell_init
from tests.program import Program, installed
from tests.terminal import Terminal
from tests.waiting import wait_until

SHELLS = ("bash", "zsh", "fish")
ALONE = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}
PROMPT = {
    "bash": "PS1='{}'\n",
    "zsh": "PROMPT='{}'\n",
    "fish": "function fish_prompt; echo -n '{}'; end\n",
}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{request.param} is missing; CI must install it")
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture(scope="module")
def home() -> Iterator[Program]:
    """A home whose name has everything that a shell could stumble over."""
    with installed() as program:
        program.state = program.home / 'it\'s $HOME "`x`" \\ é'
        program.env["LATER_STATE_DIR"] = str(program.state)
        program.start()
        yield program


def run(shell: str, script: str, program: Program, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shell, *ALONE[shell], "-c", script],
        env={**program.env, **env},
        cwd=program.home,
        capture_output=True,
        text=True,
        timeout=30,
    )


@functools.cache
def snippet(shell: str, program: Program) -> Path:
    """The snippet, in a file to be sourced."""
    path = program.home / f"init.{shell}"
    path.write_text(program.run("shell-init", shell).stdout)
    return path


@functools.cache
def marker(program: Program) -> Path:
    return program.state / "unread" / program.run("shell-init", "bash").stdout.split("/unread/")[1].split("'")[0]


def test_the_snippet_is_good_shell(shell: str, home: Program) -> None:
    assert run(shell, f"source {snippet(shell, home)}; echo fine", home).stdout == "fine\n"


async def test_a_thought_that_has_come_is_shown_once_at_the_next_prompt(shell: str, home: Program) -> None:
    home.run("add", f"water the plants in {shell}", "--in", "0s")
    await wait_until(marker(home).exists)
    script = f"source {snippet(shell, home)}; __later_prompt; echo; __later_prompt"
    done = run(shell, script, home)
    assert done.stdout.count(f"water the plants in {shell}") == 1
    assert done.stderr == ""
    assert not marker(home).exists()


def test_without_a_marker_no_process_is_started(shell: str, home: Program) -> None:
    assert not marker(home).exists()
    # Nothing that is started could be found, and nothing is missed.
    empty = "set -x PATH /nowhere" if shell == "fish" else "PATH=/nowhere"
    init = snippet(shell, home).read_text().replace(sys.executable, "/nowhere/python")
    (home.home / "init").write_text(init)
    done = run(shell, f"source {home.home / 'init'}; {empty}; __later_prompt; echo fine", home)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_a_prompt_costs_less_than_5_ms(shell: str, home: Program) -> None:
    clock = {
        "bash": ("echo $EPOCHREALTIME", "for i in {1..200}; do __later_prompt; done"),
        "zsh": ("zmodload zsh/datetime; echo $EPOCHREALTIME", "for i in {1..200}; do __later_prompt; done"),
        "fish": ("date +%s.%N", "for i in (seq 200); __later_prompt; end"),
    }
    now, prompts = clock[shell]
    done = run(shell, f"source {snippet(shell, home)}; {now}; {prompts}; {now}", home)
    began, ended = (float(line) for line in done.stdout.split())
    assert (ended - began) / 200 < 0.005


def test_the_last_status_stays(shell: str, home: Program) -> None:
    status = "$status" if shell == "fish" else "$?"
    fail = "sh -c 'exit 7'"
    done = run(shell, f"source {snippet(shell, home)}; {fail}; __later_prompt; echo {status}", home)
    assert done.stdout == "7\n"


def test_a_marker_that_stays_does_not_slow_every_prompt(shell: str, home: Program) -> None:
    own = home.home / f"gone-{shell}"
    (own / "unread").mkdir(parents=True)
    (own / "unread" / marker(home).name).touch()
    gone = {"LATER_STATE_DIR": str(own)}
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(own / "api.sock"))
    script = home.run("shell-init", shell, **gone).stdout
    asked = home.home / f"asked-{shell}"
    fake = home.home / "fake"
    fake.write_text(f"#!/bin/sh\necho asked >>{asked}\nexit 69\n")
    fake.chmod(0o755)
    (home.home / "init").write_text(script.replace(sys.executable, str(fake)))
    loop = "for i in (seq 11); __later_prompt; end" if shell == "fish" else "for i in {1..11}; do __later_prompt; done"
    run(shell, f"source {home.home / 'init'}; {loop}", home, **gone)
    assert asked.read_text() == "asked\n"


async def test_it_works_at_a_real_prompt_beside_what_is_there(shell: str, home: Program) -> None:
    before = {"bash": "PROMPT_COMMAND='seen=$?'\n", "zsh": "precmd() { seen=$? }\n", "fish": ""}[shell]
    env = {**home.env, "PS1": "", "PATH": os.environ["PATH"]}
    with Terminal([shell, *ALONE[shell], "-i"], env=env, cwd=str(home.home)) as terminal:
        terminal.type(before + PROMPT[shell].format("<ready>") + f"source '{snippet(shell, home)}'\n")
        terminal.type("echo on''line\n")
        terminal.read_until(lambda screen: "online" in screen)
        home.run("add", f"{shell} says hello", "--in", "0s")
        await wait_until(marker(home).exists)
        terminal.type("sh -c 'exit 7'\n")
        terminal.read_until(lambda screen: f"{shell} says hello" in screen)
        terminal.type("sh -c 'exit 7'\n" + ("echo status $status\n" if shell == "fish" else "echo status $?\n"))
        terminal.read_until(lambda screen: "status 7\n" in screen)
        if before:
            terminal.type("echo seen $seen\n")
            terminal.read_until(lambda screen: "seen 0\n" in screen)
        terminal.type("exit\n")


def test_sourcing_it_twice_changes_nothing(home: Program) -> None:
    init = snippet("bash", home)
    done = run("bash", f'PROMPT_COMMAND="true;"; source {init}; source {init}; echo "$PROMPT_COMMAND"', home)
    assert done.stdout == "true;\n__later_prompt\n"


def test_a_daemon_that_was_stopped_is_not_asked(shell: str, home: Program) -> None:
    own = home.home / f"stopped-{shell}"
    (own / "unread").mkdir(parents=True)
    (own / "unread" / marker(home).name).touch()
    script = home.run("shell-init", shell, LATER_STATE_DIR=str(own)).stdout
    (home.home / "init").write_text(script.replace(sys.executable, "/nowhere/python"))
    done = run(shell, f"source {home.home / 'init'}; __later_prompt; echo $__later_rest", home)
    assert done.stdout == "0\n"


def test_the_system_daemon_counts_where_there_is_no_own_one(
    shell: str, home: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, system = home.home / f"own-{shell}", home.home / f"system-{shell}"
    monkeypatch.setattr(places, "SYSTEM_DIR", str(system))
    monkeypatch.setenv("LATER_STATE_DIR", str(own))
    script = CliRunner().invoke(shell_init, [shell]).output
    (home.home / "init").write_text(script.replace(sys.executable, "/nowhere/python"))
    asks = f"source {home.home / 'init'}; __later_prompt; echo $__later_rest"
    (system / "unread").mkdir(parents=True)
    (system / "unread" / marker(home).name).touch()
    own.mkdir()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as own_listener:
        listener.bind(str(system / "api.sock"))
        assert run(shell, asks, home).stdout == "10\n"
        own_listener.bind(str(own / "api.sock"))
        assert run(shell, asks, home).stdout == "0\n"


def test_a_socket_elsewhere_has_its_markers_beside_it(home: Program) -> None:
    printed = home.run("shell-init", "zsh", LATER_SOCKET="/srv/later/api.sock").stdout
    assert "-e /srv/later/unread/" in printed
    assert "/run/later" not in printed


def test_a_daemon_at_a_url_has_no_markers_here(home: Program) -> None:
    done = home.run("shell-init", "zsh", check=2, LATER_URL="http://example.org")
    assert done.stderr == "later: LATER_URL names a daemon elsewhere, whose inbox no prompt can see; unset it here\n"


def test_completion_knows_the_commands(shell: str, home: Program) -> None:
    script = home.run("completion", shell).stdout
    assert "_LATER_COMPLETE" in script
    (home.home / "completion").write_text(script)
    assert run(shell, f"source {home.home / 'completion'}; echo fine", home).stdout.endswith("fine\n")


def test_completion_finds_what_is_meant(home: Program) -> None:
    done = home.run("completion", "bash", _LATER_COMPLETE="bash_complete", COMP_WORDS="later sn", COMP_CWORD="1")
    assert done.stdout == "plain,snooze\n"
