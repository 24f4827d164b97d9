"""Says on a terminal, once a command, what waits for its reader: unread thoughts and failed tasks."""

from __future__ import annotations

import sys
from typing import Any

import click

from later.cli import http
from later.cli.output import Refused


def call(daemon: http.Daemon) -> None:
    """Ask the daemon and tell; in a pipe nothing is asked."""
    if not sys.stderr.isatty():
        return
    try:
        tell(daemon.ask("GET", "/v1/stats").body)
    except Refused:
        return  # the command itself has done its work


def tell(stats: dict[str, Any]) -> None:
    """Tell what these figures say, if somebody reads it."""
    if not sys.stderr.isatty():
        return
    unread, failed = stats["yours"]["unread"], stats["yours"]["failed"]
    if unread:
        click.echo(f"later: {unread} unread thought{'s' if unread > 1 else ''}: `later inbox`", err=True)
    if failed:
        tasks = "tasks have" if failed > 1 else "task has"
        click.echo(f"later: {failed} {tasks} failed: `later list --status failed` shows why", err=True)
