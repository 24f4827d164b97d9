"""Speaks with systemd, a person's or the machine's, through its own tools."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from later.cli import places
from later.cli.output import Refused, unavailable

UNIT = "later.service"
BOOTED = Path("/run/systemd/system")
"""There as long as systemd runs the machine (sd_booted(3))."""


@dataclass(frozen=True)
class Scope:
    """Whose service it is: which of our units, where systemd looks for it, how its tools are told, its settings."""

    template: str
    directory: Path
    flags: tuple[str, ...]
    settings: Path

    @property
    def unit(self) -> Path:
        return self.directory / UNIT

    @property
    def diary(self) -> str:
        """The command that shows what the service said."""
        return " ".join(["journalctl", *self.flags, "-eu", UNIT])

    def text(self, program: Sequence[str]) -> str:
        """The shipped unit, to run this program."""
        template = files("later").joinpath("service", self.template).read_text(encoding="utf-8")
        return template.replace("@later@", " ".join(map(_quoted, program)))

    def require_systemd(self) -> None:
        """Raises Refused where systemd does not run, or not for this user."""
        if shutil.which("systemctl") is None or not BOOTED.is_dir():
            raise unavailable(
                "systemd does not run this machine, so nothing was changed; "
                "let whatever starts programs here run `later run`"
            )
        said = self.ask("show", "--property=Version")
        if said.returncode:
            raise unavailable(
                f"systemd does not answer {login()} ({_last_line(said.stderr)}), so nothing was changed; "
                "log in as this user directly, not by su or sudo, and try again"
            )

    def ask(self, *words: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        """What systemctl answers."""
        return _run(["systemctl", *self.flags, *words], timeout=timeout)

    def tell(self, *words: str) -> None:
        """Raises Refused where systemctl does not do it."""
        _checked(self.ask(*words))


def the_scope(system: bool) -> Scope:
    """The machine's scope, or the caller's own."""
    if system:
        return Scope("system.service", Path("/etc/systemd/system"), (), Path("/etc/later/env"))
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Scope("user.service", config / "systemd" / "user", ("--user",), Path(places.env_file()))


def do(*words: str) -> None:
    """Run a tool of the system; raises Refused with what it says."""
    _checked(_run(words))


def login() -> str:
    """Who is asking, by name if there is one."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _quoted(word: str) -> str:
    """One word of a unit's command line (systemd.service(5)): a % would begin a specifier; systemd takes no quotes."""
    escaped = word.replace("%", "%%")
    return f'"{escaped}"' if " " in word else escaped


def _run(words: Sequence[str], timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - no shell, and the words are ours
        words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout
    )


def _checked(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise Refused(f"`{' '.join(done.args)}` failed: {_last_line(done.stderr) or f'status {done.returncode}'}")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
