"""Chooses and joins what is the same with and without a daemon: store, archive, actions and clients."""

from __future__ import annotations

import os
import random
import secrets
import socket
from functools import partial
from typing import TextIO
from urllib.parse import urlsplit

from later.actions.desktop import DesktopAction
from later.actions.registry import Registry, Surroundings
from later.api.principal import Gate
from later.archive.archive import Archive
from later.archive.markers import Markers
from later.archive.writer import Writer
from later.client import Client, Defaults
from later.clock import Clock
from later.moving import Moving
from later.settings import Settings
from later.store.embedded import EmbeddedServer
from later.store.redis import RedisStore


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
            replicas=settings.redis_replicas,
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

        self.moving = Moving(store=self.store, archive=self.archive, writer=self.writer, actions=self.actions)

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


def choose(
    settings: Settings, embedded: EmbeddedServer | None, *, default_action: str, audience: TextIO | None = None
) -> Engine:
    """The engine on our own server, or on the one that the settings name."""
    engine = partial(Engine, settings, default_action=default_action, audience=audience)
    if embedded is not None:
        return engine(url=embedded.url, where=embedded.description)
    assert settings.redis_url is not None
    url = settings.redis_url.get_secret_value()
    return engine(url=url, where=f"Redis at {_without_secrets(url)}")


async def default_action(settings: Settings) -> str:
    """What is done with a thought that does not say: email where it can go out, else desktop, else the inbox."""
    if mail_can_go_out(settings):
        return "email"
    desktop = DesktopAction(Surroundings(settings=settings, now=lambda: 0))
    try:
        return "desktop" if await desktop.watched() else "inbox"
    finally:
        await desktop.close()


def mail_can_go_out(settings: Settings) -> bool:
    return bool(settings.email.host and settings.to)


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
