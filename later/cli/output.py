"""What a person sees: data on stdout, messages on stderr, colours and tables only on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

EXIT = {404: 3, 409: 4, 400: 2, 413: 2, 422: 2, 429: 69, 503: 69}
"""From HTTP statuses to exit statuses; all others are 1."""

UNAVAILABLE = 69


BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the order of what follows, so that a text shows as another one."""


class Refused(Exception):
    """Something was not done; shown as one sentence, or as problem+json where JSON was asked for."""

    def __init__(self, sentence: str, *, status: int = 1, problem: dict[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.problem = {"type": "about:blank", "title": "Failed", **(problem or {}), "detail": sentence}

    def show(self, *, as_json: bool) -> None:
        click.echo(json.dumps(self.problem) if as_json else f"later: {printable(str(self))}", err=True)


def unavailable(sentence: str, kind: type[Refused] = Refused) -> Refused:
    """Nobody answers, and what to do about it."""
    return kind(sentence, status=UNAVAILABLE, problem={"title": "Unavailable", "status": 503})


def show_json(value: Any) -> None:
    """One JSON value, flushed."""
    click.echo(json.dumps(value, ensure_ascii=sys.stdout.encoding.lower() != "utf-8"))


def instant(text: str) -> datetime:
    """A moment of the API on the reader's own clock."""
    return datetime.fromisoformat(text).astimezone()


def moment(text: str) -> str:
    """A moment of the API for people: `Wed 25 Nov, 10:14`; with seconds where it is near, with the year where not."""
    local = instant(text)
    now = datetime.now(local.tzinfo)
    soon = abs((local - now).total_seconds()) < 3600
    form = f"%a {local.day} %b" + ("" if local.year == now.year else " %Y") + (", %H:%M:%S" if soon else ", %H:%M")
    return local.strftime(form)


def is_a_surprise(task: dict[str, Any]) -> bool:
    """Whether the task's moment was drawn, and nothing has moved it since."""
    return bool(task["window"]) and task["due"] == task["nominal"]


def coming(task: dict[str, Any], *, reveal: bool) -> str:
    """When a live task comes; a random moment stays a surprise."""
    if task["status"] == "running":
        return "now"
    if task["status"] == "created" or task["due"] is None:
        return "not scheduled"
    if instant(task["due"]) <= datetime.now(UTC):
        return "now"
    if is_a_surprise(task) and not reveal:
        begin, end = task["window"]["from"], task["window"]["until"]
        if instant(begin) > datetime.now(UTC):
            return f"some time between {moment(begin)} and {moment(end)}"
        return f"some time before {moment(end)}"
    return moment(task["due"])


def how(task: dict[str, Any]) -> str:
    """By what, and to whom."""
    if task["action"] == "inbox":
        return "in your inbox"
    way = "on your desktop" if task["action"] == "desktop" else f"by {task['action']}"
    return printable(way + (f" to {task['to']}" if task["to"] else ""))


def printable(text: str) -> str:
    """The text as it is, but for what would steer a terminal."""
    return text if text.isprintable() else "".join(sign if _is_harmless(sign) else repr(sign)[1:-1] for sign in text)


def one_line(text: str, width: int = 60) -> str:
    """The text in one line; on a terminal of at most this width."""
    flat = printable(text.replace("\n", " ⏎ ")).replace("\t", " ")
    return flat if len(flat) <= width or not sys.stdout.isatty() else f"{flat[: width - 1]}…"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, whole: bool = False) -> None:
    """A table on a terminal, tab-separated lines without a heading in a pipe.

    The last column has what is left of the terminal's width, unless it is to be shown whole.
    """
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    if not rows:
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="" if os.environ.get("NO_COLOR") else "bold"
    )
    for column in columns[:-1]:
        drawn.add_column(column, no_wrap=True)
    drawn.add_column(columns[-1], no_wrap=not whole, overflow="fold" if whole else "ellipsis")
    for row in rows:
        drawn.add_row(*map(Text, row))
    Console(highlight=False).print(drawn)


def _is_harmless(sign: str) -> bool:
    if sign.isprintable() or sign in "\n\t":
        return True
    from unicodedata import category

    # Joiners within emoji and spaces that do not break are not "printable", but belong to a text.
    return category(sign) in ("Cf", "Zs") and sign not in BIDIRECTIONAL
