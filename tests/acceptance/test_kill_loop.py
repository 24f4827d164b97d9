"""kill -9 at random moments, of the daemon alone and of daemon and server together: nothing lost, nothing early."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
import redis

from tests.acceptance.api import Api
from tests.acceptance.mailbox import Arrival, Mailbox, mailbox, taking_a_while
from tests.program import Program, installed

TASKS = 2_400
FIRST = 600
"""Added before the first kill; the others while daemons are dying."""
KILLS_OF_THE_DAEMON = 34
KILLS_OF_BOTH = 6
WORKERS = 16
BYTES_OUTLIVE_MS = 1_000
"""A mail may be read, and noted, so long after the daemon that wrote it was killed."""
KEPT_FOR_GOOD = {"later:meta", "later:{0}:claims", "later:{0}:outbox"}


@dataclass
class Diary:
    """What is known outside of the daemons."""

    acknowledged: dict[str, str] = field(default_factory=dict)  # delivery id → task id
    meant_for: dict[str, float] = field(default_factory=dict)  # delivery id → ms
    unsure: set[str] = field(default_factory=set)  # ids of which some add had no answer
    kills: list[tuple[float, str]] = field(default_factory=list)  # when (ms), whom


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_nothing_is_lost_however_often_it_is_killed() -> None:
    rng = random.Random(20261122)
    diary = Diary()
    with mailbox(taking_a_while(random.Random(1), longest_s=0.2)) as mails, program(mails) as later:
        plan = ["daemon"] * KILLS_OF_THE_DAEMON + ["both"] * KILLS_OF_BOTH
        rng.shuffle(plan)
        later.start()
        with adding(later, diary, first=FIRST, until_s=3.0 * len(plan)):
            for whom in plan:
                kill_in_a_moment(later, diary, whom, rng)
                later.start(wait=False)
        later.wait_for_log("started")
        past = wait_for_the_end(later)
        left = keys_left(later)
        assert later.stop() == 0
    report = judge(diary, mails.arrivals)
    print(report)

    assert len(diary.acknowledged) >= TASKS
    assert report.lost == []
    assert report.early == []
    assert report.unexplained == []
    assert report.of_nobody == []
    assert report.stale == []
    assert max(report.duplicates.values(), default=0) <= 2 * WORKERS
    assert {past[each] for each in diary.acknowledged} == {1}
    assert set(past.values()) == {1}
    assert left <= KEPT_FOR_GOOD


def test_the_judge_sees_what_is_wrong() -> None:
    def arrival(delivery_id: str, at: float, claim: int, text: str = "") -> Arrival:
        return Arrival(text=text, delivery_id=delivery_id, claim=claim, at=at)

    diary = Diary(
        acknowledged={"fine": "a", "twice": "b", "never": "c", "odd": "d"},
        meant_for={"fine": 10_000, "twice": 10_000, "never": 10_000, "odd": 10_000},
        unsure={"e"},
        kills=[(15_000, "daemon"), (50_000, "both")],
    )
    early, again = arrival("odd", 9_999, 1), arrival("odd", 12_000, 2)
    first, second, third, fourth = (arrival("twice", at, 2) for at in (14_000, 15_900, 16_500, 18_500))
    unasked, unsure = arrival("nobody", 20_000, 9), arrival("perhaps", 20_000, 9, text="e")
    report = judge(diary, [early, again, arrival("fine", 10_000, 1), first, second, third, fourth, unasked, unsure])
    assert report.lost == ["never"]
    assert report.early == [early]
    assert report.duplicates == {0: 2}
    assert report.unexplained == [(early, again), (third, fourth)]
    assert report.stale == [(first, second), (second, third), (third, fourth)]
    assert report.of_nobody == [unasked]


@contextmanager
def program(mails: Mailbox) -> Iterator[Program]:
    settings = {"LATER_WORKERS": str(WORKERS), "LATER_LEASE_SECONDS": "10", **mails.settings}
    with installed(**settings) as later:
        yield later


@contextmanager
def adding(later: Program, diary: Diary, *, first: int, until_s: float) -> Iterator[None]:
    """Add the first so many, then the rest meanwhile; all of them are due by about `until_s` from now."""
    rng = random.Random(2)
    api = Api(later.state / "api.sock", patience=5.0)
    began = time.monotonic()

    def add(at: int) -> None:
        left_s = max(3, int(until_s - (time.monotonic() - began)))
        keep(api, diary, f"t{at}", in_s=rng.randint(1, left_s))

    def add_the_rest() -> None:
        for at in range(first, TASKS):
            time.sleep(max(0.0, (at - first) * 0.8 * until_s / (TASKS - first) - (time.monotonic() - began)))
            add(at)

    for at in range(first):
        add(at)
    began = time.monotonic()
    thread = threading.Thread(target=add_the_rest, name="add tasks")
    thread.start()
    try:
        yield
    finally:
        thread.join(120)
    assert not thread.is_alive()


def keep(api: Api, diary: Diary, task_id: str, *, in_s: int) -> None:
    """Ask until the task is acknowledged; without an answer the same one is sent again."""
    while True:
        try:
            answer = api.ask("POST", "/v1/tasks", {"id": task_id, "message": task_id, "in": f"{in_s}s"})
        except OSError:
            diary.unsure.add(task_id)
        else:
            if answer.status in (200, 201):
                break
            assert answer.status == 503, answer
            diary.unsure.add(task_id)
        time.sleep(0.05)
    delivery_id = answer.body["delivery_id"]
    diary.acknowledged[delivery_id] = task_id
    diary.meant_for[delivery_id] = datetime.fromisoformat(answer.body["nominal"]).timestamp() * 1000


def kill_in_a_moment(later: Program, diary: Diary, whom: str, rng: random.Random) -> None:
    """At some moment of its life: mostly at work, at times before it has begun."""
    if rng.random() < 0.8:
        later.wait_for_log("started")
        time.sleep(rng.uniform(0, 1.5))
    else:
        time.sleep(rng.uniform(0, 1.5))
    daemon = later.daemon
    assert daemon is not None
    assert daemon.poll() is None, (later.home / "log").read_text()[-3000:]
    diary.kills.append((time.time() * 1000, whom))
    daemon.kill()
    if whom == "both":
        for pid in servers_in(later.state):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    daemon.wait()


def servers_in(state: Path) -> list[int]:
    """The servers that work on the data of this directory."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = place.read_bytes()
            if b"-server" in words and os.fsencode(state / "redis.sock") in words:
                found.append(int(place.parent.name))
    return found


def wait_for_the_end(later: Program) -> Counter[str]:
    """How often each delivery is in the history as completed, once nothing is live any more."""
    api = Api(later.state / "api.sock")
    until = time.monotonic() + 120
    while any((live := api.ask("GET", "/v1/stats").body["tasks"]).values()):
        assert time.monotonic() < until, live
        time.sleep(0.2)
    return Counter(one["delivery_id"] for one in api.all("/v1/history", status="completed"))


def keys_left(later: Program) -> set[str]:
    with redis.Redis(unix_socket_path=str(later.state / "redis.sock"), decode_responses=True) as server:
        assert server.xlen("later:{0}:outbox") == 0
        return set(server.scan_iter())


@dataclass(frozen=True)
class Report:
    """What the diary and the mailbox say together."""

    lost: Sequence[str]
    early: Sequence[Arrival]
    duplicates: Counter[int]  # by the kill that explains them
    unexplained: Sequence[tuple[Arrival, Arrival]]
    stale: Sequence[tuple[Arrival, Arrival]]  # a later arrival whose claim is not a later one
    of_nobody: Sequence[Arrival]  # neither acknowledged nor asked for without an answer
    kills: Counter[str]
    arrivals: int

    def __str__(self) -> str:
        each = [self.duplicates[at] for at in range(self.kills.total())]
        return (
            f"kills {dict(self.kills)} arrivals {self.arrivals} lost {len(self.lost)} early {len(self.early)} "
            f"duplicates {sum(each)} (by kill: {each}) unexplained {len(self.unexplained)} stale {len(self.stale)}"
        )


def judge(diary: Diary, arrivals: Sequence[Arrival]) -> Report:
    by_delivery: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        by_delivery[arrival.delivery_id].append(arrival)
    duplicates: Counter[int] = Counter()
    unexplained = []
    pairs = [pair for each in by_delivery.values() for pair in pairwise(each)]
    for one, other in pairs:
        kill = explanation(diary, one, other)
        if kill is None:
            unexplained.append((one, other))
        else:
            duplicates[kill] += 1
    return Report(
        lost=[each for each in diary.acknowledged if each not in by_delivery],
        early=[each for each in arrivals if each.at < diary.meant_for.get(each.delivery_id, 0)],
        duplicates=duplicates,
        unexplained=unexplained,
        stale=[(one, other) for one, other in pairs if other.claim <= one.claim],
        of_nobody=[
            each for each in arrivals if each.delivery_id not in diary.acknowledged and each.text not in diary.unsure
        ],
        kills=Counter(whom for _, whom in diary.kills),
        arrivals=len(arrivals),
    )


def explanation(diary: Diary, one: Arrival, other: Arrival) -> int | None:
    """The first kill between the two, else one so shortly before that the first was on its way still."""
    between = [at for at, (when, _) in enumerate(diary.kills) if one.at <= when <= other.at]
    before = [at for at, (when, _) in enumerate(diary.kills) if one.at - BYTES_OUTLIVE_MS <= when < one.at]
    return next(iter(between or before[-1:]), None)
