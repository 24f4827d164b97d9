"""Commands over what has come."""

from __future__ import annotations

import click

from later.cli import attention, http, options, output


@click.command()
@click.option("--keep", is_flag=True, help="Leave them unread.")
@options.as_json
def inbox(keep: bool, as_json: bool) -> None:
    """Show the thoughts that have come, and mark them as read."""
    daemon = http.daemon()
    thoughts = daemon.ask("GET", "/v1/inbox").body["tasks"]
    if as_json:
        output.show_json({"tasks": thoughts, "next": None})
    elif thoughts:
        for thought in thoughts:
            when, text = output.moment(thought["finished_at"]), output.printable(thought["message"])
            click.echo(f"{when}  {text}  ({thought['id']})")
    else:
        click.echo("nothing new", err=True)
    if not keep:
        for begin in range(0, len(thoughts), 1000):
            ids = [thought["delivery_id"] for thought in thoughts[begin : begin + 1000]]
            daemon.ask("POST", "/v1/inbox/read", {"delivery_ids": ids})
    attention.call(daemon)


@click.command()
@click.option("--status", type=click.Choice(("completed", "failed", "cancelled")), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@options.as_json
def history(status: str | None, limit: int, as_json: bool) -> None:
    """Show what came of past tasks, newest first."""
    daemon = http.daemon()
    query = {"limit": limit, **({"status": status} if status else {})}
    page = daemon.ask("GET", "/v1/history", query=query).body
    if as_json:
        output.show_json(page)
    else:
        rows = [
            [
                output.moment(task["finished_at"]),
                task["id"],
                task["status"],
                _outcome(task),
                output.one_line(task["message"]),
            ]
            for task in page["tasks"]
        ]
        output.table(["when", "id", "status", "what came of it", "text"], rows)
        if not rows:
            click.echo("nothing is past yet", err=True)
    attention.call(daemon)


def _outcome(task: dict[str, object]) -> str:
    receipt, failures = task["receipt"], task["failures"]
    if isinstance(receipt, dict):
        return output.one_line(str(receipt.get("detail", "")))
    if isinstance(failures, list) and failures:
        return output.one_line(str(failures[-1]["reason"]))
    return ""
