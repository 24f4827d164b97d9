"""Commands over live tasks."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from later.cli import attention, http, output, places

Command = TypeVar("Command", bound=Callable[..., Any])

STATUSES = ("created", "pending", "running", "failed", "completed", "cancelled")
LIVE = ("created", "pending", "running", "failed")

DEFAULT_WITHIN, DEFAULT_AFTER = "14d", "24h"


def as_json(command: Command) -> Command:
    """The option that every command has."""
    return click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")(command)


def time_options(command: Command) -> Command:
    """The ways to say when."""
    command = click.option("--at", metavar="TIME", help="At this time: 2026-11-25 10:14, or RFC 3339.")(command)
    command = click.option("--in", "in_", metavar="D", help="In so long: 45s, 90m, 3d, 1h30m, 2w.")(command)
    command = click.option("--after", metavar="D", help="… but not before so long; goes with --within.")(command)
    return click.option("--within", metavar="D", help="At a random time in the next so long.")(command)


@click.command()
@click.argument("text", nargs=-1, required=True)
@time_options
@click.option("--hold", is_flag=True, help="Without a time: `later schedule` gives it one.")
@click.option("--id", "task_id", metavar="ID", help="Your own name for it; adding it again changes nothing.")
@click.option("--action", metavar="NAME", help="What is done: inbox, email, desktop, console or a plug-in.")
@click.option("--to", metavar="ADDRESS", help="To whom.")
@click.option("--reveal", is_flag=True, help="Show the moment that was drawn.")
@as_json
def add(
    text: tuple[str, ...],
    within: str | None,
    in_: str | None,
    at: str | None,
    after: str | None,
    hold: bool,
    task_id: str | None,
    action: str | None,
    to: str | None,
    reveal: bool,
    as_json: bool,
) -> None:
    """Keep TEXT and bring it back at its moment: by default at a random time between one day and two weeks from now."""
    body: dict[str, Any] = {"message": " ".join(text), "id": task_id or draw_id(), "zone": places.zone()}
    body |= {"action": action, "to": to, "hold": hold or None}
    body |= {"within": within, "in": in_, "at": at, "after": after}
    if not (within or in_ or at or after or hold):
        body["within"] = places.variable("LATER_WITHIN") or DEFAULT_WITHIN
        body["after"] = places.variable("LATER_AFTER") or DEFAULT_AFTER
    body = {name: value for name, value in body.items() if value is not None}

    task, kept_in = _add(body)
    if as_json:
        output.show_json(task)
        return
    done = {"kept": "kept already", "replaced": "added again"}.get(task["disposition"], "added")
    when = "waits until you schedule it" if task["due"] is None else f"comes {output.coming(task, reveal=reveal)}"
    click.echo(
        f'{done} {task["id"]}: "{output.one_line(task["message"])}" {when}, {output.how(task)}; kept in {kept_in}'
    )


@click.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only these; completed and cancelled are past ones.")
@click.option("--reveal", is_flag=True, help="Show the moments that were drawn.")
@as_json
def list_(status: str | None, reveal: bool, as_json: bool) -> None:
    """Show what is still to come; failed ones with their causes."""
    daemon = http.daemon()
    past = status in ("completed", "cancelled")
    tasks = list(_pages(daemon, "/v1/history" if past else "/v1/tasks", [status] if status else list(LIVE)))
    if as_json:
        output.show_json({"tasks": tasks, "next": None})
    elif status == "failed":
        rows = [[task["id"], _cause(task), output.one_line(task["message"])] for task in tasks]
        output.table(["id", "why", "text"], rows)
    else:
        when = _when_past if past else lambda task: output.coming(task, reveal=reveal)
        rows = [[t["id"], t["status"], when(t), output.how(t), output.one_line(t["message"])] for t in tasks]
        output.table(["id", "status", "when", "how", "text"], rows)
    attention.call(daemon)


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--reveal", is_flag=True, help="Show the moment that was drawn.")
@as_json
def get(task_id: str, reveal: bool, as_json: bool) -> None:
    """Show one task, live or past, with what came of it."""
    daemon = http.daemon()
    task = daemon.ask("GET", f"/v1/tasks/{http.segment(task_id)}").body
    if as_json:
        output.show_json(task)
    else:
        for name, value in _details(task, reveal=reveal):
            click.echo(f"{name:<9} {value}")
    attention.call(daemon)


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--message", metavar="TEXT", help="Another text.")
@click.option("--to", metavar="ADDRESS", help='Another address; "" for the default one.')
@click.option("--action", metavar="NAME", help="Another action.")
@as_json
def update(task_id: str, message: str | None, to: str | None, action: str | None, as_json: bool) -> None:
    """Change what is to be done; the time stays."""
    changes = {"message": message, "to": to, "action": action}
    body = {name: value for name, value in changes.items() if value is not None}
    if not body:
        raise click.UsageError("say what to change: --message, --to or --action")
    _change("PATCH", task_id, "", body, "changed", as_json=as_json)


@click.command()
@click.argument("task_id", metavar="ID")
@time_options
@as_json
def schedule(
    task_id: str, within: str | None, in_: str | None, at: str | None, after: str | None, as_json: bool
) -> None:
    """Give a task another time."""
    said = {"within": within, "in": in_, "at": at, "after": after, "zone": places.zone()}
    body = {name: value for name, value in said.items() if value is not None}
    _change("POST", task_id, "/schedule", body, "scheduled", as_json=as_json)


@click.command()
@click.argument("task_id", metavar="ID")
@click.argument("duration", metavar="D")
@as_json
def snooze(task_id: str, duration: str, as_json: bool) -> None:
    """Let it come D later from now; one that has come already comes again."""
    _change("POST", task_id, "/snooze", {"in": duration}, "snoozed", as_json=as_json)


@click.command()
@click.argument("task_id", metavar="ID")
@as_json
def execute(task_id: str, as_json: bool) -> None:
    """Let it come now; one that has come already comes again."""
    _change("POST", task_id, "/execute", None, "executing", as_json=as_json)


@click.command()
@click.argument("task_id", metavar="ID")
@as_json
def delete(task_id: str, as_json: bool) -> None:
    """Cancel a task."""
    daemon = http.daemon()
    answer = daemon.ask("DELETE", f"/v1/tasks/{http.segment(task_id)}")
    running = answer.status == 202
    if as_json:
        output.show_json({"id": task_id, "deleted": not running, "running": running})
    elif running:
        click.echo(f"{task_id} is being performed right now; it is not performed again")
    else:
        click.echo(f"deleted {task_id}")
    attention.call(daemon)


@click.command()
@click.argument("task_id", metavar="ID", required=False)
@click.option("--all", "all_", is_flag=True, help="All that have failed.")
@as_json
def retry(task_id: str | None, all_: bool, as_json: bool) -> None:
    """Try a failed task again, with all its attempts."""
    if all_ == (task_id is not None):
        raise click.UsageError("say which one by its ID, or --all")
    if task_id is not None:
        _change("POST", task_id, "/retry", None, "retrying", as_json=as_json)
        return
    daemon = http.daemon()
    count = daemon.ask("POST", "/v1/tasks:retry").body["retried"]
    if as_json:
        output.show_json({"retried": count})
    else:
        click.echo(f"retrying {count} failed task{'' if count == 1 else 's'}")
    attention.call(daemon)


def draw_id() -> str:
    """10 characters of base32, drawn here so that a repeated call after a lost reply is the same thought."""
    return base64.b32encode(secrets.token_bytes(7)).decode().lower()[:10]


def _add(body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The kept task and where it is kept: by a daemon, by one started for it, or straight into somebody's Redis."""
    from later.cli import autostart

    daemon = http.find()
    if daemon is None and places.variable("LATER_REDIS_URL") and not places.variable("LATER_URL"):
        from later.cli import engine

        return http.understood(*engine.ask("POST", "/v1/tasks", body)).body, engine.WAITING
    if daemon is None:
        daemon = autostart.start() if autostart.wanted() else http.daemon()
    task = daemon.ask("POST", "/v1/tasks", body).body
    stats = daemon.ask("GET", "/v1/stats").body
    attention.tell(stats)
    return task, stats["kept_in"]


def _change(method: str, task_id: str, verb: str, body: dict[str, Any] | None, done: str, *, as_json: bool) -> None:
    daemon = http.daemon()
    task = daemon.ask(method, f"/v1/tasks/{http.segment(task_id)}{verb}", body).body
    if as_json:
        output.show_json(task)
    else:
        click.echo(f'{done} {task["id"]}: "{output.one_line(task["message"])}" {_fate(task)}, {output.how(task)}')
    attention.call(daemon)


def _pages(daemon: http.Daemon, path: str, statuses: list[str]) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        query: dict[str, Any] = {"status": statuses, "limit": 500}
        page = daemon.ask("GET", path, query=query | ({"cursor": cursor} if cursor else {})).body
        yield from page["tasks"]
        cursor = page["next"]
        if cursor is None:
            return


def _details(task: dict[str, Any], *, reveal: bool) -> Iterator[tuple[str, str]]:
    yield "id", task["id"]
    yield "status", task["status"]
    yield "text", task["message"]
    yield "how", output.how(task)
    yield "when", _when_past(task) if task["finished_at"] else output.coming(task, reveal=reveal)
    if task["rule"]:
        yield "rule", task["rule"]
    yield "added", output.moment(task["created_at"])
    if task["attempts"]:
        yield "attempts", str(task["attempts"])
    if task["receipt"]:
        yield "receipt", task["receipt"]["detail"]
    for failure in task["failures"]:
        yield "failure", f"{output.moment(failure['at'])}: {failure['reason']}"


def _fate(task: dict[str, Any]) -> str:
    return f"is {task['status']}" if task["finished_at"] else f"comes {output.coming(task, reveal=False)}"


def _when_past(task: dict[str, Any]) -> str:
    return output.moment(task["finished_at"])


def _cause(task: dict[str, Any]) -> str:
    return output.one_line(task["failures"][-1]["reason"] if task["failures"] else "unknown", 80)
