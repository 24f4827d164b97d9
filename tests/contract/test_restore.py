"""A task that comes from elsewhere is kept as it was, and replaces nothing: on both servers and on the model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from later.core.errors import IdTaken
from later.core.task import Failure, Status, Task, Window
from later.store.base import Movement, Store
from later.store.keys import Lane
from tests.contract.world import HOUR, completed, failed, thought

LONG_AGO = 1_700_000_000_000
FAR = 4_000_000_000_000
AGAIN = Movement(states=frozenset({Status.FAILED}), to=Status.PENDING, due=LONG_AGO, afresh=True)
RESUME = Movement(states=frozenset({Status.CREATED}), to=Status.PENDING)


def grown(**said: object) -> Task:
    """A task with a career."""
    return thought(
        **{
            "due": FAR,
            "window": Window(since=1, until=2),
            "nominal": FAR - 5,
            "occurrence": 3,
            "version": 7,
            "updated": LONG_AGO + 9,
            "attempts": 4,
            "crashes": 1,
            "failures": (Failure(at=5, reason="refused ü"), Failure(at=6, reason="again")),
            **said,
        }
    )


@pytest.mark.parametrize(
    "task",
    [
        grown(),
        grown(status=Status.CREATED),
        grown(status=Status.CREATED, due=None),
        grown(status=Status.FAILED),
        grown(status=Status.FAILED, due=None),
        grown(cancel=True),
    ],
    ids=["pending", "paused", "created", "failed", "failed-without-a-time", "cancel"],
)
async def test_it_is_as_it_was(store: Store, task: Task) -> None:
    added = await store.add(task, since=LONG_AGO)
    assert (added.task, added.kept, added.replaced) == (task, False, False)
    assert await store.get("ana", "milk") == task
    counts = await store.counts()
    assert {status: counts[status] for status in ("created", "pending", "failed")} == {
        status: int(status == task.status) for status in ("created", "pending", "failed")
    }


@pytest.mark.parametrize("status", [Status.CREATED, Status.PENDING, Status.FAILED])
async def test_a_second_time_changes_nothing(store: Store, status: Status) -> None:
    task = grown(status=status)
    await store.add(task, since=LONG_AGO)
    again = await store.add(replace(task, message="forged", due=1, version=99), since=LONG_AGO + 1)
    assert (again.kept, again.task) == (True, task)
    assert await store.get("ana", "milk") == task


async def test_it_stays_what_it_has_become_since(store: Store, lane: Lane) -> None:
    task = grown(due=LONG_AGO)
    await store.add(task, since=LONG_AGO)
    [taken] = (await store.claim(lane, limit=1, lease=HOUR)).tasks
    assert (await store.add(task, since=LONG_AGO)).kept
    await store.settle([failed(taken)])
    assert (await store.add(task, since=LONG_AGO)).kept
    there = await store.get("ana", "milk")
    assert there is not None
    assert (there.status, there.attempts) == (Status.FAILED, 5)


@pytest.mark.parametrize("status", [Status.CREATED, Status.PENDING, Status.FAILED])
async def test_another_task_of_that_id_stays_even_if_it_has_failed_or_says_the_same(
    store: Store, status: Status
) -> None:
    first = grown(status=status)
    await store.add(first, since=LONG_AGO)
    with pytest.raises(IdTaken):
        await store.add(replace(first, uid="other"), since=LONG_AGO)
    assert await store.get("ana", "milk") == first


async def test_it_goes_on_with_its_life(store: Store, lane: Lane) -> None:
    await store.add(grown(due=LONG_AGO), since=LONG_AGO)
    [taken] = (await store.claim(lane, limit=9, lease=HOUR)).tasks
    await store.settle([completed(taken)])
    [past] = await store.outbox.read(9)
    assert (past.task.occurrence, past.task.attempts, past.task.crashes, past.task.version) == (3, 5, 1, 7)


async def test_a_paused_one_goes_back_to_its_time_and_a_failed_one_is_tried_again(store: Store, lane: Lane) -> None:
    await store.add(grown(status=Status.CREATED, due=LONG_AGO + 1), since=LONG_AGO)
    await store.add(grown(task_id="bread", status=Status.FAILED), since=LONG_AGO)
    await store.move("ana", "milk", RESUME)
    await store.move("ana", "bread", AGAIN)
    taken = (await store.claim(lane, limit=9, lease=HOUR)).tasks
    assert [(task.id, task.due, task.attempts) for task in taken] == [("bread", LONG_AGO, 0), ("milk", LONG_AGO + 1, 4)]
