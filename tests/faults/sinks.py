"""The other side: a real SMTP and a real HTTP server, outside of every daemon, that note each arrival and then answer.

A task's text says how it is to be answered: `WORD take=SECONDS busy=TIMES refuse=TIMES`; each delivery is first refused
and turned away so many times, and then taken.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.acceptance import mailbox
from tests.faults.events import Arrival, Journal, now

PLUGIN = '''
"""Posts a task to the other side, as a webhook does."""

import os

import httpx2

from later.actions.base import PermanentFailure, Receipt, TemporaryFailure


class PostAction:
    name = "post"

    def __init__(self, surroundings):
        limits = httpx2.Limits(max_connections=None)
        self._http = httpx2.AsyncClient(base_url=os.environ["SINK"], timeout=30, limits=limits, verify=False)

    def check(self, task):
        pass

    async def perform(self, task):
        headers = {"Delivery": task.delivery_id, "Claim": str(task.claim), "Daemon": os.environ["DAEMON"]}
        try:
            answer = await self._http.post("/", content=task.message, headers=headers)
        except httpx2.HTTPError as error:
            raise TemporaryFailure(repr(error)) from error
        if answer.status_code == 503:
            raise TemporaryFailure("busy")
        if answer.status_code == 410:
            raise PermanentFailure("refused")
        return Receipt(detail="taken", data={"claim": task.claim})
'''
METADATA = "Metadata-Version: 2.1\nName: later-post\nVersion: 1\n"
ENTRY_POINTS = "[later.actions]\npost = later_post:PostAction\n"

HTTP_STATUS = {"taken": 200, "busy": 503, "refused": 410}
SMTP_STATUS = {"taken": 250, "busy": 451, "refused": 550}


def text(word: str, *, take: float, busy: int, refuse: int) -> str:
    """What a task must say to be answered like this."""
    return f"{word} take={take:.3f} busy={busy} refuse={refuse}"


class Reception:
    """Notes what arrives, and says how it is to be answered."""

    def __init__(self, journal: Journal[Arrival]) -> None:
        self._journal = journal
        self._turned_away: Counter[str] = Counter()
        self._turn = threading.Lock()

    def receive(self, said: str, *, delivery: str, claim: int, daemon: str) -> tuple[str, float]:
        """The answer, and after how many seconds."""
        at = now()
        word, *rest = said.split()
        wish = dict(part.split("=") for part in rest)
        with self._turn:
            before = self._turned_away[delivery]
            refuse = before < int(wish["refuse"])
            busy = not refuse and before < int(wish["refuse"]) + int(wish["busy"])
            self._turned_away[delivery] += refuse or busy
        answer = "refused" if refuse else "busy" if busy else "taken"
        self._journal.note(Arrival(at=at, word=word, delivery=delivery, claim=claim, daemon=daemon, answer=answer))
        return answer, float(wish["take"])


class Sinks:
    """Both servers, and what a daemon must be told to use them."""

    def __init__(self, reception: Reception, home: Path) -> None:
        self._reception = reception
        self._plugin = home / "plugin"
        distribution = self._plugin / "later_post-1.dist-info"
        distribution.mkdir(parents=True)
        (self._plugin / "later_post.py").write_text(PLUGIN)
        (distribution / "METADATA").write_text(METADATA)
        (distribution / "entry_points.txt").write_text(ENTRY_POINTS)
        self._mail: Mapping[str, str] = {}
        self._post = ""

    def settings(self, daemon: str) -> dict[str, str]:
        """The daemon's name goes along as sender and header, so that an arrival tells who brought it."""
        return {
            **self._mail,
            "LATER_EMAIL__SENDER": f"{daemon}@example.org",
            "PYTHONPATH": str(self._plugin),
            "SINK": self._post,
            "DAEMON": daemon,
        }

    @contextmanager
    def open(self) -> Iterator[None]:
        server = self._http_server()
        thread = threading.Thread(target=lambda: server.serve_forever(0.05), name="take posts")
        thread.start()
        try:
            self._post = f"http://127.0.0.1:{server.server_address[1]}"
            with mailbox.mailbox(self._answer_mail) as mails:
                self._mail = mails.settings
                yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    async def _answer_mail(self, arrival: mailbox.Arrival) -> str:
        answer, seconds = self._reception.receive(
            arrival.text.strip(),
            delivery=arrival.delivery_id,
            claim=arrival.claim,
            daemon=arrival.sender.partition("@")[0],
        )
        await asyncio.sleep(seconds)
        return f"{SMTP_STATUS[answer]} {answer} {arrival.claim}"

    def _http_server(self) -> ThreadingHTTPServer:
        reception = self._reception

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                said = self.rfile.read(int(self.headers["Content-Length"])).decode()
                answer, seconds = reception.receive(
                    said,
                    delivery=self.headers["Delivery"],
                    claim=int(self.headers["Claim"]),
                    daemon=self.headers["Daemon"],
                )
                time.sleep(seconds)
                self.send_response(HTTP_STATUS[answer])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: object) -> None:
                """Nobody listens."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *words: object) -> None:
                """A daemon that was killed in the middle of a request is what this is for."""

        return Server(("127.0.0.1", 0), Handler)


@contextmanager
def sinks(home: Path, journal: Journal[Arrival]) -> Iterator[Sinks]:
    """Both, open until the end."""
    both = Sinks(Reception(journal), home)
    with both.open():
        yield both
