"""The systemd units: what systemd itself thinks of them, and that their numbers fit the program's."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from later.api import server
from later.cli import places
from later.cli.systemd import the_scope
from later.settings import Settings
from later.store import embedded
from tests.packaging.conftest import ROOT
from tests.program import Program

EXPOSURE = 2.0
SCOPES = {"user": [], "system": ["--system"]}


@pytest.fixture(params=SCOPES)
def scope(request: pytest.FixtureRequest) -> str:
    return request.param


def printed(program: Program, scope: str) -> str:
    return program.run("service", "install", "--print", *SCOPES[scope]).stdout


def values(unit: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit, re.MULTILINE)


def analyzed(unit: str, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze says of this unit; skips the test where there is none."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        if os.environ.get("CI") == "true":
            pytest.fail("systemd-analyze is missing; CI must install systemd")
        pytest.skip("systemd-analyze is not installed")
    path = home / "later.service"
    path.write_text(unit)
    return subprocess.run(
        [analyze, "--no-pager", *words, str(path)],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(home), "HOME": str(home), "LANG": "C.UTF-8"},
    )


def test_systemd_finds_no_fault(program: Program, scope: str):
    done = analyzed(printed(program, scope), program.home, "verify", "--man=no", f"--{scope}")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_system_service_is_hardened(program: Program):
    done = analyzed(printed(program, "system"), program.home, "security", "--offline=true")
    level = re.search(r"Overall exposure level for later.service: (\d+\.\d+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) <= EXPOSURE, done.stdout


def test_printing_changes_nothing(program: Program, scope: str):
    printed(program, scope)
    assert not list(program.home.rglob("*"))


def test_the_unit_runs_the_program_that_printed_it(program: Program, scope: str):
    command, run = values(printed(program, scope), "ExecStart")[0].rsplit(" ", 1)
    assert run == "run"
    assert Path(command).parent == Path(sys.executable).parent
    assert subprocess.run([command, "--version"], check=True, capture_output=True).stdout.startswith(b"later ")


def test_a_program_with_a_strange_name_is_written_as_systemd_reads_it(tmp_path: Path, scope: str):
    strange = tmp_path / "100% mine" / "later"
    strange.parent.mkdir()
    strange.write_text("#!/bin/sh\n")
    strange.chmod(0o755)
    unit = the_scope(scope == "system").text([str(strange)])
    done = analyzed(unit, tmp_path, "verify", "--man=no", f"--{scope}")
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_is_left_to_fill_in(program: Program, scope: str):
    assert "@" not in re.sub(r"SystemCallFilter=.*", "", printed(program, scope))


def test_the_daemon_is_ready_when_it_says_so_and_alive_as_long_as_it_says_so(program: Program, scope: str):
    unit = printed(program, scope)
    assert values(unit, "Type") == ["notify"]
    assert values(unit, "WatchdogSec") == ["120"]
    assert values(unit, "TimeoutStartSec") == ["infinity"]
    assert values(unit, "Restart") == ["on-failure"]


def test_the_daemon_has_time_to_stop_before_anything_is_killed(program: Program, scope: str):
    unit = printed(program, scope)
    assert values(unit, "KillMode") == ["mixed"]
    needed = Settings().grace_seconds + server.STOP_S + 2 * embedded.STOP_S
    assert int(values(unit, "TimeoutStopSec")[0]) > needed


def test_the_system_service_is_where_the_command_line_looks_and_lets_its_group_in(program: Program):
    unit = printed(program, "system")
    environment = dict(pair.split("=") for line in values(unit, "Environment") for pair in line.split())
    assert environment["LATER_SOCKET"] == f"{places.SYSTEM_DIR}/api.sock"
    assert f"/run/{values(unit, 'RuntimeDirectory')[0]}" == str(places.SYSTEM_DIR)
    assert int(values(unit, "RuntimeDirectoryMode")[0], 8) == server.GROUP_DIRECTORY
    assert environment["LATER_STATE_DIR"] == f"/var/lib/{values(unit, 'StateDirectory')[0]}"
    assert stat.S_IMODE(int(values(unit, "StateDirectoryMode")[0], 8)) == 0o700
    assert values(unit, "User") == values(unit, "Group") == ["later"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_has_all_that_the_package_has(tmp_path: Path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True
    )
    with zipfile.ZipFile(next(tmp_path.glob("later_daemon-*.whl"))) as wheel:
        shipped = {name for name in wheel.namelist() if name.startswith("later/")}
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "later").rglob("*") if path.is_file()}
    assert shipped == {name for name in package if "__pycache__" not in name}
    assert {"later/service/user.service", "later/service/system.service", "later/store/lua/settle.lua"} <= shipped
    assert any(name.startswith("later/archive/migrations/versions/") for name in shipped)
