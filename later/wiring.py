"""The only place where concrete parts are chosen and joined."""

from __future__ import annotations

import os
import random
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TextIO
from urllib.parse import urlsplit

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from later import __version__, logs
from later.actions.base import PermanentFailure, TemporaryFailure
from later.actions.desktop import DesktopAction
from later.actions.email import EmailAction
from later.actions.registry import Registry, Surroundings
from later.api.app import create_app
from later.api.house import House
from later.api.principal import PEER, Gate
from later.api.server import Server
from later.archive.archive import Archive
from later.archive.markers import Markers
from later.archive.writer import Writer
from later.client import Client, Defaults
from later.clock import Clock
from later.core.errors import StoreUnavailable, Unavailable
from later.daemon import doctor
from later.daemon.diary import Diary
from later.daemon.leases import Leases
from later.daemon.manager import Manager
from later.daemon.patience import Patience
from later.daemon.performer import Performer
from later.daemon.pool import Pool
from later.daemon.serve import Loop, serve
from later.daemon.settler import Settler
from later.daemon.suspects import Suspects
from later.daemon.systemd import Notifier
from later.daemon.worker import Worker
from later.settings import Settings
from later.store import directory
from later.store.embedded import EmbeddedServer
from later.store.redis import RedisStore

STALLED_S = 60.0
STOP_S = 40.0
"""What stopping may take beyond the grace period: last settlements, open requests, the embedded server."""

log = structlog.get_logger()

Visitor = Callable[[Settings], Awaitable[None]]


class Engine:
    """Store, archive, actions and clients: all that is the same with and without a daemon."""

    def __init__(
        self, settings: Settings, *, url: str, where: str, default_action: str = "inbox", audience: TextIO | None = None
    ) -> None:
        self.settings = settings
        self.where = where
        self.clock = Clock()
        self.rng = random.SystemRandom()
        self.store = RedisStore(
            url,
            clock=self.clock,
            holder=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
            own_queues=frozenset(settings.queues),
            partitions=settings.partitions,
            lease=settings.lease,
        )
        self.markers = Markers(settings.socket_path.parent / "unread")
        self.archive = Archive(settings.state_dir / "history.db", on_unread=self.markers.show)
        self.writer = Writer(self.store.outbox, self.archive, rng=self.rng)
        self.actions = Registry(Surroundings(settings=settings, now=self.store.now, audience=audience))
        self.defaults = Defaults(
            queue=settings.queues[0],
            action=settings.action or default_action,
            to=settings.to,
            zone=settings.zone,
        )

    def client(self, owner: str) -> Client:
        return Client(
            owner,
            store=self.store,
            archive=self.archive,
            writer=self.writer,
            actions=self.actions,
            defaults=self.defaults,
            rng=self.rng,
        )

    def gate(self) -> Gate:
        token = self.settings.token
        return Gate(token=token.get_secret_value() if token else None, token_owner=self.settings.owner)


async def run(settings: Settings, *, audience: TextIO | None = None, visitor: Visitor | None = None) -> int:
    """The daemon, until it is told to stop; returns the exit status.

    `audience` is a terminal that somebody watches; `visitor` is called once everything is up.
    """
    logs.configure(settings.log, settings.log_level)
    async with AsyncExitStack() as house:
        embedded = None
        if settings.redis_url is None:
            embedded = EmbeddedServer(settings.state_dir, clock=Clock())
            await house.enter_async_context(embedded.running())
        else:
            directory.make_private(settings.state_dir)
            house.enter_context(directory.only_daemon(settings.state_dir))
        engine = _engine(settings, embedded, default_action=await _default_action(settings), audience=audience)
        await house.enter_async_context(engine.store.session())
        await _reach(engine)
        await house.enter_async_context(engine.archive.session())
        engine.markers.renew(await engine.archive.unread_owners())
        return await _serve(engine, embedded, visitor)


async def ask(
    settings: Settings, method: str, path: str, body: Mapping[str, Any] | None
) -> tuple[int, Mapping[str, Any]]:
    """One request to the API without a daemon, in this process; the store must be somebody's Redis."""
    import httpx2

    logs.configure(settings.log, "error")
    # The caller's desktop is not the one of the daemon that will perform it.
    engine = _engine(settings, None, default_action="email" if _mail_can_go_out(settings) else "inbox")
    async with engine.store.session():
        try:
            await engine.store.open()
        except StoreUnavailable:
            raise StoreUnavailable(f"{engine.where} does not answer; check LATER_REDIS_URL, or try again") from None
        app = create_app(_house(engine, pool=None, managers=[]))
        peer = (f"{PEER}{os.getuid()}", 0)
        transport = httpx2.ASGITransport(app=app, client=peer)
        async with httpx2.AsyncClient(transport=transport, base_url="http://later") as http:
            answer = await http.request(method, path, json=body)
            return answer.status_code, answer.json() if answer.content else {}


def _engine(
    settings: Settings, embedded: EmbeddedServer | None, *, default_action: str, audience: TextIO | None = None
) -> Engine:
    engine = partial(Engine, settings, default_action=default_action, audience=audience)
    if embedded is not None:
        return engine(url=embedded.url, where=embedded.description)
    assert settings.redis_url is not None
    url = settings.redis_url.get_secret_value()
    return engine(url=url, where=f"Redis at {_without_secrets(url)}")


async def _reach(engine: Engine) -> None:
    """Wait for a store that does not answer yet; one line says so, one that it has come."""
    patience = Patience(engine.rng)
    while True:
        try:
            return await engine.store.open()
        except StoreUnavailable:
            await patience.pause()


async def _serve(engine: Engine, embedded: EmbeddedServer | None, visitor: Visitor | None) -> int:
    settings, store = engine.settings, engine.store
    settler = Settler(store, engine.rng)
    worker = Worker(
        store=store,
        performer=Performer(engine.actions, timeout=settings.timeout_seconds),
        settler=settler,
        policy=settings.retry.policy(),
        rng=engine.rng,
        diary=Diary(engine.clock),
    )
    pool = Pool(settings.workers, Suspects(worker, store, engine.rng).work)
    leases = Leases(store, pool, engine.rng, lease=settings.lease)
    if embedded is not None:
        await leases.recover(every=True)  # nobody else can have used this server, so whoever held them is dead
    managers = [
        Manager(
            lane,
            store=store,
            pool=pool,
            clock=engine.clock,
            rng=engine.rng,
            batch=settings.batch,
            lease=settings.lease,
            wakeup_before=settings.wakeup_before_seconds,
        )
        for lane in store.lanes
    ]
    server = Server(
        create_app(_house(engine, pool=pool, managers=managers)),
        path=settings.socket_path,
        host=settings.host,
        port=settings.port,
    )
    notifier = Notifier()
    lifelines: list[tuple[str, Loop]] = [
        ("record what came of tasks", settler.run),
        ("keep leases and recover lost ones", leases.run),
        ("archive what is past", engine.writer.run),
        ("hear of sooner tasks", store.listen),
    ]
    if embedded is not None:
        lifelines.insert(0, ("keep the embedded server alive", embedded.supervise))
    if notifier.watched:
        lifelines.append(("prove life to systemd", partial(notifier.watch, store, engine.rng)))
    services: list[tuple[str, Loop]] = [("serve the API", server.run)]
    services += [(f"perform what is due in {manager.lane.queue}", manager.run) for manager in managers]
    if visitor is not None:
        services.append(("receive a visitor", partial(_receive, visitor, settings)))

    def ready() -> None:
        log.info("started", version=__version__, store=engine.where, socket=str(settings.socket_path), pid=os.getpid())
        notifier.ready()

    return await serve(
        pool=pool,
        lifelines=lifelines,
        services=services,
        grace=settings.grace_seconds,
        ready=ready,
        stopping=partial(notifier.stopping, settings.grace_seconds + STOP_S),
    )


def _house(engine: Engine, *, pool: Pool | None, managers: list[Manager]) -> House:
    """What the API needs of this process."""

    async def stats() -> Mapping[str, Any]:
        workers = {"busy": len(pool.attempts), "places": pool.places} if pool else None
        return {
            "version": __version__,
            "pid": os.getpid(),
            "kept_in": engine.where,
            "tasks": await engine.store.counts(),
            "workers": workers,
            "overdue_ms": max([(await engine.store.overdue(lane)).late for lane in engine.store.lanes], default=0),
        }

    async def health() -> None:
        await engine.store.ping()
        idle = max((manager.idle_for() for manager in managers), default=0.0)
        if idle > STALLED_S:
            raise Unavailable(f"the manager has not looked at its tasks for {idle:.0f} s; restart the daemon")

    async def findings() -> list[doctor.Finding]:
        found = [*doctor.examine_store(await engine.store.describe())]
        found += doctor.examine_counts(await engine.store.counts())
        found += doctor.examine_clock(engine.store.now(), engine.clock.wall())
        found += doctor.examine_disk(engine.settings.state_dir)
        return found + await _examine_email(engine)

    return House(
        gate=engine.gate(),
        kept_in=engine.where,
        client=engine.client,
        stats=stats,
        health=health,
        findings=findings,
        stop=lambda: os.kill(os.getpid(), signal.SIGTERM),
    )


async def _receive(
    visitor: Visitor, settings: Settings, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED
) -> None:
    task_status.started()
    await visitor(settings)
    await anyio.sleep_forever()


async def _examine_email(engine: Engine) -> list[doctor.Finding]:
    """Whether the mail server lets us in, where there is one."""
    if engine.settings.email.host is None:
        return []
    action = engine.actions.get("email")
    assert isinstance(action, EmailAction)
    try:
        await action.verify()
    except (TemporaryFailure, PermanentFailure) as failure:
        return [{"subject": "email", "advice": str(failure)}]
    return []


async def _default_action(settings: Settings) -> str:
    """What is done with a thought that does not say: email where it can go out, else desktop, else the inbox."""
    if _mail_can_go_out(settings):
        return "email"
    desktop = DesktopAction(Surroundings(settings=settings, now=lambda: 0))
    try:
        return "desktop" if await desktop.watched() else "inbox"
    finally:
        await desktop.close()


def _mail_can_go_out(settings: Settings) -> bool:
    return bool(settings.email.host and settings.to)


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
