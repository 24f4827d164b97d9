"""What the tests of the archive share: an archive of its own for each test, transitions, and a check for leaks."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from later.archive.archive import Archive
from later.core.past import Transition
from later.core.task import Status, Task

MakeTransition = Callable[..., Transition]


@pytest.fixture
def make() -> MakeTransition:
    """Transitions that differ in key and uid; what is said overrides the transition's fields, then the task's."""
    numbers = count(1)

    def make_one(*, owner: str = "ana", status: Status = Status.COMPLETED, **said: object) -> Transition:
        number = next(numbers)
        task = Task(
            owner=owner,
            id=f"t{number}",
            uid=f"u{number}",
            queue="default",
            status=status,
            action="inbox",
            message="buy milk",
            due=1_000 + number,
            nominal=900,
            created=500,
        )
        transition = Transition(partition=0, key=f"{1_000 + number}-0", task=task, at=1_000 + number, started=1_000)
        own = {field: said.pop(field) for field in ("partition", "key", "at", "started", "receipt") if field in said}
        transition = replace(transition, **own)
        return replace(transition, task=replace(task, updated=transition.at, **said))

    return make_one


@pytest.fixture
def told() -> list[tuple[str, int]]:
    """What the archive has said about unread rows."""
    return []


@pytest.fixture
async def archive(tmp_path: Path, told: list[tuple[str, int]]) -> AsyncIterator[Archive]:
    kept = Archive(tmp_path / "archive.db", on_unread=lambda owner, unread: told.append((owner, unread)))
    async with kept.session():
        yield kept


@pytest.fixture(autouse=True)
async def nothing_leaks(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """No task, no connection's thread, and no complaint of asyncio's stays behind."""
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    yield
    gc.collect()
    left = [one for one in threading.enumerate() if "_connection_worker_thread" in one.name and one not in threads]
    assert left == []
    assert asyncio.all_tasks() - tasks - {asyncio.current_task()} == set()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
