"""Several daemons on one server: each task is performed once, and whoever dies, freezes or is cut off is replaced."""

from __future__ import annotations

import shutil
import signal
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from later.core.task import Millis
from later.daemon.diary import REFUSED
from tests.acceptance.fleet import busy, complaints, fill, fleet, nothing_is_left, outcomes, past, refused
from tests.acceptance.sink import sink
from tests.program import Program
from tests.proxy import Proxy
from tests.servers import Server, served
from tests.waiting import wait_until
from tests.wallclock import wallclock

DAEMONS = 10
TASKS = 10_000
START_S = 5.0
"""So long before the first task is due all of them are added, on a machine that is not busy."""
WORKERS = 50
LEASE_S = 3.0
HOUR_S = 3600.0
LATE_MS = 250
"""What a busy machine may be late by, mostly; a clock that was believed would make it an hour."""
TAKEN_OVER_MS = 4 / 3 * LEASE_S * 1000 + 4_000
"""The lease, a third of it until somebody looks, and what a busy machine takes."""


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with served(getattr(request, "param", "valkey")) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize(("size", "server"), [(2, "valkey"), (5, "redis"), (DAEMONS, "valkey")], indirect=["server"])
async def test_every_task_is_performed_once_by_one_of_them(size: int, server: Server) -> None:
    with sink() as arrivals:
        async with fleet(arrivals, [{"LATER_REDIS_URL": server.url}] * size) as daemons:
            due = dict.fromkeys((f"t{at}" for at in range(TASKS)), in_ms(START_S))
            await fill(server.url, due, message="pass")
            await wait_until(lambda: nothing_is_left(server), within=60)
            lines = arrivals.lines()
            assert Counter(line["id"] for line in lines) == dict.fromkeys(due, 1)
            assert early(lines) == []
            assert {line["pid"] for line in lines} == {daemon.daemon.pid for daemon in daemons}
            await all_is_past(daemons, due)
            counted = [await outcomes(daemon) for daemon in daemons]
            assert sum(each["completed"] for each in counted) == TASKS
            assert sum(each[name] for each in counted for name in REFUSED) == 0
            assert [complaints(daemon) for daemon in daemons] == [[]] * size
            assert [daemon.stop() for daemon in daemons] == [0] * size


@pytest.mark.slow
async def test_the_others_take_over_within_a_lease(server: Server) -> None:
    with sink() as arrivals, way_to(server.socket) as way:
        async with AsyncExitStack() as line:
            await line.enter_async_context(way.running())
            settings = {"LATER_LEASE_SECONDS": f"{LEASE_S:g}", "LATER_WORKERS": str(WORKERS)}
            urls = [server.url] * (DAEMONS - 1) + [way.url]
            async with fleet(arrivals, [{**settings, "LATER_REDIS_URL": url} for url in urls]) as daemons:
                start = in_ms(START_S)
                due = {f"t{at:05}": start + 2 * at for at in range(TASKS // 2)}
                await fill(server.url, due, message="pass 0.5")
                await wait_until(lambda: server.ask("ZCARD", "later:{0}:due:default") < len(due) * 3 // 4, within=60)
                victims = {"killed": daemons[0], "frozen": daemons[1], "cut off": daemons[-1]}
                await wait_until(lambda: all_at_work(victims.values()), within=60)
                struck = in_ms(0)
                await strike(victims, line)
                await anyio.sleep(2 * LEASE_S)
                await mend(victims, line, way)
                await wait_until(lambda: nothing_is_left(server), within=60)
                await judge(arrivals.lines(), due, daemons, victims, struck)


@pytest.mark.slow
async def test_daemons_whose_clocks_are_an_hour_apart_are_neither_early_nor_late(server: Server) -> None:
    with sink() as arrivals, wallclock() as slow, wallclock() as fast:
        slow.step(-HOUR_S)
        fast.step(HOUR_S)
        clocks: list[Mapping[str, str]] = [slow.env, {}, fast.env]
        async with fleet(arrivals, [{**clock, "LATER_REDIS_URL": server.url} for clock in clocks]) as daemons:
            start = in_ms(START_S)
            due = {f"t{at}": start + 5 * at for at in range(1_000)}
            await fill(server.url, due, message="pass")
            await wait_until(lambda: nothing_is_left(server), within=60)
            lines = arrivals.lines()
            ahead = {
                daemon.daemon.pid: hours * HOUR_S * 1000 for hours, daemon in zip((-1, 0, 1), daemons, strict=True)
            }
            late = [line["at"] - ahead[line["pid"]] - line["due"] for line in lines]
            print(f"late: median {statistics.median(late):.1f} ms, {min(late):.1f} to {max(late):.1f}")
            assert Counter(line["id"] for line in lines) == dict.fromkeys(due, 1)
            assert {line["pid"] for line in lines} == ahead.keys()
            assert min(late) >= 0
            assert statistics.median(late) < LATE_MS
            assert max(late) < 10 * LATE_MS
            assert [complaints(daemon) for daemon in daemons] == [[]] * len(daemons)


async def all_at_work(daemons: Iterable[Program]) -> bool:
    return all([await busy(daemon) >= WORKERS // 10 for daemon in daemons])


async def strike(victims: Mapping[str, Program], line: AsyncExitStack) -> None:
    for fault, victim in victims.items():
        match fault:
            case "killed":
                victim.daemon.kill()
            case "frozen":
                victim.daemon.send_signal(signal.SIGSTOP)
            case "cut off":
                await line.aclose()


async def mend(victims: Mapping[str, Program], line: AsyncExitStack, way: Proxy) -> None:
    for fault, victim in victims.items():
        match fault:
            case "killed":
                victim.daemon.wait()
            case "frozen":
                victim.daemon.send_signal(signal.SIGCONT)
            case "cut off":
                await line.enter_async_context(way.running())


async def judge(
    lines: Sequence[Mapping[str, Any]],
    due: Mapping[str, Millis],
    daemons: Sequence[Program],
    victims: Mapping[str, Program],
    struck: Millis,
) -> None:
    """Nothing lost or early; performed twice is only what a victim had in hand, and soon; its last word was refused."""
    by_task = defaultdict(list)
    for line in lines:
        by_task[line["id"]].append(line)
    assert by_task.keys() == due.keys()
    assert early(lines) == []
    twice = {task_id: found for task_id, found in by_task.items() if len(found) > 1}
    in_hand = {fault: had_in_hand(victim, twice) for fault, victim in victims.items()}
    assert sum(map(len, in_hand.values())) == len(twice)
    for fault, victim in victims.items():
        assert [line["at"] - struck for line in in_hand[fault] if line["at"] - struck > TAKEN_OVER_MS] == []
        await its_last_words_are_refused(fault, victim, len(in_hand[fault]))
    assert [await refused(each) for each in daemons if each not in victims.values()] == [0] * (DAEMONS - len(victims))
    assert [complaints(daemon) for daemon in daemons] == [[]] * DAEMONS
    await all_is_past(daemons, due)


def had_in_hand(victim: Program, twice: Mapping[str, Sequence[Mapping[str, Any]]]) -> Sequence[Mapping[str, Any]]:
    """What it had begun when it was struck, and how others did it: at most once each."""
    mine = [found for found in twice.values() if victim.daemon.pid in {line["pid"] for line in found}]
    assert 1 <= len(mine) <= WORKERS
    assert {len(found) for found in mine} == {2}
    return [line for found in mine for line in found if line["pid"] != victim.daemon.pid]


async def its_last_words_are_refused(fault: str, victim: Program, count: int) -> None:
    async def counted() -> bool:
        return count <= await refused(victim) <= WORKERS

    match fault:
        case "killed":
            victim.start()  # it has none; what it had in its history is still there
        case _:  # the answer to a settlement may have been lost as well: then it is repeated, and refused
            await wait_until(counted)
    print(f"{fault}: {count} in hand, {await refused(victim)} refused")


async def all_is_past(daemons: Sequence[Program], due: Mapping[str, Millis]) -> None:
    """Each task is in the histories together, and in none of them twice."""
    kept = [await past(daemon) for daemon in daemons]
    assert set[str]().union(*kept) == due.keys()
    assert [max(each.values(), default=1) for each in kept] == [1] * len(daemons)


def early(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [line for line in lines if line["at"] < line["due"]]


def in_ms(seconds: float) -> Millis:
    """So many seconds from now."""
    return int((time.time() + seconds) * 1000)


@contextmanager
def way_to(server: Path) -> Iterator[Proxy]:
    """A way to this server that can be closed and opened again."""
    home = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    try:
        yield Proxy(server, home / "proxy.sock")
    finally:
        shutil.rmtree(home)
