"""The reading side of the Redis store: single tasks, lists and counts. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from later.core.task import LIVE, Millis, Status, Task
from later.store import codec, keys
from later.store.base import Overdue, Page, Standing
from later.store.calls import Calls
from later.store.keys import Lane, Layout

FAILED_LOOKED_AT = 100_000

log = structlog.get_logger()


class Reader:
    """Reads what the scripts have written."""

    def __init__(self, calls: Calls, layout: Layout) -> None:
        self._calls = calls
        self._layout = layout

    async def read(self, owner: str, ids: Sequence[str]) -> list[Task | None]:
        """These tasks of the owner as of one moment; None for what is not there or cannot be read."""
        return [found.task if found else None for found in await self.standing(owner, ids)]

    async def standing(self, owner: str, ids: Sequence[str]) -> list[Standing | None]:
        """The same, with since when each is in its state; of a pending one that is since it was last changed."""
        if not ids:
            return []
        partition = self._layout.partition(owner)
        names = [f"{owner}/{task_id}" for task_id in ids]
        queues = sorted(self._layout.own_queues)
        answer = await self._calls.snapshot(
            [
                ("ZMSCORE", keys.user(partition, owner), *ids),
                ("ZMSCORE", keys.created(partition), *names),
                ("ZMSCORE", keys.failed(partition), *names),
                *(("ZMSCORE", keys.running(partition, queue), *names) for queue in queues),
                *(("HGETALL", keys.task(partition, name)) for name in names),
            ]
        )
        scores, rest = answer[: 3 + len(queues)], answer[3 + len(queues) :]
        # A set that is none is `later fsck`'s to mend; here nobody is in it.
        nobody = [None] * len(ids)
        dues, created, failed, *leases = [nobody if isinstance(one, Exception) else one for one in scores]
        standing: list[Standing | None] = []
        for at, (name, record) in enumerate(zip(names, rest, strict=True)):
            lease = next((ends[at] for ends in leases if ends[at] is not None), None)
            task = read_task(name, record, due=dues[at], created=created[at], failed=failed[at], lease=lease)
            since = codec.score(created[at] or failed[at])
            standing.append(Standing(task=task, since=task.updated if since is None else since) if task else None)
        return standing

    async def uids(self, names: Sequence[str]) -> list[str | None]:
        """The uids of the live tasks of these names; None for what is not there or cannot be read."""
        if not names:
            return []
        records = [keys.task(self._layout.partition(name.partition("/")[0]), name) for name in names]
        found = await self._calls.snapshot([("HGET", record, "uid") for record in records])
        return [uid if isinstance(uid, str) else None for uid in found]

    async def held_by(self, lane: Lane, holder: str) -> list[Task]:
        """The lane's running tasks that this holder has claimed."""
        running = keys.running(lane.partition, lane.queue)
        names = await self._calls.command("ZRANGE", running, 0, -1)
        if not names:
            return []
        users = [keys.user(lane.partition, name.partition("/")[0]) for name in names]
        answer = await self._calls.snapshot(
            [
                *(("HGETALL", keys.task(lane.partition, name)) for name in names),
                *(("ZSCORE", user, name.partition("/")[2]) for user, name in zip(users, names, strict=True)),
                *(("ZSCORE", running, name) for name in names),
            ]
        )
        records, dues, leases = (answer[at : at + len(names)] for at in range(0, len(answer), len(names)))
        tasks = [
            read_task(name, record, due=due, created=None, failed=None, lease=lease)
            for name, record, due, lease in zip(names, records, dues, leases, strict=True)
            if lease is not None
        ]
        return [task for task in tasks if task is not None and task.holder == holder]

    async def page(self, owner: str, *, statuses: frozenset[Status], cursor: str | None, limit: int) -> Page:
        """The owner's tasks in these states, from the cursor on: in due order, failed ones alone as they failed."""
        begin = int(cursor or 0)
        found: list[Task] = []
        while True:
            ids = await self._ids(owner, begin, limit, failed=statuses == {Status.FAILED})
            for position, task in enumerate(await self.read(owner, ids), begin):
                if len(found) == limit:
                    return Page(tasks=found, next=str(position))
                if task is not None and task.status in statuses:
                    found.append(task)
            begin += len(ids)
            if len(ids) < limit:
                return Page(tasks=found, next=None)

    async def head(self, lane: Lane) -> Millis | None:
        """When the lane's next task is due."""
        first = await self._calls.command("ZRANGE", keys.due(lane.partition, lane.queue), 0, 0, "WITHSCORES")
        return codec.score(first[1]) if first else None

    async def overdue(self, lane: Lane, now: Millis) -> Overdue:
        """What of the lane waits past its time."""
        due = keys.due(lane.partition, lane.queue)
        count, first = await self._calls.figures([("ZCOUNT", due, "-inf", now), ("ZRANGE", due, 0, 0, "WITHSCORES")])
        head = codec.score(first[1]) if first else None
        return Overdue(count=count, late=max(0, now - head) if head is not None else 0)

    async def counts(self) -> Mapping[str, int]:
        """How many tasks of all owners are in which state; pending and running ones only in daemons' queues."""
        total = dict.fromkeys((*(status.value for status in LIVE), "quarantined", "outbox"), 0)
        for partition in range(self._layout.partitions):
            queues = sorted(self._layout.own_queues)
            rows = [
                ("created", "ZCARD", keys.created(partition)),
                ("failed", "ZCARD", keys.failed(partition)),
                ("quarantined", "ZCARD", keys.quarantine(partition)),
                ("outbox", "XLEN", keys.outbox(partition)),
                *(("pending", "ZCARD", keys.due(partition, queue)) for queue in queues),
                *(("running", "ZCARD", keys.running(partition, queue)) for queue in queues),
            ]
            answer = await self._calls.figures([(command, key) for _, command, key in rows])
            for (name, _, _), count in zip(rows, answer, strict=True):
                total[name] += count
        return total

    async def live_of(self, owner: str) -> int:
        """How many live tasks the owner has."""
        return int(await self._calls.command("ZCARD", keys.user(self._layout.partition(owner), owner)))

    async def failed_of(self, owner: str) -> int:
        """How many of the owner's tasks have failed; counted among the first FAILED_LOOKED_AT of all owners."""
        return len(await self._failed_ids(owner))

    async def describe(self) -> Mapping[str, Any]:
        """The server's kind and version, and the settings on which promises rest (None where it does not tell)."""
        info = await self._calls.command("INFO", "all")
        config: dict[str, str] = {}
        for parameter in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy", "dir"):
            config.update(codec.pairs(await self._calls.allowed("CONFIG", "GET", parameter) or []))
        version = info.get("valkey_version") or info.get("redis_version")
        return {
            "kind": "valkey" if "valkey_version" in info else "redis",
            "version": version,
            "compatible": info.get("redis_version"),
            "role": info.get("role"),
            "memory": info.get("used_memory"),
            "replicas": info.get("connected_slaves"),
            "written": info.get("aof_last_write_status"),
            "saved": info.get("rdb_last_bgsave_status"),
            **config,
        }

    async def _ids(self, owner: str, begin: int, limit: int, *, failed: bool) -> list[str]:
        if failed:
            return (await self._failed_ids(owner))[begin : begin + limit]
        user = keys.user(self._layout.partition(owner), owner)
        ids: list[str] = await self._calls.command("ZRANGE", user, begin, begin + limit - 1)
        return ids

    async def _failed_ids(self, owner: str) -> list[str]:
        failed = keys.failed(self._layout.partition(owner))
        names = await self._calls.command("ZRANGE", failed, 0, FAILED_LOOKED_AT - 1)
        mine = f"{owner}/"
        return [name.removeprefix(mine) for name in names if name.startswith(mine)]


def read_task(
    name: str, record: Any, *, due: Any, created: str | None, failed: str | None, lease: str | None
) -> Task | None:
    """The task of a record and of its scores in the user list and the state sets; None if it cannot be read."""
    if not record or isinstance(record, Exception):
        return None
    status = Status.PENDING
    if lease is not None:
        status = Status.RUNNING
    elif created is not None:
        status = Status.CREATED
    elif failed is not None:
        status = Status.FAILED
    try:
        due = None if isinstance(due, Exception) else codec.score(due)
        return codec.unpack(name, record, status=status, due=due, lease_until=codec.score(lease))
    except codec.Unreadable as damage:
        log.warning("record_unreadable", task=name, error=str(damage))
        return None
