"""Commands over live tasks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from later.cli import attention, http, options, output
from later.cli.output import Refused

STATUSES = ("created", "pending", "running", "failed", "completed", "cancelled")
LIVE = ("created", "pending", "running", "failed")

MANY = 100
PAGE = 200


@click.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only these; completed and cancelled are past ones.")
@options.reveal
@options.as_json
def list_(status: str | None, reveal: bool, as_json: bool) -> None:
    """Show what is still to come; failed ones with their causes."""
    daemon = http.daemon()
    past = status in ("completed", "cancelled")
    tasks = list(_pages(daemon, "/v1/history" if past else "/v1/tasks", [status] if status else list(LIVE)))
    if as_json:
        output.show_json({"tasks": tasks, "next": None})
    elif status == "failed":
        rows = [[task["id"], output.one_line(task["message"], 30), _cause(task)] for task in tasks]
        output.table(["id", "text", "why"], rows, whole=True)
    else:
        if not (past or reveal):
            tasks.sort(key=_as_far_as_shown)
        rows = [
            [t["id"], t["status"], _when(t, reveal=reveal), output.how(t), output.one_line(t["message"])] for t in tasks
        ]
        output.table(["id", "status", "when", "how", "text"], rows)
    if not tasks and not as_json:
        click.echo("nothing there" if status else "nothing is still to come", err=True)
    attention.call(daemon)


@click.command()
@options.task_id
@options.reveal
@options.as_json
def get(task_id: str, reveal: bool, as_json: bool) -> None:
    """Show one task, live or past, with what came of it."""
    path = f"/v1/tasks/{http.segment(task_id)}"
    daemon = http.daemon()
    task = daemon.ask("GET", path).body
    if as_json:
        output.show_json(task)
    else:
        for name, value in _details(task, reveal=reveal):
            click.echo(f"{name:<9} " + output.printable(value).replace("\n", "\n" + " " * 10))
    attention.call(daemon)


@click.command()
@options.task_id
@click.option("--message", metavar="TEXT", help="Another text.")
@click.option("--to", metavar="ADDRESS", help='Another address; "" for the default one.')
@click.option("--action", metavar="NAME", help="Another action.")
@options.as_json
def update(task_id: str, message: str | None, to: str | None, action: str | None, as_json: bool) -> None:
    """Change what is to be done; the time stays."""
    changes = {"message": message, "to": to, "action": action}
    body = {name: value for name, value in changes.items() if value is not None}
    if not body:
        raise click.UsageError("say what to change: --message, --to or --action")
    _change("PATCH", task_id, "", body, "changed", as_json=as_json)


@click.command(epilog=options.DURATION)
@options.task_id
@options.time
@options.as_json
def schedule(task_id: str, as_json: bool, **time: str | None) -> None:
    """Give a task another time."""
    _change("POST", task_id, "/schedule", options.said(**time), "scheduled", as_json=as_json)


# Without this, click takes a negative duration for an option and says nothing about time.
@click.command(context_settings={"ignore_unknown_options": True}, epilog=options.DURATION)
@options.task_id
@click.argument("duration", metavar="D")
@options.as_json
def snooze(task_id: str, duration: str, as_json: bool) -> None:
    """Let it come D from now, also one that has come already."""
    _change("POST", task_id, "/snooze", {"in": duration}, "snoozed", as_json=as_json)


@click.command()
@options.task_id
@options.as_json
def execute(task_id: str, as_json: bool) -> None:
    """Let it come now, also one that has come already."""
    _change("POST", task_id, "/execute", None, "executing", as_json=as_json)


@click.command()
@options.task_id
@options.as_json
def delete(task_id: str, as_json: bool) -> None:
    """Cancel a task."""
    path = f"/v1/tasks/{http.segment(task_id)}"
    daemon = http.daemon()
    answer = daemon.ask("DELETE", path)
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
@options.as_json
def retry(task_id: str | None, all_: bool, as_json: bool) -> None:
    """Try a failed task again, with all its attempts."""
    if all_ == (task_id is not None):
        raise click.UsageError("say which one by its ID, or --all")
    if task_id is not None:
        _change("POST", task_id, "/retry", None, "retrying", as_json=as_json)
        return
    daemon = http.daemon()
    count = _retry_all(daemon)
    if as_json:
        output.show_json({"retried": count})
    else:
        click.echo(f"retrying {count} failed task{'' if count == 1 else 's'}")
    attention.call(daemon)


def _retry_all(daemon: http.Daemon) -> int:
    """One by one, so that no request takes long and a person sees how far it is."""
    ids = [task["id"] for task in _pages(daemon, "/v1/tasks", ["failed"])]
    quiet = len(ids) < MANY or not sys.stderr.isatty()
    count = 0
    with click.progressbar(ids, label="retrying", file=sys.stderr, hidden=quiet) as bar:
        for task_id in bar:
            try:
                daemon.ask("POST", f"/v1/tasks/{task_id}/retry")
                count += 1
            except Refused as refusal:
                if refusal.status not in (3, 4):
                    raise
                # Else somebody was faster.
    return count


def _change(method: str, task_id: str, verb: str, body: dict[str, Any] | None, done: str, *, as_json: bool) -> None:
    path = f"/v1/tasks/{http.segment(task_id)}{verb}"
    daemon = http.daemon()
    task = daemon.ask(method, path, body).body
    if as_json:
        output.show_json(task)
    else:
        click.echo(f'{done} {task["id"]}: "{output.one_line(task["message"])}" {_fate(task)}, {output.how(task)}')
    attention.call(daemon)


def _pages(daemon: http.Daemon, path: str, statuses: list[str]) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        query: dict[str, Any] = {"status": statuses, "limit": PAGE}
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
    yield "when", _when(task, reveal=reveal)
    if task["rule"]:
        yield "rule", task["rule"]
    yield "added", output.moment(task["created_at"])
    if task["attempts"]:
        yield "attempts", str(task["attempts"])
    if task["receipt"]:
        yield "receipt", str(task["receipt"].get("detail", ""))
    for failure in task["failures"]:
        yield "failure", f"{output.moment(failure['at'])}: {failure['reason']}"


def _fate(task: dict[str, Any]) -> str:
    """What is to be said of a task that has just been changed."""
    match task["status"]:
        case "created":
            return "waits until you schedule it"
        case "pending":
            return f"comes {output.coming(task, reveal=False)}"
        case status:
            return f"is {status}"


def _when(task: dict[str, Any], *, reveal: bool) -> str:
    if task["finished_at"] is not None:
        return output.moment(task["finished_at"])
    if task["status"] == "failed":
        return f"given up {output.moment(task['updated_at'])}"
    return output.coming(task, reveal=reveal)


def _as_far_as_shown(task: dict[str, Any]) -> str:
    """Sorts by what a reader sees: the place in the list would tell what was drawn."""
    if output.is_a_surprise(task):
        return str(task["window"]["until"])
    return task["due"] or "~"


def _cause(task: dict[str, Any]) -> str:
    return output.one_line(task["failures"][-1]["reason"] if task["failures"] else "unknown", 1000)
