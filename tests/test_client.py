"""What an owner is answered where several daemons share a server, each with a past of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from pydantic import SecretStr

from later.client import Client, NewTask
from later.clock import Clock
from later.core.task import Status, Task
from later.core.when import When
from later.settings import Settings
from later.store.redis import RedisStore
from later.wiring.engine import choose
from tests.contract.world import HOUR, completed
from tests.proxy import between
from tests.servers import served
from tests.waiting import wait_until

CHANGES: dict[str, Callable[[Client, str], Awaitable[Task]]] = {
    "execute": lambda client, task: client.execute(task),
    "snooze": lambda client, task: client.snooze(task, "0s"),
    "schedule": lambda client, task: client.schedule(task, When(in_="0s")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_what_was_carried_out_is_not_denied_though_it_has_ended_in_another_daemons_past(
    change: Callable[[Client, str], Awaitable[Task]], tmp_path: Path
) -> None:
    with served("valkey") as server:
        async with between(server.url) as proxy:
            settings = Settings(redis_url=SecretStr(proxy.url), state_dir=tmp_path)
            engine = choose(settings, None, default_action="inbox")
            other = RedisStore(server.url, clock=Clock(), holder="other")
            async with engine.store.session(), engine.archive.session(), other.session():
                client = engine.client("ana")
                for task in ("before", "t"):
                    added = await client.add(NewTask(id=task, message="tea", when=When(in_="1h")))
                await change(client, "before")  # so that the server knows the script, and what is held is the answer
                answers: list[Task] = []

                async def ask() -> None:
                    answers.append(await change(client, "t"))

                async with anyio.create_task_group() as both:
                    proxy.hold_reply_to("EVALSHA")
                    both.start_soon(ask)
                    await wait_until(lambda: proxy.held == 1)
                    await perform(other, count=2)
                    proxy.release()
    [answer] = answers
    assert (answer.uid, answer.status) == (added.task.uid, Status.PENDING)
    assert answer.due is not None
    assert added.task.due is not None
    assert answer.due < added.task.due


async def perform(store: RedisStore, *, count: int) -> None:
    """Complete so many, and keep their past elsewhere."""
    claim = await store.claim(store.lanes[0], limit=count, lease=HOUR)
    assert len(claim.tasks) == count
    await store.settle([completed(task) for task in claim.tasks])
    await store.outbox.forget(await store.outbox.read(count))
