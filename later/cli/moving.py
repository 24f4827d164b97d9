"""Commands for moving house: all tasks into a file, and out of it again."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import click

from later import __version__
from later.cli import http, options, output, places
from later.cli.output import Refused

FORMAT = 1
PARTS = ("live", "past")

PACE_BYTES = 128 * 1024
"""What goes at a time: so little that what is due meanwhile is not late."""

PACE_LINES = 500
LINE_BYTES = 4 * 1024 * 1024
PATIENCE_S = 30.0
PAUSE_S = 0.2
WARNINGS_SHOWN = 10


@click.command()
@click.argument("file", required=False)
@click.option("--all", "every", is_flag=True, help="Those of all owners; only the daemon's own user may.")
@options.as_json
def export(file: str | None, every: bool, as_json: bool) -> int:
    """Write your tasks, live and past, to FILE or to standard output.

    `later import` keeps them again: here, on another machine, or in another number of partitions.
    """
    counts = dict.fromkeys((*PARTS, "left_out"), 0)
    with _written_whole(file) as out, _door() as door:
        exported_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        head = {"later": "export", "format": FORMAT, "version": __version__, "exported_at": exported_at, "all": every}
        out.write(_line(head))
        for part in PARTS:
            _write(door, part, every, out, counts)
        out.write(_line({"later": "end", **counts}))
    text = f"exported {counts['live']:,} live and {counts['past']:,} past tasks" + (f" to {file}" if file else "")
    # Without a file, standard output is where the tasks went.
    click.echo(json.dumps({"file": file, **counts}) if as_json else text, err=file is None)
    return 1 if counts["left_out"] else 0


@click.command("import")
@click.argument("file")
@options.as_json
def import_(file: str, as_json: bool) -> int:
    """Keep the tasks of FILE as they were when `later export` wrote it.

    What is here already stays as it is, so that it may be run again, and goes on where it was broken off.
    """
    with open(file, "rb") as source, _door() as door:
        _check_head(file, source)
        coming = _Import(door)
        with _bar(f"importing {file}", 2 * os.fstat(source.fileno()).st_size) as bar:
            # What is over has to be known before it could come back to life.
            for part in PARTS[::-1]:
                coming.take(part, _lines(source), bar)
    whole = coming.tell(file)
    results = {name: coming.results[name] for name in ("added", "kept", "finished", "refused")}
    if as_json:
        output.show_json({"file": file, **results, "whole": whole})
    else:
        words = {"kept": "here already", "finished": "over since", "refused": "refused"}
        rest = "".join(f", {results[name]:,} {said}" for name, said in words.items() if results[name])
        click.echo(f"imported {results['added']:,} tasks from {file}{rest}")
    return 0 if whole and not results["refused"] else 1


class _Door:
    """Asks again for a while where no answer comes: whatever is asked here may be repeated."""

    def __init__(self, daemon: http.Daemon) -> None:
        self._daemon = daemon

    def ask(self, method: str, path: str, body: bytes | None = None, query: dict[str, Any] | None = None) -> Any:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._daemon.ask(method, path, body, query).body
            except http.Unanswered:
                if time.monotonic() > until:
                    raise
                time.sleep(PAUSE_S)
                self._daemon = http.find() or self._daemon


@contextlib.contextmanager
def _door() -> Iterator[_Door]:
    daemon = http.find()
    if daemon is None and places.may_ask_the_store():
        from later.cli import engine

        with engine.without_a_daemon(past=True) as inside:
            yield _Door(inside)
    else:
        yield _Door(daemon or http.daemon())


def _write(door: _Door, part: str, every: bool, out: BinaryIO, counts: dict[str, int]) -> None:
    """All lines of this part; how many keys make a page follows from how large the last one was."""
    query: dict[str, Any] = {"part": part, "limit": 20, **({"all": 1} if every else {})}
    page = door.ask("GET", "/v1/export", query=query)
    with _bar(f"exporting {part} tasks", page["total"]) as bar:
        while True:
            lines = [_line(line) for line in page["lines"]]
            out.writelines(lines)
            bar.update(len(lines))
            counts[part] += len(lines)
            counts["left_out"] += len(page["unreadable"])
            for name in page["unreadable"]:
                _say(f"{name} cannot be read, so it is left out; `later doctor` says more")
            if page["next"] is None:
                return
            fitting = query["limit"] * PACE_BYTES // max(1, sum(map(len, lines)))
            query |= {"cursor": page["next"], "limit": max(1, min(fitting, 2 * query["limit"], PACE_LINES))}
            page = door.ask("GET", "/v1/export", query=query)


@contextlib.contextmanager
def _written_whole(file: str | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that is there when all of it is, and that nobody else may read."""
    if file is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    _refuse_taken(file)
    draft = f"{file}.{os.getpid()}.part"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as out:
            yield out
            out.flush()
            os.fsync(descriptor)
        _refuse_taken(file)
        os.rename(draft, file)
        _sync(os.path.dirname(os.path.abspath(file)))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


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


class _Line(NamedTuple):
    number: int
    text: bytes
    said: dict[str, Any] | None  # None: it is no JSON object


class _Import:
    """A file's lines on their way in, and what became of them."""

    def __init__(self, door: _Door) -> None:
        self.results: Counter[str] = Counter()
        self._door = door
        self._warnings: Counter[str] = Counter()
        self._seen = 0
        self._end: dict[str, Any] | None = None

    def take(self, part: str, lines: Iterable[_Line], bar: Any) -> None:
        """Send the lines of this part; at the past ones, look at all others too."""
        for batch in _batches(self._of(part, lines, bar)):
            answer = self._door.ask("POST", "/v1/import", b"".join(line.text.rstrip(b"\n") + b"\n" for line in batch))
            for line, result in zip(batch, answer["results"], strict=True):
                self._note(line, result)

    def tell(self, file: str) -> bool:
        """Say what somebody should know beyond single lines; whether the file was whole."""
        for warning, count in self._warnings.most_common(WARNINGS_SHOWN):
            _say(f"kept, but it could not be performed here as things stand ({count:,} of this kind): {warning}")
        if self._end is None:
            _say(f"{file} was cut off: its last line is missing, and who knows how many before it")
            return False
        promised: int = sum(count for part in PARTS if isinstance(count := self._end.get(part), int))
        if self._seen < promised:
            _say(f"{file} has {self._seen:,} tasks, but had {promised:,} when it was written")
        return self._seen >= promised

    def _of(self, part: str, lines: Iterable[_Line], bar: Any) -> Iterator[_Line]:
        for line in lines:
            if part == "past":
                self._look_at(line)
            if _is_of(line, part):
                yield line
            bar.update(len(line.text))

    def _look_at(self, line: _Line) -> None:
        if line.said is None:
            self._refuse(line, "it is no JSON object, or longer than any task")
        if line.said is not None and line.said.get("later") == "end":
            self._end = line.said
        else:
            self._seen += 1

    def _note(self, line: _Line, result: dict[str, str]) -> None:
        if result["result"] == "refused":
            self._refuse(line, result["reason"])
            return
        self.results[result["result"]] += 1
        if "warning" in result:
            self._warnings[result["warning"]] += 1

    def _refuse(self, line: _Line, reason: str) -> None:
        self.results["refused"] += 1
        _say(f"line {line.number} is left out: {reason}")


def _lines(source: BinaryIO) -> Iterator[_Line]:
    """The lines behind the first one; of one that is longer than any task only the beginning."""
    source.seek(0)
    number = 0
    while text := source.readline(LINE_BYTES):
        number += 1
        rest = text
        while len(rest) == LINE_BYTES and not rest.endswith(b"\n"):
            rest = source.readline(LINE_BYTES)
        if number > 1:
            yield _Line(number, text, _object(text) if rest is text else None)


def _batches(lines: Iterable[_Line]) -> Iterator[list[_Line]]:
    batch: list[_Line] = []
    size = 0
    for line in lines:
        if batch and (size + len(line.text) > PACE_BYTES or len(batch) == PACE_LINES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.text)
    if batch:
        yield batch


def _is_of(line: _Line, part: str) -> bool:
    """Whether it goes with the lines of this part; what is of neither goes with the live ones, and is refused."""
    if line.said is None or line.said.get("later") == "end":
        return False
    return (line.said.get("kind") == "past") == (part == "past")


def _check_head(file: str, source: BinaryIO) -> None:
    head = _object(source.readline(LINE_BYTES)) or {}
    if not source.seekable() or head.get("later") != "export":
        raise Refused(f"{file} is not a file that `later export` wrote: its first line should say so", status=2)
    if head.get("format") != FORMAT:
        written = f"{file} was written by Later {head.get('version')}, in format {head.get('format')}"
        raise Refused(f"{written}; this one, {__version__}, reads format {FORMAT}", status=2)


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _line(said: dict[str, Any]) -> bytes:
    """One line; half a surrogate pair, which is no UTF-8, stays escaped."""
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace") + b"\n"


def _bar(label: str, length: int) -> Any:
    """A progress bar for somebody who watches."""
    watched = sys.stderr.isatty()
    return click.progressbar(
        length=length, label=label, file=sys.stderr, hidden=not watched, update_min_steps=max(1, length // 500)
    )


def _say(sentence: str) -> None:
    """One sentence, in the place of the bar."""
    begin = "\r\x1b[K" if sys.stderr.isatty() else ""
    click.echo(f"{begin}later: {output.printable(sentence)}", err=True)
