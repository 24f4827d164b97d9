"""A server that loads, is full, or cannot write its file, under a daemon at work: what was acknowledged is done."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import anyio
import pytest

from tests.acceptance.api import Answer, Api
from tests.acceptance.sink import Sink, sink
from tests.program import Program, installed
from tests.servers import KINDS, Server, served
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

LOADING_S = 5.0
OTHERS = 20_000
"""Keys of somebody else, to load; now and then in between a server that loads looks who asks."""
ROOM_BYTES = 1_000_000
LARGE = "note " + "b" * 60_000


class House:
    """A real daemon on somebody's server, where its tasks arrive, and what it was told and has said."""

    def __init__(self, server: Server, program: Program, arrivals: Sink) -> None:
        self.server = server
        self.program = program
        self.arrivals = arrivals
        self.acknowledged: set[str] = set()

    @property
    def api(self) -> Api:
        return Api(self.program.state / "api.sock")

    def add(self, task_id: str, message: str = "note", *, seconds: int = 0) -> Answer:
        """One try to add a task that is due in so many seconds."""
        task = {"id": task_id, "message": message, "action": "sink", "in": f"{seconds}s"}
        answer = self.api.ask("POST", "/v1/tasks", task)
        if answer.status == 201:
            self.acknowledged.add(task_id)
        return answer

    def trouble(self) -> str | None:
        """What the daemon says of its health; None if it is well."""
        answer = self.api.ask("GET", "/health")
        return None if answer.status == 200 else str(answer.body["detail"])

    def ids(self, kind: str) -> Counter[str]:
        return Counter(line["id"] for line in self.arrivals.lines(kind))

    def completed(self) -> Counter[str]:
        """What has come to its end, by the daemon's own records."""
        return Counter(one["id"] for one in self.api.all("/v1/history") if one["status"] == "completed")

    def told(self) -> Counter[str]:
        return Counter(event["event"] for event in self.program.events())


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def house(kind: str, **rules: str) -> Iterator[House]:
    with (
        served(kind, **rules) as server,
        sink() as arrivals,
        installed(**arrivals.settings, LATER_REDIS_URL=server.url) as program,
    ):
        program.start()
        it = House(server, program, arrivals)
        yield it
        assert program.stop() == 0
        assert it.told()["store_lost"] == it.told()["store_back"] <= 2


def test_a_server_that_loads_is_waited_for(kind: str) -> None:
    with house(kind, appendonly="yes", appendfsync="always") as it:
        for at in range(40):
            it.add(f"{at}", seconds=1 + at // 10)
        it.server.ask("EVAL", "for i = 1, ARGV[1] do redis.call('SET', 'other:' .. i, i) end", 0, OTHERS)
        it.arrivals.wait_for("done", 2)
        it.server.end()
        it.server.start(wait=False, key_load_delay=str(round(LOADING_S * 1e6 / OTHERS)))
        said: list[tuple[str, str]] = []
        while (answer := it.add(f"new-{len(said)}", seconds=1)).status == 503:
            said.append((answer.body["detail"], str(it.trouble())))
        assert answer.status == 201
        loading = [["LOADING" in words for words in both] for both in said]
        assert all(any(each) for each in zip(*loading, strict=True)), said
        until(lambda: it.completed() == dict.fromkeys(it.acknowledged, 1))
        assert it.ids("begun") == dict.fromkeys(it.acknowledged, 1)
        assert it.trouble() is None


def test_a_full_server_refuses_adds_until_its_queue_is_drained(kind: str) -> None:
    with house(kind, appendonly="yes", appendfsync="everysec") as it:
        it.add("first")
        until(lambda: it.completed() == {"first": 1})
        room = int(dict(it.server.ask("INFO", "memory"))["used_memory"]) + ROOM_BYTES  # type: ignore[call-overload]
        it.server.ask("CONFIG", "SET", "maxmemory", room)
        while (answer := it.add(f"{len(it.acknowledged)}", LARGE, seconds=4)).status == 201:
            assert len(it.acknowledged) < ROOM_BYTES / len(LARGE) + 2
        assert answer.status == 503
        assert answer.body["detail"].startswith("The store is full, so nothing new is kept; make room")
        assert it.trouble() is None  # what it has been given it performs
        until(lambda: it.completed() == dict.fromkeys(it.acknowledged, 1))
        until(lambda: it.add("afterwards").status == 201)
        until(lambda: it.completed() == dict.fromkeys(it.acknowledged, 1))
        assert it.ids("begun") == dict.fromkeys(it.acknowledged, 1)


def test_while_the_disk_is_full_completions_are_kept_until_they_can_be_recorded(kind: str) -> None:
    with house(kind, appendonly="yes", appendfsync="everysec") as it:
        for at in range(10):
            it.add(f"running-{at}", "wait")
            it.add(f"waiting-{at}", seconds=4)
        it.arrivals.wait_for("begun", 10)
        fill_disk(it.server)
        until(lambda: it.add(f"{len(it.acknowledged)}", seconds=4).status == 503)
        it.arrivals.open_gate()
        it.arrivals.wait_for("done", 10)
        until(lambda: "MISCONF" in str(it.trouble()))
        anyio.run(anyio.sleep, 4)  # beyond the time of those that wait
        assert it.add("refused").body["detail"].startswith("the store cannot serve now: MISCONF ")
        assert len(it.ids("begun")) == 10
        assert it.completed() == {}
        free_disk(it.server)
        until(lambda: it.completed() == dict.fromkeys(it.acknowledged, 1))
        assert it.ids("begun") == dict.fromkeys(it.acknowledged, 1)
        assert it.trouble() is None
        assert it.add("afterwards").status == 201
        it.server.end()
        it.server.start()
        until(lambda: it.completed() == dict.fromkeys(it.acknowledged, 1))


def test_a_server_that_ends_as_its_disk_is_full_has_kept_what_it_acknowledged(kind: str) -> None:
    """With `appendfsync always` it cannot go on, for it would have to take back what it has answered."""
    with house(kind, appendonly="yes", appendfsync="always") as it:
        for at in range(10):
            it.add(f"running-{at}", "wait")
        it.arrivals.wait_for("begun", 10)
        fill_disk(it.server)
        until(lambda: it.add(f"{len(it.acknowledged)}", seconds=2).status == 503)
        it.server.wait()
        it.arrivals.open_gate()
        it.arrivals.wait_for("done", 10)
        assert it.trouble() is not None
        it.server.start()
        until(lambda: it.completed() == dict.fromkeys(it.acknowledged, 1))
        assert it.ids("begun") == dict.fromkeys(it.acknowledged, 1)
        assert it.trouble() is None


def fill_disk(server: Server) -> None:
    """From now on no file of the server may grow by more than a few commands."""
    largest = max(path.stat().st_size for path in (server.home / "appendonlydir").iterdir())
    _, most = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (largest + 2000, most))


def free_disk(server: Server) -> None:
    _, most = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (most, most))


def until(condition: Callable[[], bool]) -> None:
    """`wait_until`, outside of an event loop."""
    anyio.run(partial(wait_until, condition, within=20))
