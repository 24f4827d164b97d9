"""The real store and the model side by side, through whatever Hypothesis thinks of: they never disagree."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from later.clock import Clock
from later.core.errors import LaterError
from later.core.lifecycle import Settlement
from later.core.past import Transition
from later.core.task import Millis, Status, Task
from later.store import keys
from later.store.base import Movement
from later.store.calls import connect
from later.store.keys import Lane, Layout
from later.store.redis import RedisStore
from tests.contract.model import Ground, ModelStore
from tests.contract.world import HOUR, OWN_QUEUES, completed, failed, put_back, retried, thought, withdrawn
from tests.servers import Server, served

SETTINGS = settings(
    max_examples=60,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    # Without Phase.shrink, which would outlast the test's timeout; put it back to look into a failure.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
DAY = 24 * HOUR
LIVE = [keys.created(0), keys.failed(0)]
LIVE += [key(0, queue) for key in (keys.due, keys.running) for queue in sorted(OWN_QUEUES)]

OWNERS = ("ana", "bob")
USERS = [keys.user(0, owner) for owner in OWNERS]

Both = tuple[Task, Task]
"""A claimed task, as the store and as the model have given it."""
Answer = TypeVar("Answer")

owners = st.sampled_from(OWNERS)
ids = st.sampled_from(["a", "b", "c"])
lanes = st.sampled_from([Lane(0, queue) for queue in sorted(OWN_QUEUES)])
holders = st.sampled_from(["one", "two"])
delays = st.one_of(st.integers(-1000, -1), st.integers(1, 1000)).map(lambda hours: hours * HOUR)
"""Long past or far ahead, so that nobody has to wait and nothing depends on how fast the test runs."""
outcomes = st.sampled_from(["completed", "retried", "failed", "put back", "withdrawn"])
states = st.frozensets(st.sampled_from([*Status][:4]), min_size=1)
targets = st.sampled_from([None, Status.PENDING, Status.CREATED, Status.CANCELLED])


class Machine(RuleBasedStateMachine):
    url: ClassVar[str]

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.raw = connect(self.url)
        self.run(self.raw.flushall())
        seconds, _ = self.run(self.raw.time())
        self.now: Millis = seconds * 1000
        self.ground = Ground(now=self.now, layout=Layout(partitions=1, own_queues=OWN_QUEUES))
        self.models = {holder: ModelStore(self.ground, holder) for holder in ("one", "two")}
        self.stores = {holder: self.open(holder) for holder in ("one", "two")}
        self.numbers: dict[int, int] = {0: 0}
        self.leases = itertools.count()

    def open(self, holder: str) -> RedisStore:
        store = RedisStore(self.url, clock=Clock(), holder=holder, own_queues=OWN_QUEUES)
        self.run(store.open())
        return store

    def teardown(self) -> None:
        for server in (
            self.raw,
            *(part for store in self.stores.values() for part in (store._server, store._listener)),
        ):
            self.run(server.aclose())
        self.runner.close()

    @rule(owner=owners, task_id=ids, delay=st.none() | delays, text=st.sampled_from("xy"), lane=lanes)
    def add(self, owner: str, task_id: str, delay: int | None, text: str, lane: Lane) -> None:
        due = None if delay is None else self.now + delay
        task = thought(task_id, due=due, owner=owner, message=text, queue=lane.queue)
        real, model = self.both("one", lambda store: store.add(task))
        if real is not None and model is not None:
            assert (real.kept, real.replaced) == (model.kept, model.replaced)
            self.alike(real.task, model.task)

    @initialize(target=claims, delays=st.lists(delays, min_size=6, max_size=6))
    def begin(self, delays: list[int]) -> Any:
        """Most of what can happen needs some tasks, and some of them claimed."""
        for at, delay in enumerate(delays):
            task = thought("abc"[at % 3], due=self.now + delay, owner=OWNERS[at % 2], message="x")
            self.both("one", lambda store, task=task: store.add(task))
        return self.claim("one", Lane(0, "default"), limit=2, ended=False)

    @rule(target=claims, holder=holders, lane=lanes, limit=st.integers(0, 3), ended=st.booleans())
    def take(self, holder: str, lane: Lane, limit: int, ended: bool) -> Any:
        return self.claim(holder, lane, limit=limit, ended=ended)

    def claim(self, holder: str, lane: Lane, *, limit: int, ended: bool) -> Any:
        lease = self.lease(ended)
        real, model = self.both(holder, lambda store: store.claim(lane, limit=limit, lease=lease))
        assert [task.name for task in real.tasks] == [task.name for task in model.tasks]
        assert real.next_due == model.next_due
        pairs = list(zip(real.tasks, model.tasks, strict=True))
        for mine, models in pairs:
            assert mine.claim > max(number for number in self.numbers if number != mine.claim)
            self.numbers[mine.claim] = models.claim
            self.alike(mine, models)
        return multiple(*pairs)

    def lease(self, ended: bool) -> Millis:
        """One that has ended long ago or lasts for long; each ends so much later that it does on both sides."""
        return next(self.leases) * 100_000 + (-DAY if ended else DAY)

    @rule(some=st.lists(claims, min_size=1, max_size=3), ended=st.booleans())
    def extend(self, some: list[Both], ended: bool) -> None:
        tasks, lease = each_once(some), self.lease(ended)
        real = self.run(self.stores["one"].extend([mine for mine, _ in tasks], lease=lease))
        model = self.run(self.models["one"].extend([models for _, models in tasks], lease=lease))
        assert real == model

    @rule(some=st.lists(st.tuples(claims, outcomes, delays), min_size=1, max_size=3))
    def settle(self, some: list[tuple[Both, str, int]]) -> None:
        items = {(mine.name, mine.claim): (mine, models, said, delay) for (mine, models), said, delay in some}.values()
        real = self.run(self.stores["one"].settle([self.outcome(mine, said, delay) for mine, _, said, delay in items]))
        model = self.run(
            self.models["one"].settle([self.outcome(models, said, delay) for _, models, said, delay in items])
        )
        assert real == model

    def outcome(self, task: Task, said: str, delay: int) -> Settlement:
        match said:
            case "completed":
                return completed(task)
            case "retried":
                return retried(task, self.now + delay)
            case "failed":
                return failed(task)
            case "withdrawn":
                return withdrawn(task)
            case _:
                return put_back(task)

    @rule(lane=lanes, limit=st.integers(1, 3), every=st.booleans())
    def recover(self, lane: Lane, limit: int, every: bool) -> None:
        real, model = self.both("one", lambda store: store.recover(lane, limit=limit, every=every))
        assert real.count == model.count
        assert (real.next_end is None) == (model.next_end is None)

    @rule(
        owner=owners,
        task_id=ids,
        to=targets,
        delay=st.none() | delays,
        among=states,
        text=st.none() | st.sampled_from("xy"),
        meant=st.booleans(),
        afresh=st.booleans(),
        version=st.none() | st.integers(1, 3),
    )
    def move(
        self, owner: str, task_id: str, among: frozenset[Status], text: str | None, meant: bool, **said: Any
    ) -> None:
        delay = said.pop("delay")
        due = None if delay is None else self.now + delay
        spec = None if text is None else thought(task_id, due=None, message=text).spec
        movement = Movement(states=among, due=due, spec=spec, nominal=due if meant else None, **said)
        real, model = self.both("one", lambda store: store.move(owner, task_id, movement))
        assert real == model

    @rule(owner=owners, task_id=ids, delay=delays)
    def retry(self, owner: str, task_id: str, delay: int) -> None:
        movement = Movement(states=frozenset({Status.FAILED}), to=Status.PENDING, due=self.now + delay, afresh=True)
        real, model = self.both("one", lambda store: store.move(owner, task_id, movement))
        assert real == model

    @rule(holder=holders, lane=lanes)
    def adopt(self, holder: str, lane: Lane) -> None:
        real, model = self.both(holder, lambda store: store.adopt(lane))
        for mine, models in zip(by_name(real), by_name(model), strict=True):
            self.alike(mine, models)

    @rule(limit=st.integers(1, 3))
    def drain(self, limit: int) -> None:
        """Forget the same transitions on both sides, whose keys differ."""
        real, model = self.both("one", lambda store: store.outbox.read(100))
        gone = sorted(real, key=told)[:limit], sorted(model, key=told)[:limit]
        self.run(self.stores["one"].outbox.forget(gone[0]))
        self.run(self.models["one"].outbox.forget(gone[1]))

    @rule()
    def flush_scripts(self) -> None:
        self.run(self.raw.script_flush())

    @rule()
    def lose_the_counter(self) -> None:
        self.run(self.raw.delete(keys.claims(0)))

    @invariant()
    def every_live_task_is_in_exactly_one_set(self) -> None:
        kept, *contents = self.run(self.everything())
        found = dict(zip([*LIVE, *USERS], contents, strict=True))
        names = [name for key in LIVE for name in found[key]]
        assert sorted(names) == sorted(task.name for task in self.ground.tasks.values())
        assert len(names) == len(set(names))
        assert {f"{owner}/{task_id}" for owner in OWNERS for task_id in found[keys.user(0, owner)]} == set(names)
        assert {key for key in kept if ":task:" in key} == {keys.task(0, name) for name in names}
        shared = {keys.META, keys.claims(0), keys.outbox(0)}
        assert {key for key in kept if ":task:" not in key} <= {*LIVE, *USERS, *shared}

    async def everything(self) -> list[list[str]]:
        async with self.raw.pipeline(transaction=False) as pipeline:
            pipeline.keys("*")
            for key in (*LIVE, *USERS):
                pipeline.zrange(key, 0, -1)
            return await pipeline.execute()

    @invariant()
    def the_owner_sees_what_the_model_shows(self) -> None:
        for owner in OWNERS:
            real, model = self.both(
                "one", lambda store, owner=owner: store.page(owner, statuses=list(Status), cursor=None, limit=10)
            )
            assert [task.id for task in real.tasks] == [task.id for task in model.tasks]
            for mine, models in zip(real.tasks, model.tasks, strict=True):
                self.alike(mine, models)

    @invariant()
    def the_counts_and_the_past_agree(self) -> None:
        real, model = self.both("two", lambda store: store.counts())
        assert real == model
        real, model = self.both("two", lambda store: store.outbox.read(1000))
        assert sorted(map(told, real)) == sorted(map(told, model))

    def both(self, holder: str, ask: Any) -> tuple[Any, Any]:
        """The answers of both; where one refuses, the other does so too, and both are None."""
        real, real_error = self.answer(ask(self.stores[holder]))
        model, model_error = self.answer(ask(self.models[holder]))
        assert real_error is model_error
        return real, model

    def answer(self, asked: Coroutine[Any, Any, Answer]) -> tuple[Answer | None, type[LaterError] | None]:
        try:
            return self.run(asked), None
        except LaterError as error:
            return None, type(error)

    def alike(self, mine: Task, models: Task) -> None:
        """All but what is drawn from the clock is equal."""
        assert self.numbers[mine.claim] == models.claim
        assert (mine.lease_until is None) == (models.lease_until is None)
        if mine.lease_until is not None and models.lease_until is not None:
            assert (mine.lease_until > self.now + HOUR) == (models.lease_until > self.now + HOUR)
        assert timeless(mine) == timeless(models)

    def run(self, asked: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.get_loop().run_until_complete(asked)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served("valkey") as server:
        yield server


def test_the_store_and_the_model_never_disagree(server: Server) -> None:
    class OnServer(Machine):
        url = server.url

    run_state_machine_as_test(OnServer, settings=SETTINGS)


# What the machine is written in.


def each_once(some: list[Both]) -> list[Both]:
    return list({(mine.name, mine.claim): (mine, models) for mine, models in some}.values())


def by_name(tasks: Any) -> list[Task]:
    return sorted(tasks, key=lambda task: task.name)


def timeless(task: Task) -> Task:
    return replace(task, updated=0, claim=0, lease_until=None)


def told(past: Transition) -> tuple[Any, ...]:
    task = past.task
    reasons = tuple(failure.reason for failure in task.failures)
    receipt = str(past.receipt and dict(past.receipt))
    return (task.uid, task.status, task.attempts, task.due or 0, task.version, reasons, past.started or 0, receipt)
