"""Several real daemons on one real server, each behind a proxy of its own, and somebody who restarts what dies."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import anyio
import redis
from anyio import to_thread

from tests.acceptance.api import Api
from tests.faults.events import Past, Step, now
from tests.faults.sinks import Sinks
from tests.program import Program, installed
from tests.proxy import Proxy, between
from tests.servers import Server, served
from tests.waiting import wait_until
from tests.wallclock import WallClock, wallclock

LEASE_S = 2.0
SETTINGS = {
    "LATER_LEASE_SECONDS": str(LEASE_S),
    "LATER_WORKERS": "24",
    "LATER_GRACE_SECONDS": "5",
    "LATER_RETRY__BASE": "1s",
    "LATER_RETRY__CAP": "1s",
}
DURABLE = {"appendonly": "yes", "appendfsync": "always"}
AHEAD_S = (0.0, 3600.0, -3600.0)
"""What the daemons' own clocks show more than this machine's."""


class Daemon:
    """One of them; whoever means to stop it holds `turn`, so that it is not restarted meanwhile."""

    def __init__(self, name: str, program: Program, proxy: Proxy) -> None:
        self.name = name
        self.program = program
        self.proxy = proxy
        self.turn = asyncio.Lock()
        self.exits: list[int] = []

    @property
    def socket(self) -> Path:
        return self.program.state / "api.sock"

    def start(self) -> None:
        self.program.start(wait=False)

    def send(self, number: signal.Signals) -> None:
        assert self.program.daemon is not None
        self.program.daemon.send_signal(number)

    async def answers(self) -> bool:
        """Whether its API does."""
        with suppress(OSError):
            return (await to_thread.run_sync(Api(self.socket).ask, "GET", "/health")).status == 200
        return False

    async def end(self, number: signal.Signals) -> None:
        """Send it this, and wait for its end."""
        self.send(number)
        while self._status() is None:
            await asyncio.sleep(0.01)

    async def keep(self) -> None:
        """Start it again when it has ended by itself, which is noted."""
        while True:
            await asyncio.sleep(0.2)
            async with self.turn:
                if (status := self._status()) is not None:
                    self.exits.append(status)
                    self.start()

    def _status(self) -> int | None:
        assert self.program.daemon is not None
        return self.program.daemon.poll()


class Cluster:
    """The daemons and their server, whose clock can be stepped; each daemon's clock is wrong in its own way."""

    def __init__(self, server: Server, clock: WallClock, daemons: Sequence[Daemon]) -> None:
        self.server = server
        self.daemons = daemons
        self.steps: list[Step] = []
        self._clock = clock

    def step_clock(self, seconds: float) -> None:
        """Set the server's clock forwards, or back."""
        since = now()
        self._clock.step(seconds)
        self.steps.append(Step(since=since, until=now(), offset=self._clock.ahead_s * 1000))

    def shown(self) -> float:
        """What the server's clock shows, in ms."""
        return now() + self._clock.ahead_s * 1000

    async def ask(self, *words: str | int) -> object:
        """One command, past all proxies."""
        return await to_thread.run_sync(lambda: self.server.ask(*words))

    async def at_rest(self, within: float) -> bool:
        """Whether nothing is pending or running any more, at the latest after so many seconds."""
        with anyio.move_on_after(within):
            while await self.ask("ZCARD", "later:{0}:due:default") or await self.ask(
                "ZCARD", "later:{0}:running:default"
            ):
                await asyncio.sleep(0.1)
            return True
        return False

    async def past(self) -> list[Past]:
        """Every row of every daemon's history."""
        rows: list[Past] = []
        for daemon in self.daemons:
            await wait_until(daemon.answers)
            rows += await to_thread.run_sync(_history, daemon)
        return rows

    async def keys(self) -> dict[str, Any]:
        """All that the server holds."""
        return await to_thread.run_sync(_dump, self.server)

    def told(self) -> Counter[str]:
        """What the daemons' logs say about tasks and leases, by event."""
        counts: Counter[str] = Counter()
        for daemon in self.daemons:
            for event in daemon.program.events():
                name = event["event"]
                if name == "tasks_settled":
                    counts.update({f"task_{key}": n for key, n in event.items() if isinstance(n, int)})
                else:
                    counts[name] += event.get("count", 1) if name == "leases_recovered" else 1
        return counts


@asynccontextmanager
async def cluster(sinks: Sinks, *, daemons: int, build: Path | None, kind: str = "valkey") -> AsyncIterator[Cluster]:
    """So many daemons, of this build (None: the one under test), all up."""
    async with anyio.create_task_group() as keepers:
        with ExitStack() as stack:
            clock = stack.enter_context(wallclock())
            server = stack.enter_context(served(kind, env=clock.env, **DURABLE))
            found = [
                await _daemon(stack, sinks, server, name=f"d{at}", ahead_s=ahead_s, build=build, group=keepers)
                for at, ahead_s in zip(range(daemons), cycle(AHEAD_S))
            ]
            for daemon in found:
                daemon.start()
            for daemon in found:
                await to_thread.run_sync(daemon.program.wait_for_log, "started")
                keepers.start_soon(daemon.keep)
            yield Cluster(server, clock, found)
            keepers.cancel_scope.cancel()
            for daemon in found:
                daemon.send(signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(stack.pop_all().close)


async def _daemon(
    stack: ExitStack,
    sinks: Sinks,
    server: Server,
    *,
    name: str,
    ahead_s: float,
    build: Path | None,
    group: anyio.abc.TaskGroup,
) -> Daemon:
    proxy: Proxy = await group.start(_proxied, server.url)
    clock = stack.enter_context(wallclock())
    clock.step(ahead_s)
    settings = {**SETTINGS, **sinks.settings(name), **clock.env, "LATER_REDIS_URL": proxy.url}
    if build is not None:
        settings["PYTHONPATH"] += f":{build}"
    return Daemon(name, stack.enter_context(installed(**settings)), proxy)


async def _proxied(url: str, *, task_status: anyio.abc.TaskStatus[Proxy]) -> None:
    async with between(url) as proxy:
        task_status.started(proxy)
        await anyio.sleep_forever()


def _history(daemon: Daemon) -> list[Past]:
    return [
        Past(
            task=row["id"],
            delivery=row["delivery_id"],
            status=row["status"],
            finished=row["finished_at"],
            claim=_claim(row["receipt"]),
        )
        for row in Api(daemon.socket).all("/v1/history")
    ]


def _claim(receipt: Mapping[str, Any] | None) -> int | None:
    """The claim under which it was performed: the plug-in says it, and so does the mail server's reply."""
    if not receipt:
        return None
    return int(receipt["claim"]) if "claim" in receipt else int(receipt["reply"].split()[-1])


def _dump(server: Server) -> dict[str, Any]:
    with redis.Redis(unix_socket_path=str(server.socket), decode_responses=True, protocol=2) as client:
        return {key: _value(client, key) for key in client.scan_iter(count=1000)}


def _value(client: redis.Redis, key: str) -> Any:
    match client.type(key):
        case "hash":
            return client.hgetall(key)
        case "zset":
            return dict(client.zrange(key, 0, -1, withscores=True))
        case "stream":
            return client.xlen(key)
        case _:
            return client.get(key)
