"""What a holder of leases does: claim, extend, settle, recover. Each is one script on one lane."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from later.core.errors import StoreDamaged
from later.core.lifecycle import Settlement
from later.core.task import NO_LEASE_MS, Millis, Status, Task
from later.store import codec, keys
from later.store.base import Claim, Held, Recovered, Settled
from later.store.calls import Calls
from later.store.fsck.inspection import Inspection
from later.store.keys import Lane, Layout
from later.store.scripts import Argument, Script

Claimed = tuple[str, int]
"""A task's name and the number of its claim."""

log = structlog.get_logger()


class Holding:
    """Takes tasks under leases in the name of one holder, and gives them back."""

    def __init__(self, calls: Calls, layout: Layout, inspection: Inspection, holder: str) -> None:
        self._calls = calls
        self._layout = layout
        self._inspection = inspection
        self._holder = holder
        self._claim, self._extend, self._settle, self._recover = map(Script, ("claim", "extend", "settle", "recover"))

    async def claim(self, lane: Lane, *, limit: int, lease: Millis) -> Claim:
        root = keys.root(lane.partition)
        number, head, *taken = await self._calls.script(
            self._claim,
            [
                keys.due(lane.partition, lane.queue),
                keys.running(lane.partition, lane.queue),
                keys.claims(lane.partition),
                keys.quarantine(lane.partition),
            ],
            [root, limit, lease, self._holder, codec.MOST_FIELDS, codec.MOST_BYTES],
        )
        tasks = []
        for name, due, flat in taken:
            if isinstance(flat, str):
                log.error("task_quarantined", task=name, error=flat)
                continue
            try:
                known = {"claim": int(number), "holder": self._holder}
                tasks.append(
                    codec.unpack(name, codec.pairs(flat), status=Status.RUNNING, due=codec.score(due), **known)
                )
            except codec.Unreadable as damage:
                await self._quarantine(lane, name, damage)
        return Claim(tasks=tasks, next_due=codec.score(head))

    async def extend(self, tasks: Sequence[Task], *, lease: Millis, alone: bool = False) -> Sequence[Held]:
        held: dict[Claimed, Held] = {}
        for lane, group in self._by_lane(tasks).items():
            words = [word for task in group for word in (task.name, task.claim)]
            try:
                answer = await self._calls.script(
                    self._extend,
                    [keys.running(lane.partition, lane.queue)],
                    [keys.root(lane.partition), lease, "1" if alone else "", *words],
                )
            except StoreDamaged:  # nobody else can take them either
                if alone:
                    raise
                answer = [Held.KEPT] * len(group)
            held.update(zip(map(_claimed, group), map(Held, answer), strict=True))
        return [held[_claimed(task)] for task in tasks]

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        by_claim = {_claimed(settlement.task): settlement for settlement in settlements}
        results: dict[Claimed, Settled] = {}
        for lane, group in self._by_lane([settlement.task for settlement in settlements]).items():
            try:
                answer = await self._calls.script(
                    self._settle,
                    [
                        keys.due(lane.partition, lane.queue),
                        keys.running(lane.partition, lane.queue),
                        keys.failed(lane.partition),
                        keys.quarantine(lane.partition),
                        keys.outbox(lane.partition),
                    ],
                    [keys.root(lane.partition), *(word for task in group for word in _item(by_claim[_claimed(task)]))],
                    transaction=True,
                )
            except StoreDamaged:
                answer = [Settled.DAMAGED] * len(group)
            results.update(zip(map(_claimed, group), map(Settled, answer), strict=True))
        return [results[_claimed(settlement.task)] for settlement in settlements]

    async def recover(self, lane: Lane, *, limit: int, bound: Millis | None) -> Recovered:
        """`bound`: the caller's idea of now; None for all leases, where no holder can be alive."""
        count, next_end = await self._calls.script(
            self._recover,
            [
                keys.due(lane.partition, lane.queue),
                keys.running(lane.partition, lane.queue),
                keys.quarantine(lane.partition),
            ],
            [keys.root(lane.partition), limit, "+inf" if bound is None else bound, NO_LEASE_MS],
        )
        return Recovered(count=count, next_end=codec.score(next_end))

    def _by_lane(self, tasks: Sequence[Task]) -> dict[Lane, list[Task]]:
        lanes: dict[Lane, list[Task]] = {}
        for task in tasks:
            lanes.setdefault(self._layout.lane(task.owner, task.queue), []).append(task)
        return lanes

    async def _quarantine(self, lane: Lane, name: str, damage: codec.Unreadable) -> None:
        log.error("task_quarantined", task=name, error=str(damage))
        await self._inspection.quarantine(lane, name)


def _item(settlement: Settlement) -> list[Argument]:
    """One settlement as the script reads it."""
    stays = settlement.due is not None or settlement.status is Status.FAILED
    return [
        settlement.task.name,
        settlement.task.claim,
        settlement.status or "",
        "" if settlement.due is None else settlement.due,
        codec.pack_changes(settlement) if stays else "",
        codec.pack_entry(settlement),  # always: the owner may have asked for the end just now
    ]


def _claimed(task: Task) -> Claimed:
    """A frozen worker may settle beside the present one: the same task, but another claim."""
    return task.name, task.claim
