"""A destination outside of every daemon: a real SMTP server in a thread of its own, which notes each arrival."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes

from aiosmtpd.smtp import SMTP, Envelope, Session

START_S = 10.0


@dataclass(frozen=True)
class Arrival:
    """One mail: whose, from whom, under which claim, and when by this machine's clock."""

    text: str
    delivery_id: str
    claim: int
    at: float
    sender: str = ""


Answer = Callable[[Arrival], Awaitable[str]]


def taking_a_while(rng: random.Random, longest_s: float) -> Answer:
    """Takes every mail, and up to so many seconds to say so: in that while its sender may die."""

    async def answer(arrival: Arrival) -> str:
        await asyncio.sleep(rng.uniform(0, longest_s))
        return "250 taken"

    return answer


class Mailbox:
    """Notes every mail, then answers."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._arrivals: list[Arrival] = []
        self.port = 0

    @property
    def settings(self) -> Mapping[str, str]:
        """What a daemon must be told to use it."""
        return {
            "LATER_ACTION": "email",
            "LATER_TO": "ada@example.org",
            "LATER_EMAIL__HOST": "127.0.0.1",
            "LATER_EMAIL__PORT": str(self.port),
            "LATER_EMAIL__SECURITY": "none",
        }

    @property
    def arrivals(self) -> list[Arrival]:
        return list(self._arrivals)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        at = time.time() * 1000
        mail = message_from_bytes(bytes(envelope.content or b""))
        arrival = Arrival(
            text=b64decode(mail.get_payload()).decode(),
            delivery_id=mail["Message-ID"].strip("<>").partition("@")[0],
            claim=int(mail["X-Later-Claim"]),
            at=at,
            sender=envelope.mail_from or "",
        )
        self._arrivals.append(arrival)
        return await self._answer(arrival)

    async def serve(self, ready: threading.Event, enough: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(self, loop=loop), "127.0.0.1", 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await enough.wait()


@contextmanager
def mailbox(answer: Answer) -> Iterator[Mailbox]:
    """An empty one, which answers so."""
    mailbox, ready, enough = Mailbox(answer), threading.Event(), asyncio.Event()
    runner = asyncio.Runner()
    loop = runner.get_loop()

    def take_mail() -> None:
        with runner:
            runner.run(mailbox.serve(ready, enough))

    thread = threading.Thread(target=take_mail, name="take mail")
    thread.start()
    try:
        assert ready.wait(START_S)
        yield mailbox
    finally:
        loop.call_soon_threadsafe(enough.set)
        thread.join(START_S)
