"""Commands about the daemon itself."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from later.cli import http, output
from later.cli.output import Refused, unavailable

HEALTH_S = 5.0
STOP_S = 60.0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")
def stats(as_json: bool) -> None:
    """Show how many tasks there are, and where they are kept."""
    figures = http.daemon().ask("GET", "/v1/stats").body
    if as_json:
        output.show_json(figures)
        return
    workers = figures["workers"]
    rows = [
        ["daemon", f"Later {figures['version']}, process {figures['pid']}"],
        ["kept in", figures["kept_in"]],
        ["workers", f"{workers['busy']} of {workers['places']} busy"],
        ["overdue", f"{figures['overdue_ms']} ms"],
        *([name, str(count)] for name, count in figures["tasks"].items()),
        ["unread", f"{figures['yours']['unread']} of yours"],
    ]
    for name, value in rows:
        click.echo(f"{name:<12} {value}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")
def doctor(as_json: bool) -> int:
    """Say what to mend; exit status 1 if there is something."""
    findings = http.daemon().ask("GET", "/v1/doctor").body["findings"]
    if as_json:
        output.show_json({"findings": findings})
    elif findings:
        for finding in findings:
            click.echo(f"{finding['subject']}: {finding['advice']}")
    else:
        click.echo("all is well")
    return 1 if findings else 0


@click.command()
def health() -> int:
    """Exit 0 if the daemon gets on with its work, 1 if it does not, 69 if there is none; within five seconds."""
    http.PATIENCE_S = HEALTH_S - 0.5
    daemon = http.daemon()
    try:
        daemon.ask("GET", "/health")
    except Refused as refusal:
        click.echo(f"later: {refusal}", err=True)
        return 1
    click.echo("ok")
    return 0


@click.command()
@click.option("--env-file", type=click.Path(path_type=Path), help="Settings from this file instead of your own.")
def run(env_file: Path | None) -> int:
    """Run the daemon in the foreground, until Ctrl-C."""
    from later.cli import engine

    return engine.run(env_file)


@click.command()
def stop() -> None:
    """Stop the daemon; what is running may finish, nothing is lost."""
    daemon = http.daemon()
    pid = daemon.ask("GET", "/v1/stats").body["pid"]
    daemon.ask("POST", "/v1/stop")
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        if http.connect(daemon.door) is None:
            click.echo(f"stopped the daemon (process {pid})")
            return
        time.sleep(0.05)
    raise unavailable(f"the daemon (process {pid}) is still finishing what it performs; ask again with `later stats`")


@click.command()
def demo() -> int:
    """See a thought come back in three seconds, from a daemon of its own that leaves nothing behind."""
    from later.cli import engine

    return engine.demo(sys.stdout)
