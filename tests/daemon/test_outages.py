"""The server gone, restarted, forgetful, cut off: no crash, no loss, nothing early, no busy loop, few words."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from structlog.testing import capture_logs

from later.core.task import Status
from tests.acceptance.api import Api
from tests.acceptance.sink import Sink, sink
from tests.daemon.parts import Parts, Recorder, lasting, plain, task
from tests.program import Program, installed
from tests.proxy import between
from tests.servers import served
from tests.waiting import wait_until

GONE_S = 10.0


@dataclass(frozen=True)
class House:
    """A real daemon, where its tasks arrive, and how its server goes and comes back."""

    program: Program
    arrivals: Sink
    go: Callable[[], None]
    come_back: Callable[[], None]

    @property
    def api(self) -> Api:
        return Api(self.program.state / "api.sock")

    def cpu_s(self) -> float:
        """The processor time that the daemon has used."""
        assert self.program.daemon is not None
        fields = Path(f"/proc/{self.program.daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_ten_seconds_without_a_server() -> None:
    with one_whose_server_freezes() as frozen, one_whose_server_is_killed() as killed:
        async with anyio.create_task_group() as both:
            both.start_soon(survives, frozen)
            both.start_soon(survives, killed)


async def survives(house: House) -> None:
    due = {f"{at}": 300 * at for at in range(1, 41)}  # the last ones when the server is back
    for each, ms in due.items():
        house.api.add(id=each, message="note", action="sink", at=in_ms(ms))
    await wait_until(lambda: len(house.arrivals.lines("done")) >= 3)
    house.go()
    arrived, worked, began = len(house.arrivals.lines("begun")), house.cpu_s(), time.monotonic()
    refused = await anyio.to_thread.run_sync(
        lambda: house.api.ask("POST", "/v1/tasks", {"message": "now?", "in": "1s"})
    )
    assert refused.status == 503
    await anyio.sleep(GONE_S - (time.monotonic() - began))
    worked = house.cpu_s() - worked
    assert len(house.arrivals.lines("begun")) <= arrived + 1  # one may have been claimed just before
    house.come_back()
    await wait_until(lambda: len(house.arrivals.lines("done")) >= len(due))
    done = house.arrivals.lines("done")
    assert Counter(line["id"] for line in done) == dict.fromkeys(due, 1)
    assert [line["id"] for line in house.arrivals.lines("begun") if line["at"] < line["due"]] == []
    told = Counter(event["event"] for event in house.program.events())
    assert (told["store_lost"], told["store_back"]) == (1, 1)
    assert worked < GONE_S / 10
    assert house.program.stop() == 0


@contextmanager
def one_whose_server_freezes() -> Iterator[House]:
    with sink() as arrivals, installed(**arrivals.settings) as program:
        program.start()
        pid = program.server_pid()
        assert pid is not None
        try:
            yield House(
                program,
                arrivals,
                go=lambda: os.kill(pid, signal.SIGSTOP),
                come_back=lambda: os.kill(pid, signal.SIGCONT),
            )
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def one_whose_server_is_killed() -> Iterator[House]:
    with (
        served("valkey", appendonly="yes", appendfsync="always") as server,
        sink() as arrivals,
        installed(**arrivals.settings, LATER_REDIS_URL=server.url) as program,
    ):
        program.start()
        yield House(program, arrivals, go=server.end, come_back=server.start)


def test_the_embedded_server_is_killed_again_and_again() -> None:
    with sink() as arrivals, installed(**arrivals.settings) as program:
        program.start()
        api = Api(program.state / "api.sock")
        for at in range(40):
            api.add(id=f"{at}", message="note", action="sink", at=in_ms(500 + 50 * at))
        for killed in range(2):
            arrivals.wait_for("done", 10 + 10 * killed)
            server = program.server_pid()
            assert server is not None
            os.kill(server, signal.SIGKILL)
            program.wait_for_log("embedded_server_started", 2 + killed)
        arrivals.wait_for("done", 40)
        assert Counter(line["id"] for line in arrivals.lines("done")) == {f"{at}": 1 for at in range(40)}
        assert [line["id"] for line in arrivals.lines("begun") if line["at"] < line["due"]] == []
        told = Counter(event["event"] for event in program.events())
        assert told["embedded_server_died"] == 2
        assert told["store_lost"] == told["store_back"] <= 2
        assert program.stop() == 0


async def test_a_server_that_forgets_its_scripts_is_told_them_again(url: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder)
    with capture_logs() as logs:
        async with daemon.running(), plain(url) as server:
            begin = daemon.store.now()
            await daemon.add(*(task(f"{at}", due=begin + 10 * at) for at in range(100)))
            while daemon.store.now() < begin + 1000:
                await server.script_flush()
                await anyio.sleep(0.02)
            assert await daemon.settled(100) == {Status.COMPLETED: 100}
    assert set(recorder.times.values()) == {1}
    assert "store_lost" not in [entry["event"] for entry in logs]


async def test_connections_that_are_cut_are_made_again(url: str) -> None:
    recorder = Recorder(lasting(0.01))
    daemon = Parts(url, recorder)
    with capture_logs() as logs:
        async with daemon.running(), plain(url) as server:
            begin = daemon.store.now() + 200
            await daemon.add(*(task(f"{at}", due=begin + 10 * at) for at in range(100)))
            while daemon.store.now() < begin + 1000:
                await server.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await anyio.sleep(0.1)
            await wait_until(lambda: len(recorder.times) == 100)
            await wait_until(lambda: daemon.pool.attempts == [])
            assert Counter([one.task.id for one in await daemon.past()]) == {f"{at}": 1 for at in range(100)}
    assert set(recorder.times.values()) == {1}
    assert [start.task.id for start in recorder.starts if start.early_ms > 0] == []
    told = [entry["event"] for entry in logs if entry["event"] in ("store_lost", "store_back")]
    assert told == ["store_lost", "store_back"] * (len(told) // 2)


async def test_replies_that_are_late_or_lost_do_no_harm(url: str) -> None:
    recorder = Recorder(lasting(0.02))
    async with between(url) as line:
        daemon = Parts(line.url, recorder)
        async with daemon.running():
            begin = daemon.store.now() + 300
            await daemon.add(*(task(f"{at}", due=begin + 15 * at) for at in range(60)))
            line.delay_s = 0.04
            while daemon.store.now() < begin + 900:
                await anyio.sleep(0.11)
                line.drop()
            await wait_until(lambda: len(recorder.finished) == 60 and daemon.pool.attempts == [])
            line.delay_s = 0
            assert Counter([one.task.id for one in await daemon.past()]) == {f"{at}": 1 for at in range(60)}
    assert set(recorder.times.values()) == {1}
    assert {start.task.crashes for start in recorder.starts} == {0}
    assert [start.task.id for start in recorder.starts if start.early_ms > 0] == []


async def test_after_an_outage_the_daemon_hears_of_sooner_tasks_again(url: str) -> None:
    recorder = Recorder()
    daemon = Parts(url, recorder)
    async with daemon.running(), plain(url) as server:
        await daemon.add(task("far", due=daemon.store.now() + 3_600_000))
        await server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await server.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for at in range(3):
            await wait_until(lambda: listens(server))
            await daemon.add(task(f"{at}"))
            await daemon.settled(at + 1, within=5)


async def listens(server: object) -> bool:
    return dict(await server.pubsub_numsub("later:{0}:wake"))["later:{0}:wake"] == 1  # type: ignore[attr-defined]


def in_ms(delay: int) -> str:
    """RFC 3339, so many milliseconds from now."""
    moment = time.time() + delay / 1000
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment * 1000) % 1000:03d}Z"
