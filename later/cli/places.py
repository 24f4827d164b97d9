"""Where things are, for a command that does not load the settings: a few variables, read as the daemon reads them."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

from later.cli.output import Refused

SYSTEM_DIR = "/run/later"

KNOWN = (
    "LATER_REDIS_URL",
    "LATER_REDIS_REPLICAS",
    "LATER_STATE_DIR",
    "LATER_PARTITIONS",
    "LATER_QUEUES",
    "LATER_SOCKET",
    "LATER_HOST",
    "LATER_PORT",
    "LATER_URL",
    "LATER_TOKEN",
    "LATER_AUTOSTART",
    "LATER_WORKERS",
    "LATER_BATCH",
    "LATER_WAKEUP_BEFORE_SECONDS",
    "LATER_LEASE_SECONDS",
    "LATER_TIMEOUT_SECONDS",
    "LATER_GRACE_SECONDS",
    "LATER_RETRY__ATTEMPTS",
    "LATER_RETRY__WITHIN",
    "LATER_RETRY__BASE",
    "LATER_RETRY__CAP",
    "LATER_WITHIN",
    "LATER_AFTER",
    "LATER_ACTION",
    "LATER_TO",
    "LATER_ZONE",
    "LATER_OWNER",
    "LATER_EMAIL__HOST",
    "LATER_EMAIL__PORT",
    "LATER_EMAIL__USERNAME",
    "LATER_EMAIL__PASSWORD",
    "LATER_EMAIL__SENDER",
    "LATER_EMAIL__SECURITY",
    "LATER_LOG",
    "LATER_LOG_LEVEL",
)
"""The names in later.settings, which takes too long to load here; a test keeps the two equal."""


def variable(name: str) -> str | None:
    """A setting from the environment or, failing that, from the file of settings; empty counts as not set."""
    return os.environ.get(name) or _kept(env_file()).get(name) or None


def refuse_unknown() -> None:
    """A setting that nobody reads is a slip of the pen; raises Refused with the nearest known name."""
    for name in (*os.environ, *_kept(env_file())):
        if name.upper().startswith("LATER_") and name.upper() not in KNOWN:
            from difflib import get_close_matches

            close = get_close_matches(name.upper(), KNOWN, n=1)
            meant = f"did you mean {close[0]}?" if close else "the README lists those there are"
            raise Refused(f"there is no setting {name}; {meant}", status=2)


def state_dir() -> str:
    """The directory in which a person's own daemon keeps everything."""
    named = variable("LATER_STATE_DIR")
    return absolute(named) if named else os.path.join(_base("XDG_STATE_HOME", ".local/state"), "later")


def env_file() -> str:
    """The file of settings that are kept for good."""
    return os.path.join(_base("XDG_CONFIG_HOME", ".config"), "later", "env")


class Door(NamedTuple):
    """Where a daemon may be asked: at a socket, or at a URL."""

    socket: str = ""
    url: str = ""

    def __str__(self) -> str:
        return self.url or self.socket


def doors() -> Iterator[Door]:
    """Where to look for a daemon, in order."""
    if url := variable("LATER_URL"):
        yield Door(url=url)
        return
    if named := variable("LATER_SOCKET"):
        yield Door(socket=absolute(named))
        return
    yield Door(socket=os.path.join(state_dir(), "api.sock"))
    yield Door(socket=os.path.join(SYSTEM_DIR, "api.sock"))


def absolute(path: str) -> str:
    """The place that a setting names, from wherever it is looked at."""
    return os.path.abspath(os.path.expanduser(path))


def may_start_one() -> bool:
    """Whether a daemon may be started: nobody has said where another one is, and it is not switched off."""
    off = (variable("LATER_AUTOSTART") or "1").lower() in ("0", "false", "no", "off")
    elsewhere = variable("LATER_URL") or variable("LATER_REDIS_URL") or os.path.exists(SYSTEM_DIR)
    return not off and not elsewhere


def may_ask_the_store() -> bool:
    """Whether a command may go to somebody's Redis by itself, where no daemon answers."""
    return variable("LATER_REDIS_URL") is not None and variable("LATER_URL") is None


def zone() -> str | None:
    """The caller's time zone by its IANA name, if this machine tells it."""
    named = os.environ.get("TZ", "").lstrip(":")
    if named:
        return _zone_name(named)
    if found := _zone_name(os.path.realpath("/etc/localtime")):
        return found
    try:
        with open("/etc/timezone", encoding="ascii") as file:
            return _zone_name(file.read().strip())
    except (OSError, UnicodeDecodeError):
        return None


def _zone_name(text: str) -> str | None:
    """The name in a TZ value or a path; None for a rule such as `CET-1CEST,M3.5.0,M10.5.0/3`, which has none."""
    before, found, after = text.partition("zoneinfo/")
    name = (after if found else before).removeprefix("posix/")
    database = "/usr/share/zoneinfo"
    if name.startswith("/") or (os.path.isdir(database) and not os.path.isfile(os.path.join(database, name))):
        return None
    return name or None


def _base(variable_name: str, below_home: str) -> str:
    """The directories of the XDG base directory specification; on macOS those of Apple's guidelines."""
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support")
    return os.environ.get(variable_name, "").strip() or os.path.join(home, below_home)


@functools.cache
def _kept(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return {}
    import re

    value = r"""(?:'((?:\\'|[^'])*)'|"((?:\\"|[^"])*)"|([^\r\n]*))"""
    line = re.compile(r"^[ \t]*(?:export[ \t]+)?(\w+)[ \t]*=[ \t]*" + value, re.MULTILINE)
    kept: dict[str, str] = {}
    for name, single, double, bare in line.findall(text):
        quoted = re.sub(r"\\(['\"\\])", r"\1", single or double)
        kept[name.upper()] = quoted or re.sub(r"\s+#.*", "", bare).strip()
    return kept
