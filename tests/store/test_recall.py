"""Why a task is claimed and not popped: a consumer is killed with what it has just taken, on real servers."""

from __future__ import annotations

import signal
import subprocess
import sys

import redis.asyncio as redis

from later.store.keys import Lane
from later.store.redis import RedisStore
from tests.contract.world import thought
from tests.waiting import wait_until

LONG_AGO = 1_700_000_000_000
LEASE_MS = 300

POPS = """
import sys, redis
taken = redis.from_url(sys.argv[1]).lpop("jobs")
print(taken.decode(), flush=True)
input()
"""
CLAIMS = """
import asyncio, sys
from later.clock import Clock
from later.store.redis import RedisStore

async def main():
    store = RedisStore(sys.argv[1], clock=Clock(), holder="killed")
    async with store.session():
        await store.open()
        [task] = (await store.claim(store.lanes[0], limit=1, lease=int(sys.argv[2]))).tasks
        print(task.id, flush=True)
        input()

asyncio.run(main())
"""


async def test_a_plain_pop_loses_the_job_of_a_consumer_that_is_killed(store: RedisStore, raw: redis.Redis) -> None:
    await raw.rpush("jobs", "milk")
    assert taken_by_one_that_is_killed(POPS, store.url) == "milk"
    assert await raw.exists("jobs") == 0
    assert await raw.keys() == ["later:meta"]  # which is no job


async def test_a_claim_keeps_the_task_of_a_consumer_that_is_killed(store: RedisStore, lane: Lane) -> None:
    await store.add(thought("milk", due=LONG_AGO))
    assert taken_by_one_that_is_killed(CLAIMS, store.url, str(LEASE_MS)) == "milk"

    async def recovered() -> bool:
        return (await store.recover(lane, limit=1)).count == 1

    await wait_until(recovered)
    [again] = (await store.claim(lane, limit=1, lease=LEASE_MS)).tasks
    assert (again.id, again.crashes, again.attempts) == ("milk", 1, 0)


def taken_by_one_that_is_killed(program: str, *arguments: str) -> str:
    """What a consumer in a process of its own says that it has taken, before SIGKILL."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as consumer:
        assert consumer.stdout is not None
        taken = consumer.stdout.readline().strip()
        consumer.send_signal(signal.SIGKILL)
    return taken
