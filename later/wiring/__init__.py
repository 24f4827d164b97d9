"""The only place where concrete parts are chosen and joined."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TextIO

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from later import __version__, logs
from later.api.app import create_app
from later.api.principal import PEER
from later.api.server import Server
from later.clock import Clock
from later.core.errors import StoreUnavailable
from later.daemon import doctor
from later.daemon.patience import Patience
from later.daemon.serve import Loop, serve
from later.daemon.systemd import Notifier
from later.settings import Settings
from later.store import directory
from later.store.embedded import EmbeddedServer
from later.wiring import house
from later.wiring.crew import Crew, hire
from later.wiring.engine import Engine, choose, default_action, mail_can_go_out

log = structlog.get_logger()

Visitor = Callable[[Settings], Awaitable[None]]
Answering = Callable[[str, str, Mapping[str, str], bytes], Awaitable[tuple[int, bytes]]]
"""Answers a request (method, target, headers, body) by a status and a body."""

STOP_S = 40.0
"""What stopping may take beyond the grace period: last settlements, open requests, the embedded server."""


async def run(settings: Settings, *, audience: TextIO | None = None, visitor: Visitor | None = None) -> int:
    """The daemon, until it is told to stop; returns the exit status.

    `audience` is a terminal that somebody watches; `visitor` is called once everything is up.
    """
    logs.configure(settings.log, settings.log_level)
    async with AsyncExitStack() as stack:
        embedded = None
        if settings.redis_url is None:
            embedded = EmbeddedServer(settings.state_dir, clock=Clock())
            await stack.enter_async_context(embedded.running())
        else:
            directory.make_private(settings.state_dir)
            stack.enter_context(directory.only_daemon(settings.state_dir))
        engine = choose(settings, embedded, default_action=await default_action(settings), audience=audience)
        await stack.enter_async_context(engine.store.session())
        await _reach(engine)
        await stack.enter_async_context(engine.archive.session())
        engine.markers.renew(await engine.archive.unread_owners())
        return await _serve(engine, embedded, visitor)


@asynccontextmanager
async def answering(settings: Settings) -> AsyncIterator[Answering]:
    """The API without a daemon, in this process; the store must be somebody's Redis. Nothing is archived here."""
    import httpx2

    logs.configure(settings.log, "error")
    # The caller's desktop is not the one of the daemon that will perform it.
    engine = choose(settings, None, default_action="email" if mail_can_go_out(settings) else "inbox")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(engine.store.session())
        try:
            await engine.store.open()
        except StoreUnavailable as error:
            silent = error.message == StoreUnavailable.__doc__
            what = "does not answer" if silent else f"does not serve: {error.message}"
            raise StoreUnavailable(f"{engine.where} {what}; check LATER_REDIS_URL, or try again") from None
        peer = (f"{PEER}{os.getuid()}", 0)
        transport = httpx2.ASGITransport(app=create_app(house.build(engine, None)), client=peer)
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=transport, base_url="http://later"))

        async def answer(method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
            answered = await http.request(method, target, headers=headers, content=body)
            return answered.status_code, answered.content

        yield answer


async def _reach(engine: Engine) -> None:
    """Wait for a store that does not answer yet; say that, that it has come, and what is unsafe about it."""
    patience = Patience(engine.rng)
    while True:
        try:
            await engine.store.open()
            for finding in doctor.examine_store(await engine.store.describe(), replicas=engine.settings.redis_replicas):
                log.warning("store_unsafe", advice=finding["advice"])
            return
        except StoreUnavailable:
            await patience.pause()


async def _serve(engine: Engine, embedded: EmbeddedServer | None, visitor: Visitor | None) -> int:
    settings = engine.settings
    crew = hire(engine)
    if embedded is not None:
        await crew.leases.recover(every=True)  # nobody else can have used this server, so whoever held them is dead
    notifier = Notifier()

    def ready() -> None:
        log.info("started", version=__version__, store=engine.where, socket=str(settings.socket_path), pid=os.getpid())
        notifier.ready()

    return await serve(
        pool=crew.pool,
        lifelines=list(_lifelines(engine, embedded, crew, notifier)),
        services=list(_services(engine, crew, visitor)),
        grace=settings.grace_seconds,
        ready=ready,
        stopping=partial(notifier.stopping, settings.grace_seconds + STOP_S),
    )


def _lifelines(
    engine: Engine, embedded: EmbeddedServer | None, crew: Crew, notifier: Notifier
) -> Iterator[tuple[str, Loop]]:
    """What goes on until the last attempt is settled."""
    if embedded is not None:
        yield "keep the embedded server alive", embedded.supervise
    yield "record what came of tasks", crew.settler.run
    yield "keep leases and recover lost ones", crew.leases.run
    yield "archive what is past", engine.writer.run
    yield "hear of sooner tasks", engine.store.listen
    if notifier.watched:
        yield "prove life to systemd", partial(notifier.watch, engine.store, engine.rng)


def _services(engine: Engine, crew: Crew, visitor: Visitor | None) -> Iterator[tuple[str, Loop]]:
    """What takes work in, and ends first."""
    settings = engine.settings
    app = create_app(house.build(engine, crew))
    server = Server(app, path=settings.socket_path, host=settings.host, port=settings.port)
    yield "serve the API", server.run
    for manager in crew.managers:
        yield f"perform what is due in {manager.lane.queue}", manager.run
    if visitor is not None:
        yield "receive a visitor", partial(_receive, visitor, settings)


async def _receive(
    visitor: Visitor, settings: Settings, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED
) -> None:
    task_status.started()
    await visitor(settings)
    await anyio.sleep_forever()
