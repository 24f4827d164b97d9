"""Commands about the daemon itself."""

from __future__ import annotations

import os
import select
import sys
import time
from typing import Any

import click

from later.cli import attention, http, options, output, places
from later.cli.output import Refused, unavailable

HEALTH_S = 3.5
"""A health check has five seconds in all; starting Python is part of them."""

STOP_S = 60.0


@click.command()
@options.as_json
def stats(as_json: bool) -> None:
    """Show how many tasks there are, and where they are kept."""
    figures = http.daemon().ask("GET", "/v1/stats").body
    if as_json:
        output.show_json(figures)
    else:
        for name, value in _figures(figures):
            click.echo(f"{name:<12} {value}")
    attention.tell(figures)


@click.command()
@options.as_json
def doctor(as_json: bool) -> int:
    """Say what to mend. Exit status 1 if there is something."""
    daemon = http.daemon()
    findings = daemon.ask("GET", "/v1/doctor").body["findings"]
    if as_json:
        output.show_json({"findings": findings})
    elif findings:
        for finding in findings:
            click.echo(output.printable(f"{finding['subject']}: {finding['advice']}"))
    else:
        click.echo("all is well")
    attention.call(daemon)
    return 1 if findings else 0


@click.command()
@options.as_json
def health(as_json: bool) -> int:
    """Say whether the daemon gets on with its work.

    Exit status 0 if it does, 1 if it does not, 69 if there is none; within five seconds.
    """
    daemon = http.daemon(HEALTH_S)
    try:
        answer = daemon.ask("GET", "/health").body
    except Refused as refusal:
        raise Refused(str(refusal), status=1, problem=refusal.problem) from None
    if as_json:
        output.show_json(answer)
    else:
        click.echo("ok")
    return 0


@click.command()
@click.option("--env-file", type=click.Path(), help="Settings from this file instead of your own.")
def run(env_file: str | None) -> int:
    """Run the daemon in the foreground, until Ctrl-C."""
    from later.cli import engine

    return engine.run(env_file)


@click.command()
@options.as_json
def stop(as_json: bool) -> None:
    """Stop the daemon; what is running may finish, nothing is lost."""
    daemon = http.daemon()
    pid = daemon.ask("GET", "/v1/stats").body["pid"]
    process = _handle(pid)
    daemon.ask("POST", "/v1/stop")
    if not _ended(daemon.door, process):
        raise unavailable(f"the daemon (process {pid}) is still finishing what it performs; see its log")
    if as_json:
        output.show_json({"stopped": pid})
    else:
        click.echo(f"stopped the daemon (process {pid})")


@click.command()
def demo() -> int:
    """See a thought come back in three seconds.

    It comes from a daemon of its own, which Ctrl-C ends and which leaves nothing behind.
    """
    from later.cli import engine

    return engine.demo(sys.stdout)


def _handle(pid: int) -> int | None:
    """Stands for this process, and not for another that gets its number; None where the system has no such thing."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _ended(door: places.Door, handle: int | None) -> bool:
    """Wait for the end of the process or, where it cannot be seen, of its answers."""
    if handle is not None:
        return bool(select.select([handle], [], [], STOP_S)[0])
    deadline = time.monotonic() + STOP_S
    while http.connect(door) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _figures(figures: dict[str, Any]) -> list[tuple[str, str]]:
    workers = figures["workers"]
    return [
        ("daemon", f"Later {figures['version']}, process {figures['pid']}"),
        ("kept in", figures["kept_in"]),
        ("workers", f"{workers['busy']} of {workers['places']} busy"),
        ("overdue", f"{figures['overdue_ms']} ms"),
        (
            "since start",
            ", ".join(f"{count} {name}" for name, count in figures["outcomes"].items() if count) or "nothing",
        ),
        *((name, str(count)) for name, count in figures["tasks"].items()),
        ("unread", f"{figures['yours']['unread']} of yours"),
    ]
