"""Commands for moving house: all tasks into a file, and out of it again."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

import click

from later.cli import backup, http, options, output
from later.cli.backup import PACE_BYTES, PACE_LINES, Line

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
    counts = dict.fromkeys(("live", "past", "left_out"), 0)
    with backup.written_whole(file) as out:
        door = _Door()
        out.write(backup.first(every=every))
        # A task that ends meanwhile is among the live ones, or past by the time these are asked for.
        _write(door, "live", every, out, counts)
        _write(door, "past", every, out, counts)
        out.write(backup.last(counts))
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
    with backup.opened(file) as source:
        door = _Door()
        coming = _Import(door, source)
        with _bar(f"importing {file}", 2 * (os.fstat(source.fileno()).st_size - source.tell())) as bar:
            # What is over has to be known before it could come back to life.
            coming.take_past(bar)
            coming.take_live(bar)
    whole = coming.tell(file)
    results = {name: coming.results[name] for name in ("added", "kept", "finished", "refused")}
    if as_json:
        output.show_json({"file": file, **results, "whole": whole})
    else:
        words = {"kept": "here already", "finished": "over since", "refused": "refused"}
        rest = "".join(f", {results[name]:,} {said}" for name, said in words.items() if results[name])
        click.echo(f"imported {_tasks(results['added'])} from {file}{rest}")
    return 0 if whole and not results["refused"] else 1


class _Door:
    """Asks again for a while where no answer comes: whatever is asked here may be repeated."""

    def __init__(self) -> None:
        # There has to be one: what is past is kept by the daemon that archived it.
        self._daemon = http.daemon()

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


def _write(door: _Door, part: str, every: bool, out: BinaryIO, counts: dict[str, int]) -> None:
    """All lines of this part; how much is asked for at a time follows from how large the last page was."""
    query: dict[str, Any] = {"part": part, "limit": 20, **({"all": 1} if every else {})}
    page = door.ask("GET", "/v1/export", query=query)
    with _bar(f"exporting {part} tasks", page["total"]) as bar:
        while True:
            lines = [backup.line(said) for said in page["lines"]]
            out.writelines(lines)
            bar.update(len(lines))
            counts[part] += len(lines)
            counts["left_out"] += len(page["unreadable"])
            for name in page["unreadable"]:
                _say(f"{name} cannot be read, so it is left out; `later fsck` says more")
            if page["next"] is None:
                return
            fitting = query["limit"] * PACE_BYTES // max(1, sum(map(len, lines)))
            query |= {"cursor": page["next"], "limit": max(1, min(fitting, 2 * query["limit"], PACE_LINES))}
            page = door.ask("GET", "/v1/export", query=query)


class _Import:
    """A file's lines on their way in, and what became of them."""

    def __init__(self, door: _Door, source: BinaryIO) -> None:
        self.results: Counter[str] = Counter()
        self._door = door
        self._source = source
        self._warnings: Counter[str] = Counter()
        self._tasks = 0
        self._end: dict[str, Any] | None = None

    def take_past(self, bar: Any) -> None:
        """Send the past ones, and look at all others on the way."""
        self._send(self._past(bar))

    def take_live(self, bar: Any) -> None:
        """Send the live ones, and what is neither: it is refused."""
        self._send(self._live(bar))

    def tell(self, file: str) -> bool:
        """Say what somebody should know beyond single lines; whether the file was whole."""
        for warning, count in self._warnings.most_common(WARNINGS_SHOWN):
            _say(f"{_tasks(count)} kept that could not be performed here as things stand: {warning}")
        if self._end is None:
            _say(f"{file} was cut off: its last line is missing, and who knows how many before it")
            return False
        told = [self._end.get(part) for part in ("live", "past")]
        promised = sum(count for count in told if isinstance(count, int))
        if self._tasks < promised:
            _say(f"{file} has {_tasks(self._tasks)}, but had {promised:,} when it was written")
        return self._tasks >= promised

    def _past(self, bar: Any) -> Iterator[Line]:
        for line in backup.read(self._source):
            if line.ends:
                self._end = line.said
            else:
                self._tasks += 1
            if line.said is None:
                self._refuse(line, "it is no JSON object, or longer than any task")
            elif line.said.get("kind") == "past":
                yield line
            bar.update(len(line.text))

    def _live(self, bar: Any) -> Iterator[Line]:
        for line in backup.read(self._source):
            if line.said is not None and line.said.get("kind") != "past" and not line.ends:
                yield line
            bar.update(len(line.text))

    def _send(self, lines: Iterator[Line]) -> None:
        for batch in backup.batches(lines):
            answer = self._door.ask("POST", "/v1/import", b"".join(line.text.rstrip(b"\n") + b"\n" for line in batch))
            for line, result in zip(batch, answer["results"], strict=True):
                if result["result"] == "refused":
                    self._refuse(line, result["reason"])
                    continue
                self.results[result["result"]] += 1
                if "warning" in result:
                    self._warnings[result["warning"]] += 1

    def _refuse(self, line: Line, reason: str) -> None:
        self.results["refused"] += 1
        _say(f"line {line.number} is left out: {reason}")


def _tasks(count: int) -> str:
    return f"{count:,} task{'' if count == 1 else 's'}"


@contextlib.contextmanager
def _bar(label: str, length: int) -> Iterator[Any]:
    """How far it is, for somebody who watches."""
    hidden, steps = not sys.stderr.isatty(), max(1, length // 500)
    with click.progressbar(length=length, label=label, file=sys.stderr, hidden=hidden, update_min_steps=steps) as bar:
        yield bar
        bar.finish()
        bar.render_progress()


def _say(sentence: str) -> None:
    """One sentence, in the place of the bar."""
    place = "\r\x1b[K" if sys.stderr.isatty() else ""
    click.echo(f"{place}later: {output.printable(sentence)}", err=True)
