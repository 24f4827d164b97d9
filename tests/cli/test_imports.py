"""The command line stays thin, and reads settings as the daemon does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from later import loading
from later.cli import COMMANDS, places
from later.settings import Settings
from tests.program import Program

PROBE = """
import json, sys
from later.cli import main
try:
    main({words!r})
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
OURS = {"later", "__main__"}


def modules_after(later: Program, *words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROBE.format(words=[*words])],
        # Without `site`, which imports what an editable installation needs.
        env={**later.env, "PYTHONPATH": ":".join(path for path in sys.path if path)},
        cwd=later.home,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "words",
    [
        ["add", "x", "--within", "3d"],
        ["add", "x"],
        ["list"],
        ["get", "x"],
        ["inbox"],
        ["stats"],
        ["health"],
        ["shell-init", "bash"],
        ["completion", "fish"],
    ],
)
def test_only_the_standard_library_and_click_are_imported(later: Program, words: list[str]) -> None:
    later.run("add", "x", "--hold", "--id", "x")
    modules = modules_after(later, *words)
    foreign = {name for name in modules if name.split(".")[0] not in {*sys.stdlib_module_names, *OURS, "click"}}
    assert foreign == set()
    ours = {name for name in modules if name.startswith("later.")}
    assert ours <= {"later.cli"} | {name for name in ours if name.startswith("later.cli.")}
    assert "later.cli.engine" not in ours


def test_adding_waits_for_no_module_that_it_does_not_need(later: Program) -> None:
    modules = modules_after(later, "add", "x", "--within", "3d")
    assert (
        modules & {"http.client", "urllib.parse", "email", "subprocess", "secrets", "dataclasses", "asyncio"} == set()
    )
    assert {name for name in modules if name.startswith("later.cli.")} == {
        f"later.cli.{name}" for name in ("add", "attention", "http", "options", "output", "places", "wire")
    }


def test_every_command_is_where_the_table_says() -> None:
    from later.cli import cli

    context = cli.make_context("later", [], resilient_parsing=True)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_the_command_line_knows_all_settings() -> None:
    assert list(places.KNOWN) == loading.names()


@pytest.mark.parametrize(
    "line",
    [
        "LATER_TO=ada@example.org",
        "  export  LATER_TO = ada@example.org  ",
        "LATER_TO=two words",
        "LATER_TO=word # remark",
        "LATER_TO=word#not-a-remark",
        "LATER_TO='single # quoted'",
        "LATER_TO='it\\'s'",
        'LATER_TO="double # quoted" # remark',
        'LATER_TO="with \\"quotes\\" and \\\\"',
        "LATER_TO=",
        "LATER_TO=''",
        "# LATER_TO=nobody",
        "LATER_TO=a\nLATER_TO=b",
        "LATER_TO='two\nlines'",
        "LATER_TO=$HOME/${USER}",
        "LATER_TO=caf\u00e9",
        "later_to=ada",
    ],
)
def test_a_line_of_the_settings_file_means_what_the_daemon_reads(
    line: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = loading.default_env_file()
    file.parent.mkdir()
    file.write_text(f"{line}\n", encoding="utf-8")
    assert str(file) == places.env_file()
    assert places.variable("LATER_TO") == loading.load().to


@pytest.mark.parametrize("name", ["", "~/mine", "mine", "/srv/mine"])
def test_the_state_directory_is_the_daemons(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("LATER_STATE_DIR", name)
    assert places.state_dir() == str(Settings().state_dir)
