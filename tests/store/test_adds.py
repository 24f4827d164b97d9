"""An add of what is there already: it answers with the task that is kept, also when that ends at the same moment."""

from __future__ import annotations

import anyio

from later.clock import Clock
from later.store.keys import Lane
from later.store.redis import RedisStore
from tests.contract.world import HOUR, OWN_QUEUES, completed, thought
from tests.proxy import between
from tests.servers import Server
from tests.waiting import wait_until

LONG_AGO = 1_700_000_000_000


async def test_it_answers_with_the_task_that_is_kept_though_that_has_just_ended(
    on_server: Server, store: RedisStore, lane: Lane
) -> None:
    async with between(on_server.url) as proxy:
        slow = RedisStore(proxy.url, clock=Clock(), holder="slow", own_queues=OWN_QUEUES)
        async with slow.session():
            first = thought(due=LONG_AGO)
            await slow.add(first)
            answers = []

            async def add_again() -> None:
                answers.append(await slow.add(thought(due=LONG_AGO)))

            async with anyio.create_task_group() as both:
                proxy.hold_reply_to("EVALSHA")
                both.start_soon(add_again)
                await wait_until(lambda: proxy.held == 1)
                claim = await store.claim(lane, limit=1, lease=HOUR)
                await store.settle([completed(task) for task in claim.tasks])
                assert await store.get("ana", "milk") is None
                proxy.release()
    assert [(one.kept, one.task.uid) for one in answers] == [(True, first.uid)]
