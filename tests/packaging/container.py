"""A small reader of our Dockerfile: it carries out each step in a fresh root, and runs what comes out of it.

It knows the instructions that we use and refuses all others. Without an engine the base image cannot be had, so a
Debian with its own Python stands in for it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from tests.packaging import debian

STEP_S = 600
SOON_S = 60.0


@dataclass
class Image:
    """A root and how it is to be run."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": debian.PATH})
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=lambda: {"USER": "0:0", "WORKDIR": "/"})
    """Instructions of one word each."""


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """Each instruction and its words, lines that continue joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if line.strip() and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, words = line.strip().partition(" ")
        yield name.upper(), words.strip()


def build(dockerfile: Path, base: Path, home: Path) -> Image:
    """Carry out every step; each stage begins with a copy of the base."""
    stages: dict[str, Image] = {}
    for name, words in instructions(dockerfile):
        if name == "FROM":
            image = Image(home / f"stage{len(stages)}")
            stages[words.partition(" AS ")[2] or "last"] = image
            debian.copy(base, image.root)
        else:
            _step(image, stages, dockerfile.parent, name, words)
    return stages["last"]


def _step(image: Image, stages: dict[str, Image], context: Path, name: str, words: str) -> None:
    match name:
        case "RUN":
            _run(image, words)
        case "COPY":
            _copy(image, stages, context, words.split())
        case "ENV":
            pairs = [word.partition("=") for word in shlex.split(words)]
            image.env |= {key: Template(value).substitute(image.env) for key, _, value in pairs}
        case "WORKDIR" | "USER" | "VOLUME" | "EXPOSE" | "STOPSIGNAL":
            image.said[name] = words
        case "HEALTHCHECK":
            image.health = json.loads(words[words.index("[") :])
        case "CMD":
            image.command = json.loads(words)
        case _:
            raise AssertionError(f"teach this reader {name}, or leave it out of the Dockerfile")


def _run(image: Image, script: str) -> None:
    place = shlex.quote(image.said["WORKDIR"])
    words = ["/bin/sh", "-c", f"mkdir -p {place} && cd {place} && {script}"]
    step = debian.command(image.root, words, who=image.said["USER"], env=image.env)
    done = subprocess.run(**step, capture_output=True, text=True, timeout=STEP_S)
    assert done.returncode == 0, f"RUN {script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def _copy(image: Image, stages: dict[str, Image], context: Path, words: list[str]) -> None:
    source = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    *names, target = words
    for name in names:
        found, into = source / name.lstrip("/"), image.root / image.said["WORKDIR"].lstrip("/") / target.lstrip("/")
        if found.is_dir():
            shutil.copytree(found, into, symlinks=True, ignore=_ignored if source == context else None)
        else:
            shutil.copy2(found, into / found.name if target.endswith("/") else into)


_ignored = shutil.ignore_patterns("__pycache__")


class Container:
    """One run of an image, on this machine's network. `env` is what `docker run -e` would give."""

    def __init__(self, image: Image, **env: str) -> None:
        self.image = image
        self.env = image.env | env
        self._log = image.root.with_name("log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = debian.command(self.image.root, self.image.command, who=self.image.said["USER"], env=self.env)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(**words, stdout=log, stderr=log)

    def wait_until_healthy(self) -> None:
        """Ask as the engine would, until it is well."""
        deadline = time.monotonic() + SOON_S
        while self.execute(*self.image.health).returncode != 0:
            assert self._process is not None
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()

    def execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        """As `docker exec` does."""
        inside = debian.command(self.image.root, words, who=self.image.said["USER"], env=self.env)
        return subprocess.run(**inside, capture_output=True, text=True, timeout=SOON_S)

    def stop(self) -> int:
        """As `docker stop` does; returns the exit status."""
        self._send(signal.Signals[self.image.said["STOPSIGNAL"]])
        return self.ending()

    def ending(self) -> int:
        """The exit status of one that ends by itself."""
        assert self._process is not None
        return self._process.wait(SOON_S)

    def close(self) -> None:
        """End it, if it is still there; all its processes end with the first."""
        if self._process is not None and self._process.poll() is None:
            self._send(signal.SIGKILL)
            self._process.wait(SOON_S)

    def _send(self, number: signal.Signals) -> None:
        """To the first process inside; `unshare` waits for it."""
        assert self._process is not None
        pid = self._process.pid
        for inside in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(inside), number)

    def log(self) -> str:
        return self._log.read_text()
