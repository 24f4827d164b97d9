"""The command that looks whether the store is sound, and mends it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import click

from later.cli import options, output, road
from later.cli.output import Refused

NAMES_SHOWN = 5
CONFLICT = 4

Part = dict[str, Any]
Ask = Callable[[Part], Part]


@click.command()
@click.option("--repair", is_flag=True, help="Mend what can be mended without guessing; nothing is deleted.")
@options.as_json
def fsck(repair: bool, as_json: bool) -> int:
    """Prove that every task is where it must be. For the daemon's own user.

    Daemons may go on meanwhile. Exit status 0 if the store is sound (with --repair: is sound again), 1 if it is not.
    """
    with road.daemon_or_store() as daemon:
        found = examine(lambda body: daemon.ask("POST", "/v1/fsck", body).body, repair=repair, quiet=as_json)
    left = sum(damage["count"] - damage["mended"] for damage in found["damages"])
    if as_json:
        output.show_json({"sound": not left, **found})
    else:
        _show(found, repair=repair, left=left)
    return 1 if left else 0


def examine(ask: Ask, *, repair: bool, quiet: bool) -> Part:
    """All parts, added up; begun again, once, where the store was restarted in the middle."""
    try:
        return _examine(ask, repair=repair, quiet=quiet)
    except Refused as refusal:
        if refusal.status != CONFLICT:
            raise
        click.echo(f"later: {refusal}: that is done now", err=True)
        return _examine(ask, repair=repair, quiet=quiet)


def _examine(ask: Ask, *, repair: bool, quiet: bool) -> Part:
    """From the first part to the last, added up; a bar on a terminal shows how far it is."""
    counts: Counter[str] = Counter()
    sums: dict[str, dict[str, Part]] = {"damages": {}, "advice": {}}
    hidden = quiet or not sys.stderr.isatty()
    with click.progressbar(length=1, label="examining", file=sys.stderr, hidden=hidden) as bar:
        for part in _parts(ask, repair=repair):
            counts.update(part["counts"])
            for which, kinds in sums.items():
                for one in part[which]:
                    _add(kinds.setdefault(one["kind"], {**one, "count": 0, "mended": 0, "names": []}), one)
            length = bar.length = max(part["keys"], 1)
            bar.update((length if part["next"] is None else min(counts["records"], length)) - bar.pos)
    return {"counts": dict(counts), **{which: list(kinds.values()) for which, kinds in sums.items()}}


def _parts(ask: Ask, *, repair: bool) -> Iterator[Part]:
    cursor = None
    while True:
        part = ask({"repair": repair, "cursor": cursor})
        yield part
        cursor = part["next"]
        if cursor is None:
            return


def _add(total: Part, part: Part) -> None:
    total["count"] += part["count"]
    total["mended"] += part["mended"]
    total["names"] = [*total["names"], *part["names"]][:NAMES_SHOWN]


def _show(found: Part, *, repair: bool, left: int) -> None:
    for name in ("records", "created", "pending", "running", "failed", "quarantined", "owners"):
        click.echo(f"{name:<12} {found['counts'].get(name, 0):,}")
    for damage in found["damages"]:
        mended = f"mended {damage['mended']:,} of " if repair else ""
        click.echo(_line(f"damage       {mended}{damage['count']:,}", damage))
    for advice in found["advice"]:
        click.echo(_line(f"note         {advice['count']:,}", advice))
    if left:
        click.echo(
            f"not sound: {left:,} left"
            if repair
            else f"not sound: {left:,} damaged; `later fsck --repair` mends what it can"
        )
    else:
        click.echo("sound again" if found["damages"] else "sound")


def _line(begin: str, one: Part) -> str:
    more = " …" if one["count"] > len(one["names"]) else ""
    return output.printable(f"{begin} {one['says']}: {', '.join(one['names'])}{more}")
