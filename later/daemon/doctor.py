"""What to mend before it hurts: each finding says what is wrong and what to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from later.core.task import Millis

OLDEST = (7, 0)
CLOCK_MS = 500
DISK_BYTES = 200 * 1024 * 1024
MEMORY_SHARE = 0.9
OUTBOX_ENTRIES = 10_000

Finding = dict[str, str]


def examine_store(server: Mapping[str, Any], *, replicas: int = 0) -> Iterator[Finding]:
    """Judge what `Store.describe` tells; `replicas` is how many must have a task before it is acknowledged."""
    version = str(server.get("compatible") or "0")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        yield _finding(
            "store", f"the server is version {version}; Later needs Redis or Valkey 7.0 or newer, so upgrade it"
        )
    if server.get("role") not in (None, "master"):
        yield _finding("store", f"the server is a {server['role']}; point LATER_REDIS_URL at its master")
    if server.get("appendonly") == "no":
        yield _finding("store", "nothing is written to disk (appendonly no): a restart loses tasks; set appendonly yes")
    elif server.get("appendfsync") not in (None, "always"):
        yield _finding(
            "store",
            f"appendfsync is {server['appendfsync']}: a power cut loses the last moments; set appendfsync always",
        )
    if "err" in (server.get("written"), server.get("saved")):
        yield _finding("store", "the server could not write to its disk the last time; make room there, see its log")
    if int(server.get("replicas") or 0) > replicas == 0:
        yield _finding(
            "store",
            f"the server has {server['replicas']} replicas, and a failover may lose the last moments; "
            "set LATER_REDIS_REPLICAS=1 to acknowledge what a replica has",
        )
    if int(server.get("replicas") or 0) < replicas:
        yield _finding(
            "store",
            f"the server has {server.get('replicas') or 0} replicas, and LATER_REDIS_REPLICAS is {replicas}: "
            "nothing new is acknowledged; connect replicas, or lower it",
        )
    policy = server.get("maxmemory-policy")
    if policy not in (None, "noeviction"):
        yield _finding(
            "store", f"maxmemory-policy is {policy}: a full server drops tasks; set maxmemory-policy noeviction"
        )
    limit, used = int(server.get("maxmemory") or 0), int(server.get("memory") or 0)
    if limit and used > limit * MEMORY_SHARE:
        yield _finding("store", f"the server uses {used:,} of {limit:,} bytes; raise maxmemory before adds are refused")


def examine_counts(counts: Mapping[str, int]) -> Iterator[Finding]:
    """Judge what `Store.counts` tells."""
    if counts["quarantined"]:
        yield _finding(
            "tasks", f"{counts['quarantined']} records cannot be read and are in quarantine; `later fsck` names them"
        )
    if counts["outbox"] > OUTBOX_ENTRIES:
        yield _finding(
            "archive", f"{counts['outbox']:,} finished tasks wait to be archived; see the daemon's log for why"
        )


def examine_clock(store_now: Millis, wall: float) -> Iterator[Finding]:
    """Judge how far this machine's clock is from the store's, which decides."""
    apart = abs(store_now - wall * 1000)
    if apart > CLOCK_MS:
        yield _finding("clock", f"this machine's clock is {apart / 1000:.1f} s off the store's; let NTP set both")


def examine_disk(state_dir: Path) -> Iterator[Finding]:
    """Judge the room where everything is kept."""
    free = shutil.disk_usage(state_dir).free
    if free < DISK_BYTES:
        yield _finding("disk", f"only {free // 1024 // 1024} MiB are free in {state_dir}; make room")


def _finding(subject: str, advice: str) -> Finding:
    return {"subject": subject, "advice": advice}
