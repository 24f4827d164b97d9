"""The file that `later export` writes and `later import` reads: a first line, one for each task, a last one."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from later import __version__
from later.cli.output import Refused

FORMAT = 1

PACE_BYTES = 128 * 1024
"""What goes at a time: so little that what is due meanwhile is not late."""

PACE_LINES = 500
LINE_BYTES = 4 * 1024 * 1024
"""More than any task takes."""


class Line(NamedTuple):
    """A line as it is, and what it says (None: it is no JSON object)."""

    number: int
    text: bytes
    said: dict[str, Any] | None

    @property
    def ends(self) -> bool:
        """Whether it is the last one."""
        return self.said is not None and self.said.get("later") == "end"


@contextlib.contextmanager
def written_whole(file: str | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that is there once all of it is, and that nobody else may read."""
    if file is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    _refuse_taken(file)
    draft = f"{file}.{os.getpid()}.part"
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        _refuse_taken(file)
        os.rename(draft, file)
        _sync(os.path.dirname(os.path.abspath(file)))
    except OSError as error:
        raise Refused(f"{file} cannot be written: {_why(error)}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def first(*, every: bool) -> bytes:
    """What is said before all tasks."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return line({"later": "export", "format": FORMAT, "version": __version__, "exported_at": at, "all": every})


def last(counts: dict[str, int]) -> bytes:
    """What is said after them, so that a file that was cut off is noticed."""
    return line({"later": "end", **counts})


def line(said: dict[str, Any]) -> bytes:
    """One line; half a surrogate pair, which is no UTF-8, stays escaped."""
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace") + b"\n"


@contextlib.contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """The file, to be read from its beginning more than once. Raises Refused."""
    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(open(file, "rb"))
        except OSError as error:
            raise Refused(f"{file} cannot be read: {_why(error)}", status=2) from None
        if not source.seekable():
            raise Refused(f"{file} is read twice, so it has to be a file and no pipe", status=2)
        check(file, source)
        yield source


def check(file: str, source: BinaryIO) -> None:
    """Refuse what is no export, or one of another format."""
    said = _object(source.readline(LINE_BYTES)) or {}
    if said.get("later") != "export":
        raise Refused(f"{file} is not a file that `later export` wrote: its first line should say so", status=2)
    if said.get("format") != FORMAT:
        written = f"{file} was written by Later {said.get('version')} in format {said.get('format')}"
        raise Refused(f"{written}; this one, {__version__}, reads format {FORMAT}", status=2)


def read(source: BinaryIO) -> Iterator[Line]:
    """The lines behind the first one; of one that is longer than any task the beginning."""
    source.seek(0)
    number = 0
    while text := source.readline(LINE_BYTES):
        number += 1
        rest = text
        while len(rest) == LINE_BYTES and not rest.endswith(b"\n"):
            rest = source.readline(LINE_BYTES)
        if number > 1:
            yield Line(number, text, _object(text) if rest is text else None)


def batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """The lines, as many at a time as go in one request."""
    batch: list[Line] = []
    size = 0
    for one in lines:
        if batch and (size + len(one.text) > PACE_BYTES or len(batch) == PACE_LINES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += len(one.text)
    if batch:
        yield batch


def _refuse_taken(file: str) -> None:
    if os.path.lexists(file):
        raise Refused(f"{file} is there already, and stays; name another file", status=4)


def _sync(directory: str) -> None:
    """Let the new name itself be on disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None
