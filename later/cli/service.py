"""Hands the daemon to systemd: for one person, or for all users of a machine."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import click

from later.cli import http, places, systemd
from later.cli.output import UNAVAILABLE, Refused, unavailable
from later.cli.systemd import UNIT, Scope, the_scope

ACCOUNT = "later"
HOMES = ("/home", "/root", "/run/user")
"""What ProtectHome= hides from the system service."""
START_S = 60.0
STOP_S = 60.0


def whose(command: Callable[..., object]) -> Callable[..., object]:
    """The option that every command here has."""
    return click.option("--system", is_flag=True, help="The one for all users of this machine.")(command)


@click.group()
def service() -> None:
    """Let systemd run Later, also after a reboot."""


@service.command(short_help="Install and start the service.")
@whose
@click.option("--print", "only_print", is_flag=True, help="Show the unit and change nothing.")
def install(system: bool, only_print: bool) -> None:
    """Install and start the service: your own, or with --system one for all users of this machine."""
    scope = the_scope(system)
    unit = scope.text(_program())
    if only_print:
        click.echo(unit, nl=False)
        return
    if system:
        _require_root("install")
        _require_visible_program()
    scope.require_systemd()
    if system:
        _make_account()
    _write(scope.unit, unit)
    _tell_what_stays_behind(scope)
    if not system:
        _stop_own_daemon()
    _start(scope)
    click.echo(f"Later runs as a service: {scope.unit}")
    if system:
        click.echo(f"its settings: {scope.settings}; who may use it: sudo usermod -aG {ACCOUNT} USER")
    else:
        click.echo(f"without `loginctl enable-linger {systemd.login()}` it only runs while you are logged in")


@service.command(short_help="Stop the service and remove it.")
@whose
def uninstall(system: bool) -> None:
    """Stop the service and remove it; what Later keeps stays where it is."""
    scope = the_scope(system)
    if system:
        _require_root("uninstall")
    _require_installed(scope)
    scope.require_systemd()
    scope.tell("disable", "--now", UNIT)
    if system:
        scope.tell("clean", "--what=runtime", UNIT)
    scope.unit.unlink()
    scope.tell("daemon-reload")
    click.echo(f"removed {scope.unit}; what Later keeps stays where it is")


@service.command(short_help="Show how the service is.")
@whose
def status(system: bool) -> int:
    """Show what systemd says of the service; exit status 69 if it does not run."""
    scope = the_scope(system)
    _require_installed(scope)
    scope.require_systemd()
    said = scope.ask("status", "--no-pager", "--lines=5", UNIT)
    click.echo(said.stdout, nl=False)
    return 0 if said.returncode == 0 else UNAVAILABLE


def _program() -> list[str]:
    """The installed command; where there is none, the interpreter and the package."""
    for script in (Path(sys.argv[0]), Path(sys.executable).with_name("later")):
        if script.name == "later" and script.is_file():
            return [str(script.absolute())]
    return [sys.executable, "-P", "-m", "later"]


def _require_root(verb: str) -> None:
    if os.geteuid() != 0:
        raise Refused(f"this needs root; run: sudo {' '.join(_program())} service {verb} --system")


def _require_visible_program() -> None:
    """Refuse what the service could not even read, before anything is changed."""
    homes = [Path(home).resolve() for home in HOMES]
    needed = [Path(_program()[0]), Path(sys.prefix), Path(sys.base_prefix), Path(str(files("later")))]
    for path in (path.resolve() for path in needed):
        if any(path.is_relative_to(home) for home in homes):
            raise Refused(
                f"{path} lies in a home directory, which the system service cannot see; "
                "run `sudo python3 -m venv /opt/later`, install Later there with "
                "`sudo /opt/later/bin/pip install …`, then: sudo /opt/later/bin/later service install --system"
            )


def _require_installed(scope: Scope) -> None:
    if not scope.unit.exists():
        flag = "" if scope.flags else " --system"
        raise Refused(f"there is no {scope.unit}; `later service install{flag}` makes one", status=3)


def _make_account() -> None:
    """The user and the group that the system service runs as."""
    try:
        grp.getgrnam(ACCOUNT)
    except KeyError:
        systemd.do("groupadd", "--system", ACCOUNT)
    try:
        pwd.getpwnam(ACCOUNT)
    except KeyError:
        homeless = ("--home-dir", "/nonexistent", "--no-create-home", "--shell", "/usr/sbin/nologin")
        systemd.do("useradd", "--system", "--gid", ACCOUNT, *homeless, ACCOUNT)


def _write(path: Path, unit: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unit, encoding="utf-8")
        path.chmod(0o644)
    except OSError as error:
        raise Refused(f"{path} cannot be written ({error.strerror}); `--print` shows what belongs there") from None


def _tell_what_stays_behind(scope: Scope) -> None:
    """A service does not see the variables of the shell that installs it."""
    names = sorted(name for name in os.environ if name.startswith("LATER_"))
    if names:
        named = ", ".join(names)
        click.echo(f"later: {named} is set for this shell alone; the service reads {scope.settings}", err=True)


def _stop_own_daemon() -> None:
    """One that runs already, such as `later add` starts, holds the state directory until its process has ended."""
    daemon = _own_daemon()
    if daemon is None:
        return
    pid = daemon.ask("GET", "/v1/stats").body["pid"]
    daemon.ask("POST", "/v1/stop")
    deadline = time.monotonic() + STOP_S
    while not _ended(pid):
        if time.monotonic() > deadline:
            raise unavailable(f"the daemon so far (process {pid}) is still finishing what it performs; try again")
        time.sleep(0.05)
    click.echo(f"later: stopped the daemon so far (process {pid}), the service takes over", err=True)


def _own_daemon() -> http.Daemon | None:
    """The caller's own one, never the one that all share."""
    named = places.variable("LATER_SOCKET")
    socket = Path(named or Path(places.state_dir(), "api.sock"))
    if not socket.exists() or socket.stat().st_uid != os.geteuid():
        return None
    return http.connect(places.Door(socket=str(socket)))


def _ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # nobody has asked yet how it ended


def _start(scope: Scope) -> None:
    """Enable it, and start it anew where it runs already."""
    scope.tell("daemon-reload")
    scope.tell("enable", UNIT)
    try:
        said = scope.ask("restart", UNIT, timeout=START_S)
    except subprocess.TimeoutExpired:
        raise unavailable(
            f"the service is installed, but its store has not answered for {START_S:.0f} s; `{scope.diary}` says why"
        ) from None
    if said.returncode:
        raise Refused(f"the service is installed, but did not start; `{scope.diary}` says why")
