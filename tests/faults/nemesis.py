"""Does to daemons, connections and server what the world does to them, as its seed says, and notes when."""

from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio
from anyio import to_thread

from tests.faults.cluster import LEASE_S, Cluster, Daemon
from tests.faults.events import Fault, Journal, now

SERVER = "server"
MINUTE_S = 60.0
STRAYS = "stray/"
"""The owner of records that nobody added, with the slash."""


class Nemesis:
    """Never two faults at a time on one daemon, nor on the server; several on different ones."""

    def __init__(
        self,
        cluster: Cluster,
        journal: Journal[Fault],
        rng: random.Random,
        *,
        kinds: Sequence[str],
        every_s: float,
    ) -> None:
        self._cluster = cluster
        self._journal = journal
        self._rng = rng
        self._kinds = kinds
        self._every_s = every_s
        self._server_turn = anyio.Lock()

    async def rage(self, seconds: float) -> None:
        """Inject faults for so long; returns when the last of them is over and all is whole again."""
        until = anyio.current_time() + seconds
        async with anyio.create_task_group() as faults:
            while anyio.current_time() < until:
                await anyio.sleep(self._rng.uniform(0.3, 1.7) * self._every_s)
                chance = random.Random(self._rng.random())
                kind = self._rng.choice(self._kinds)
                if kind in ON_A_DAEMON:
                    faults.start_soon(self._trouble_daemon, kind, self._rng.choice(self._cluster.daemons), chance)
                else:
                    faults.start_soon(self._trouble_server, kind, chance)

    async def _trouble_daemon(self, kind: str, daemon: Daemon, rng: random.Random) -> None:
        if not daemon.turn.locked():
            async with daemon.turn:
                await self._note(kind, daemon.name, partial(ON_A_DAEMON[kind], daemon, rng))

    async def _trouble_server(self, kind: str, rng: random.Random) -> None:
        if not self._server_turn.locked():
            async with self._server_turn:
                await self._note(kind, SERVER, partial(ON_THE_SERVER[kind], self._cluster, rng))

    async def _note(self, kind: str, target: str, fault: Callable[[], Awaitable[None]]) -> None:
        since = now()
        await fault()
        self._journal.note(Fault(kind=kind, target=target, since=since, until=now()))


async def _kill(daemon: Daemon, rng: random.Random) -> None:
    await daemon.end(signal.SIGKILL)
    await anyio.sleep(rng.uniform(0, 1))
    daemon.start()


async def _restart(daemon: Daemon, rng: random.Random) -> None:
    await daemon.end(signal.SIGTERM)
    await anyio.sleep(rng.uniform(0, 0.5))
    daemon.start()


async def _pause(daemon: Daemon, rng: random.Random) -> None:
    """For longer than its leases."""
    daemon.send(signal.SIGSTOP)
    await anyio.sleep(rng.uniform(1.1, 2) * LEASE_S)
    daemon.send(signal.SIGCONT)


async def _cut(daemon: Daemon, rng: random.Random) -> None:
    """Some requests are carried out, and their connections end without a reply."""
    for _ in range(rng.randint(5, 15)):
        daemon.proxy.cut_reply_to("EVAL")
        await anyio.sleep(rng.uniform(0.05, 0.3))


async def _reset(daemon: Daemon, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 5)):
        daemon.proxy.drop()
        await anyio.sleep(rng.uniform(0.05, 0.3))


async def _delay(daemon: Daemon, rng: random.Random) -> None:
    daemon.proxy.delay_s = rng.uniform(0.01, 0.15)
    await anyio.sleep(rng.uniform(1, 3))
    daemon.proxy.delay_s = 0


async def _stall(daemon: Daemon, rng: random.Random) -> None:
    """The connections stay and nothing passes; afterwards they are cut, or all that was sent arrives after all."""
    daemon.proxy.block()
    await anyio.sleep(rng.uniform(0.3, 2) * LEASE_S)
    if rng.random() < 0.5:
        daemon.proxy.drop()
    daemon.proxy.unblock()


async def _kill_server(cluster: Cluster, rng: random.Random) -> None:
    await to_thread.run_sync(cluster.server.end)
    await anyio.sleep(rng.uniform(0, 0.8))
    await to_thread.run_sync(cluster.server.start)


async def _pause_server(cluster: Cluster, rng: random.Random) -> None:
    cluster.server.send(signal.SIGSTOP)
    await anyio.sleep(rng.uniform(0.5, 2) * LEASE_S)
    cluster.server.send(signal.SIGCONT)


async def _flush(cluster: Cluster, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 5)):
        await cluster.ask("SCRIPT", "FLUSH")
        await anyio.sleep(rng.uniform(0.05, 0.3))


async def _disconnect(cluster: Cluster, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 3)):
        for kind in ("normal", "pubsub"):
            await cluster.ask("CLIENT", "KILL", "TYPE", kind)
        await anyio.sleep(rng.uniform(0.05, 0.5))


async def _fill(cluster: Cluster, rng: random.Random) -> None:
    """No memory is left, so that nothing new is kept; what is there must drain all the same."""
    await cluster.ask("CONFIG", "SET", "maxmemory", 1)
    await anyio.sleep(rng.uniform(0.3, 1.5))
    await cluster.ask("CONFIG", "SET", "maxmemory", 0)


async def _stray(cluster: Cluster, rng: random.Random) -> None:
    """Somebody else's strings lie where records should be, due as others are."""
    for _ in range(rng.randint(1, 5)):
        name = f"{STRAYS}{rng.getrandbits(40):x}"
        await cluster.ask("SET", f"later:{{0}}:task:{name}", "what is this")
        await cluster.ask("ZADD", "later:{0}:due:default", int(cluster.shown() + rng.uniform(0, 1000)), name)


async def _step(cluster: Cluster, rng: random.Random) -> None:
    """The server's clock goes forwards by a minute; or back by one, and forwards again after a while."""
    if rng.random() < 0.5:
        cluster.step_clock(-MINUTE_S)
        await anyio.sleep(rng.uniform(0.5, 2) * LEASE_S)
    cluster.step_clock(MINUTE_S)


ON_A_DAEMON = {
    "daemon killed": _kill,
    "daemon restarted": _restart,
    "daemon paused": _pause,
    "replies cut": _cut,
    "connections reset": _reset,
    "replies delayed": _delay,
    "connections stalled": _stall,
}
ON_THE_SERVER = {
    "server killed": _kill_server,
    "server paused": _pause_server,
    "scripts flushed": _flush,
    "clients killed": _disconnect,
    "memory full": _fill,
    "stray records": _stray,
    "clock stepped": _step,
}
KINDS = (*ON_A_DAEMON, *ON_THE_SERVER)
