"""What a person sees: data on stdout, messages on stderr, colours and tables only on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

EXIT = {404: 3, 409: 4, 400: 2, 413: 2, 422: 2, 429: 69, 503: 69}
"""From HTTP statuses to exit statuses; all others are 1."""

UNAVAILABLE = 69


class Refused(Exception):
    """Something was not done; shown as one sentence, or as problem+json where JSON was asked for."""

    def __init__(self, sentence: str, *, status: int = 1, problem: dict[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.problem = problem or {"type": "about:blank", "title": "Failed", "detail": sentence}

    def show(self) -> None:
        as_json = "--json" in sys.argv
        click.echo(json.dumps(self.problem) if as_json else f"later: {self}", err=True)


def unavailable(sentence: str) -> Refused:
    """Nobody answers, and what to do about it."""
    problem = {"type": "about:blank", "title": "Unavailable", "status": 503, "detail": sentence}
    return Refused(sentence, status=UNAVAILABLE, problem=problem)


def show_json(value: Any) -> None:
    """One JSON value, flushed."""
    click.echo(json.dumps(value, ensure_ascii=False))


def moment(text: str | None) -> str:
    """A moment of the API on the reader's own clock: `Wed 25 Nov, 10:14`; seconds where it is near, else the year."""
    if text is None:
        return "not scheduled"
    local = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone()
    now = datetime.now(local.tzinfo)
    soon = abs((local - now).total_seconds()) < 3600
    form = f"%a {local.day} %b" + ("" if local.year == now.year else " %Y") + (", %H:%M:%S" if soon else ", %H:%M")
    return local.strftime(form)


def coming(task: dict[str, Any], *, reveal: bool) -> str:
    """When a live task comes; a random moment stays a surprise."""
    window = task["window"]
    if window and task["due"] == task["nominal"] and not reveal:
        return f"some time before {moment(window['until'])}"
    return moment(task["due"])


def how(task: dict[str, Any]) -> str:
    """By what, and to whom."""
    if task["action"] == "inbox":
        return "in your inbox"
    return f"by {task['action']}" + (f" to {task['to']}" if task["to"] else "")


def printable(text: str) -> str:
    """The text as it is, but for what would steer a terminal."""
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)


def one_line(text: str, width: int = 60) -> str:
    """The text in one line of at most this width."""
    flat = printable(text).replace("\n", " ⏎ ")
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal, tab-separated lines without a heading in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(no_color=bool(os.environ.get("NO_COLOR"))).print(drawn)
