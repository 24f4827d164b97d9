"""Keeps a new thought: the one command that must be quick, and that may start a daemon."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import click

from later.cli import attention, http, options, output, places
from later.cli.output import Refused

DEFAULT_WITHIN, DEFAULT_AFTER = "14d", "24h"

Kept: TypeAlias = tuple[dict[str, Any], http.Daemon | None]
"""The task as it is kept now, and the daemon that said so, if there is one."""

BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


@click.command(epilog=options.DURATION)
@click.argument("text", nargs=-1, required=True)
@options.time
@click.option("--hold", is_flag=True, help="Without a time: `later schedule` gives it one.")
@click.option("--id", "task_id", metavar="ID", help="Your own name for it; adding it again changes nothing.")
@click.option("--action", metavar="NAME", help="What is done: inbox, email, desktop, console or a plug-in.")
@click.option("--to", metavar="ADDRESS", help="To whom.")
@options.reveal
@options.as_json
def add(
    text: tuple[str, ...],
    hold: bool,
    task_id: str | None,
    action: str | None,
    to: str | None,
    reveal: bool,
    as_json: bool,
    **time: str | None,
) -> None:
    """Keep TEXT and bring it back at its moment.

    Without a time: at a random one, between one day and two weeks from now.
    """
    given = {"message": " ".join(text), "id": task_id, "action": action, "to": to, "hold": hold or None}
    body: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    timed = hold or any(value is not None for value in time.values())
    task, daemon = _kept(body | options.said(**time)) if timed else _kept_at_random(body)
    if as_json:
        output.show_json(task)
    else:
        done = {"kept": "kept already", "replaced": "added again"}.get(task["disposition"], "added")
        what = f'{task["id"]}: "{output.one_line(task["message"])}"'
        click.echo(f"{done} {what} {_when(task, reveal=reveal)}, {output.how(task)}; kept in {task['kept_in']}")
    if daemon is not None:
        attention.call(daemon)


def draw_id() -> str:
    """10 characters of base32, drawn here so that a repeated call after a lost reply is the same thought."""
    return "".join(BASE32[byte % 32] for byte in os.urandom(10))


def _kept_at_random(body: dict[str, Any]) -> Kept:
    within = places.variable("LATER_WITHIN") or DEFAULT_WITHIN
    after = places.variable("LATER_AFTER") or DEFAULT_AFTER
    try:
        return _kept(body | options.said(within=within, after=after, in_=None, at=None))
    except Refused as refusal:
        if refusal.status != 2 or (within, after) == (DEFAULT_WITHIN, DEFAULT_AFTER):
            raise
        sentence = f"LATER_WITHIN={within} and LATER_AFTER={after} give no moment: {refusal}"
        raise Refused(sentence, status=2, problem=refusal.problem) from None


def _kept(body: dict[str, Any]) -> Kept:
    """Keep it: by a daemon, by one started for it, or straight in somebody's Redis."""
    drawn = {"id": draw_id(), **body}
    try:
        return _asked(drawn)
    except http.Unanswered as doubt:
        if "id" in body:
            raise
        # Nobody knows whether it was kept; only with the same id is a second try the same thought.
        sentence = f"{doubt}; so that it is not there twice, say --id {drawn['id']}"
        raise http.Unanswered(sentence, status=doubt.status, problem=doubt.problem) from None


def _asked(body: dict[str, Any]) -> Kept:
    daemon = http.find()
    if daemon is None and places.may_ask_the_store():
        from later.cli import engine

        return engine.add(body), None
    if daemon is None:
        from later.cli import autostart

        daemon = autostart.start() if places.may_start_one() else http.daemon()
    try:
        return daemon.ask("POST", "/v1/tasks", body).body, daemon
    except http.Unanswered as lost:
        daemon = http.find() if isinstance(lost.__cause__, ConnectionError) else None
        if daemon is None:
            raise
        return daemon.ask("POST", "/v1/tasks", body).body, daemon


def _when(task: dict[str, Any], *, reveal: bool) -> str:
    if task["status"] == "created":
        return "waits until you schedule it"
    return f"comes {output.coming(task, reveal=reveal)}"
