"""A task that comes from elsewhere is kept as it was, and replaces nothing: on both servers and on the model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from later.core.task import Failure, Status, Task, Window
from later.store.base import Movement, Standing, Store
from later.store.keys import Lane
from tests.contract.world import LEASE, completed, failed, thought

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
            "crashes": 3,
            "blamed": 1,
            "failures": (Failure(at=5, reason="refused ü"), Failure(at=6, reason="again")),
            **said,
        }
    )


async def restored(store: Store, *tasks: Task) -> list[str]:
    return [one.value for one in await store.restore([Standing(task=task, since=LONG_AGO) for task in tasks])]


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
    assert await restored(store, task) == ["added"]
    assert await store.get("ana", "milk") == task
    counts = await store.counts()
    assert {status: counts[status] for status in ("created", "pending", "failed")} == {
        status: int(status == task.status) for status in ("created", "pending", "failed")
    }


@pytest.mark.parametrize("status", [Status.CREATED, Status.PENDING, Status.FAILED])
async def test_a_second_time_changes_nothing(store: Store, status: Status) -> None:
    task = grown(status=status)
    await restored(store, task)
    assert await restored(store, replace(task, message="forged", due=1, version=99)) == ["kept"]
    assert await store.get("ana", "milk") == task


async def test_it_stays_what_it_has_become_since(store: Store, lane: Lane) -> None:
    task = grown(due=LONG_AGO)
    await restored(store, task)
    [taken] = (await store.claim(lane, limit=1, lease=LEASE)).tasks
    assert await restored(store, task) == ["kept"]
    await store.settle([failed(taken)])
    assert await restored(store, task) == ["kept"]
    there = await store.get("ana", "milk")
    assert there is not None
    assert (there.status, there.attempts) == (Status.FAILED, 5)


@pytest.mark.parametrize("status", [Status.CREATED, Status.PENDING, Status.FAILED])
async def test_another_task_of_that_id_stays_even_if_it_has_failed_or_says_the_same(
    store: Store, status: Status
) -> None:
    first = grown(status=status)
    await restored(store, first)
    assert await restored(store, replace(first, uid="other")) == ["taken"]
    assert await store.get("ana", "milk") == first


async def test_it_goes_on_with_its_life(store: Store, lane: Lane) -> None:
    await restored(store, grown(due=LONG_AGO))
    [taken] = (await store.claim(lane, limit=9, lease=LEASE)).tasks
    await store.settle([completed(taken)])
    [past] = await store.outbox.read(9)
    assert (past.task.occurrence, past.task.attempts, past.task.crashes, past.task.version) == (3, 5, 3, 7)


async def test_a_paused_one_goes_back_to_its_time_and_a_failed_one_is_tried_again(store: Store, lane: Lane) -> None:
    await restored(store, grown(status=Status.CREATED, due=LONG_AGO + 1))
    await restored(store, grown(task_id="bread", status=Status.FAILED))
    await store.move("ana", "milk", RESUME)
    await store.move("ana", "bread", AGAIN)
    taken = (await store.claim(lane, limit=9, lease=LEASE)).tasks
    assert [(task.id, task.due, task.attempts) for task in taken] == [("bread", LONG_AGO, 0), ("milk", LONG_AGO + 1, 4)]


async def test_each_stands_for_itself(store: Store) -> None:
    await store.add(thought("taken", due=FAR))
    kept = grown(task_id="kept")
    await restored(store, kept)
    assert await restored(store, grown(task_id="new"), grown(task_id="taken"), kept, grown(task_id="also")) == [
        "added",
        "taken",
        "kept",
        "added",
    ]
    assert await restored(store) == []
