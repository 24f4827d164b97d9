"""Where things are, for a command that does not load the settings: a few variables, read as the daemon reads them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SYSTEM_DIR = Path("/run/later")


def variable(name: str) -> str | None:
    """A setting from the environment or, failing that, from the file of settings; empty counts as not set."""
    return os.environ.get(name) or _kept().get(name) or None


def state_dir() -> Path:
    """The directory in which a person's own daemon keeps everything."""
    named = variable("LATER_STATE_DIR")
    return Path(named).absolute() if named else _base("XDG_STATE_HOME", ".local/state") / "later"


def env_file() -> Path:
    """The file of settings that are kept for good."""
    return _base("XDG_CONFIG_HOME", ".config") / "later" / "env"


@dataclass(frozen=True)
class Door:
    """Where a daemon may be asked: at a socket, or at a URL."""

    socket: Path | None = None
    url: str | None = None

    def __str__(self) -> str:
        return self.url or str(self.socket)


def doors() -> Iterator[Door]:
    """Where to look for a daemon, in order."""
    if url := variable("LATER_URL"):
        yield Door(url=url)
        return
    if named := variable("LATER_SOCKET"):
        yield Door(socket=Path(named))
        return
    yield Door(socket=state_dir() / "api.sock")
    yield Door(socket=SYSTEM_DIR / "api.sock")


def zone() -> str | None:
    """The caller's time zone by its IANA name, if this machine tells it."""
    named = os.environ.get("TZ", "").lstrip(":")
    if named and not named.startswith("/"):
        return named
    link = os.path.realpath("/etc/localtime")
    _, found, name = link.partition("zoneinfo/")
    if found:
        return name.removeprefix("posix/")
    try:
        return Path("/etc/timezone").read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _base(variable_name: str, below_home: str) -> Path:
    """The directories of the XDG base directory specification; on macOS those of Apple's guidelines."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    named = os.environ.get(variable_name, "").strip()
    return Path(named) if named else Path.home() / below_home


def _kept() -> dict[str, str]:
    try:
        lines = env_file().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    kept: dict[str, str] = {}
    for line in lines:
        name, is_setting, value = line.strip().removeprefix("export ").partition("=")
        if is_setting and not name.startswith("#"):
            try:
                words = shlex.split(value, comments=True)
            except ValueError:
                words = [value]
            kept[name.strip()] = words[0] if words else ""
    return kept
