"""Options that several commands take, and what they mean for a request."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from later.cli import places

Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")
reveal = click.option("--reveal", is_flag=True, help="Show the moment that was drawn.")
DURATION = "D is a duration such as 45s, 90m, 3d, 1h30m or 2w."

task_id = click.argument("task_id", metavar="ID")


def time(command: Command) -> Command:
    """The ways to say when."""
    command = click.option("--at", metavar="TIME", help="At this time: 2026-11-25 10:14, or RFC 3339.")(command)
    command = click.option("--in", "in_", metavar="D", help="So long from now.")(command)
    command = click.option("--after", metavar="D", help="… but not before so long has passed.")(command)
    return click.option("--within", metavar="D", help="At a random time, at most so long from now …")(command)


def said(*, within: str | None, in_: str | None, at: str | None, after: str | None) -> dict[str, str]:
    """What was said about the moment, as the API wants it, with the zone in which it was said."""
    zone = places.zone()
    if at is not None and zone is None:
        at = _with_offset(at)
    given = {"within": within, "in": in_, "at": at, "after": after, "zone": zone}
    return {name: value for name, value in given.items() if value is not None}


def _with_offset(at: str) -> str:
    """A time on this machine's clock, where its zone has no name that a daemon elsewhere would know."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?", at.strip()):
        return at
    from datetime import datetime

    try:
        return datetime.fromisoformat(at.strip()).astimezone().isoformat()
    except (ValueError, OverflowError):
        return at  # the daemon says what is wrong with it
