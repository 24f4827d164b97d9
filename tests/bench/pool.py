"""The shape of the pool: how many places, and how many tasks a claim takes, against the round trip to the server.

For each shape: tasks a second while due ones wait, for actions that take no time and some; how late tasks start that
fall due one by one; and how long the server is held up by one claim or one transaction of settlements.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from later import logs
from later.core.lifecycle import Performed, Receipt, Settlement, settle
from later.core.retry import RetryPolicy
from later.core.task import Millis, Task
from later.daemon import settler
from tests.bench.line import line
from tests.daemon.parts import Parts, plain, task
from tests.servers import Server, served

ACTION_MS = 10.0
STREAM_A_SECOND = 200
FASTEST_A_SECOND = 8_000
"""What one daemon does here at most; so many tasks are filled in for a second."""
ADDED_AT_A_TIME = 64
CLAIMS = 30


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is varied."""

    rtt_ms: float
    workers: int
    batch: int
    settled: int = settler.BATCH


@dataclass
class Pause:
    """An action that takes so long, and notes when it was first begun and how late each time."""

    seconds: float
    name: str = "record"
    began: float = 0.0
    done: int = 0
    late_ms: list[float] = field(default_factory=list)

    def check(self, task: Task) -> None:
        pass

    async def perform(self, task: Task) -> Receipt:
        self.began = self.began or time.perf_counter()
        self.late_ms.append(time.time() * 1000 - (task.due or 0))
        if self.seconds:
            await asyncio.sleep(self.seconds)
        self.done += 1
        return Receipt(detail="")


def main(words: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench pool", description=__doc__)
    parser.add_argument("--rtt", type=float, nargs="+", default=[0, 1, 5, 20], metavar="MS")
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 50, 200], metavar="N")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 10, 50, 200], metavar="N")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long each figure is measured")
    parser.add_argument("--rounds", type=int, default=3, help="how often; the median rate is printed")
    given = parser.parse_args(words)
    logs.configure("json", "error")
    with served("valkey") as server:
        asyncio.run(print_stalls(server, given.batch))
        print_cells(
            "\nrtt ms", "measured", "workers", "batch", "no-op /s", f"{ACTION_MS:g} ms /s", "late p50 ms", "p99"
        )
        for rtt_ms in given.rtt:
            with line(server.socket, rtt_ms) as url:
                for workers in given.workers:
                    for batch in given.batch:
                        shape = Shape(rtt_ms=rtt_ms, workers=workers, batch=batch)
                        asyncio.run(print_row(server, url, shape, given))
        print_cells("\nrtt ms", "settled at a time", "no-op /s")
        for rtt_ms in given.rtt:
            with line(server.socket, rtt_ms) as url:
                asyncio.run(print_settling(server, url, rtt_ms, given))


async def print_settling(server: Server, url: str, rtt_ms: float, given: argparse.Namespace) -> None:
    """Tasks a second in the largest pool, by how many settlements at most go out in one transaction."""
    for batch in given.batch:
        shape = Shape(rtt_ms=rtt_ms, workers=200, batch=50, settled=batch)
        print_cells(f"{rtt_ms:g}", batch, f"{await median_rate(server, url, shape, given):,.0f}")


async def print_row(server: Server, url: str, shape: Shape, given: argparse.Namespace) -> None:
    rtt_ms = await round_trip_ms(url)
    quick = await median_rate(server, url, shape, given)
    slow = await median_rate(server, url, shape, given, action_ms=ACTION_MS)
    late = await lateness(server, url, shape, seconds=given.seconds)
    p50, p99 = statistics.median(late), statistics.quantiles(late, n=100)[98]
    rates = f"{quick:,.0f}", f"{slow:,.0f}"
    print_cells(f"{shape.rtt_ms:g}", f"{rtt_ms:.1f}", shape.workers, shape.batch, *rates, f"{p50:.1f}", f"{p99:.1f}")


async def print_stalls(server: Server, batches: Sequence[int]) -> None:
    """How long the server does nothing else: median and longest of some calls, in µs."""
    print_cells("batch", "claim µs", "longest", "settle µs", "longest")
    for batch in batches:
        claims, settlements = await stalls(server, batch)
        figures = [statistics.median(claims), max(claims), statistics.median(settlements), max(settlements)]
        print_cells(batch, *(f"{figure:.0f}" for figure in figures))


def print_cells(*cells: object) -> None:
    print("\t".join(map(str, cells)), flush=True)


async def median_rate(server: Server, url: str, shape: Shape, given: argparse.Namespace, action_ms: float = 0) -> float:
    rates = [
        await drained_a_second(server, url, shape, seconds=given.seconds, action_ms=action_ms)
        for _ in range(given.rounds)
    ]
    return statistics.median(rates)


async def drained_a_second(server: Server, url: str, shape: Shape, *, seconds: float, action_ms: float = 0) -> float:
    """Tasks a second, from the first one's beginning to the last settlement's answer."""
    moved = min(shape.batch, shape.settled) / (shape.rtt_ms + 1)
    performed = shape.workers / (2 * shape.rtt_ms + action_ms + 1)
    count = max(shape.workers, int(seconds * min(FASTEST_A_SECOND, 1000 * moved, 1000 * performed)))
    await fill(server, [int(time.time() * 1000)] * count)
    action = Pause(action_ms / 1000)
    daemon = Parts(url, action, workers=shape.workers, batch=shape.batch)
    usual, settler.BATCH = settler.BATCH, shape.settled
    try:
        async with daemon.running():
            while action.done < count or daemon.pool.attempts:
                await asyncio.sleep(0.002)
            return count / (time.perf_counter() - action.began)
    finally:
        settler.BATCH = usual


async def lateness(server: Server, url: str, shape: Shape, *, seconds: float) -> Sequence[float]:
    """By how many ms each task began late, where they fall due one by one."""
    count = max(2, int(seconds * STREAM_A_SECOND))
    start = time.time() + 0.5
    await fill(server, [int(1000 * (start + at / STREAM_A_SECOND)) for at in range(count)])
    action = Pause(ACTION_MS / 1000)
    daemon = Parts(url, action, workers=shape.workers, batch=shape.batch)
    async with daemon.running():
        while action.done < count:
            await asyncio.sleep(0.002)
    return action.late_ms


async def round_trip_ms(url: str) -> float:
    """What an answer takes in truth."""
    parts, took = Parts(url), []
    async with parts.reachable():
        for _ in range(20):
            sent = time.perf_counter()
            await parts.store.ping()
            took.append(time.perf_counter() - sent)
    return statistics.median(took) * 1000


async def stalls(server: Server, batch: int) -> tuple[Sequence[int], Sequence[int]]:
    """The server's own time, in µs, for each of some claims and of the transactions that settle them."""
    await fill(server, [int(time.time() * 1000)] * (batch * CLAIMS))
    parts = Parts(server.url)
    claims, settlements = [], []
    async with parts.reachable():
        for _ in range(CLAIMS):
            before = await in_scripts_us(server)
            claim = await parts.store.claim(parts.store.lanes[0], limit=batch, lease=30_000)
            between = await in_scripts_us(server)
            await parts.store.settle([completed(each) for each in claim.tasks])
            claims.append(between - before)
            settlements.append(await in_scripts_us(server) - between)
    return claims, settlements


def completed(each: Task) -> Settlement:
    outcome, policy = Performed(receipt=Receipt(detail="")), RetryPolicy(attempts=1, within=1, base=1, cap=1)
    return settle(each, outcome, started=each.due, now=each.due or 0, rng=random.Random(1), policy=policy)


async def in_scripts_us(server: Server) -> int:
    """The server's time in scripts since its start."""
    async with plain(server.url) as client:
        found = await client.info("commandstats")
    return sum(found.get(f"cmdstat_{name}", {}).get("usec", 0) for name in ("eval", "evalsha"))


async def fill(server: Server, due: Sequence[Millis]) -> None:
    """Nothing but these tasks, kept without the line's delay."""
    server.ask("FLUSHALL")
    parts = Parts(server.url)
    waiting = iter(enumerate(due))

    async def add() -> None:
        for at, moment in waiting:
            await parts.add(task(f"t{at}", due=moment))

    async with parts.reachable(), asyncio.TaskGroup() as adders:
        for _ in range(ADDED_AT_A_TIME):
            adders.create_task(add())
