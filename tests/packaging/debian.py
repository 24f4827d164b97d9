"""A fresh Debian: a tree that debootstrap makes, and a way to run programs in it as if it were the machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("ca-certificates", "dbus", "dbus-user-session", "libpam-systemd", "python3", "python3-venv", "systemd-sysv")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MADE = ".made"
MAKE_S = 600
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"

ENTER = """
mount -t proc proc "$ROOT/proc" && mount --rbind /dev "$ROOT/dev" || exit 125
exec chroot --userspec="$WHO" "$ROOT" /usr/bin/env -i "$@"
"""
"""The first process of its own pid namespace; its mounts are gone with it."""


def require() -> None:
    """Skip the test where no root can be made; fail it where CI should have seen to that."""
    missing = (
        "root" if os.geteuid() != 0 else next((t for t in ("debootstrap", "unshare") if not shutil.which(t)), None)
    )
    if missing is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"a fresh Debian root needs {missing}; CI must provide it")
    pytest.skip(f"a fresh Debian root needs {missing}")


def make(root: Path) -> None:
    """The root, from the mirror that this machine's own apt uses, with its way to the network."""
    suite = _fact(Path("/etc/os-release"), r"^VERSION_CODENAME=(\S+)")
    words = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(root), _mirror()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=MAKE_S)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for name in ("etc/resolv.conf", "etc/hosts", CERTIFICATES):
        shutil.copyfile(Path("/", name), root / name)
    (root / MADE).touch()


def copy(root: Path, to: Path) -> None:
    """A tree with all that only root can copy."""
    subprocess.run(["cp", "--archive", "--reflink=auto", f"{root}/.", str(to)], check=True)


def command(root: Path, words: Sequence[str], *, who: str = "0:0", env: Mapping[str, str]) -> dict[str, Any]:
    """What `subprocess` needs to run this in the root, as the first process of a pid namespace of its own."""
    given = [f"{name}={value}" for name, value in env.items()]
    enter = ["unshare", "--mount", "--pid", "--fork", "/bin/sh", "-c", ENTER, "enter", *given, *words]
    return {"args": enter, "env": {"PATH": PATH, "ROOT": str(root), "WHO": who}, "stdin": subprocess.DEVNULL}


def _mirror() -> str:
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    return next(_facts(lists, r"^(?:URIs:|deb(?: \[.*?\])?) *(\S+)"))


def _fact(path: Path, pattern: str) -> str:
    return next(_facts([path], pattern))


def _facts(paths: Sequence[Path], pattern: str) -> Iterator[str]:
    for path in paths:
        if path.is_file():
            yield from re.findall(pattern, path.read_text(), re.M)
