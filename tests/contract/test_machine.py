"""The real store and the model side by side, through whatever Hypothesis thinks of: they never disagree."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from later.clock import Clock
from later.core.errors import LaterError
from later.core.lifecycle import Settlement
from later.core.past import Transition
from later.core.task import LIVE, LONGEST_LEASE, Millis, Status, Task
from later.store import codec, keys
from later.store.base import Movement
from later.store.calls import connect
from later.store.keys import Lane, Layout
from later.store.redis import RedisStore
from tests.contract.model import Ground, ModelStore
from tests.contract.world import HOUR, OWN_QUEUES, completed, failed, put_back, retried, thought, withdrawn
from tests.servers import Server, served

SETTINGS = settings(
    max_examples=80,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    # Without Phase.shrink, which would outlast the test's timeout; put it back to look into a failure.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

DAY = 24 * HOUR
OWNERS = ("ana", "bob")
USERS = {keys.user(0, owner) for owner in OWNERS}
SHARED = {keys.META, keys.claims(0), keys.outbox(0)}
SETS = {keys.created(0): Status.CREATED, keys.failed(0): Status.FAILED}
SETS |= {keys.due(0, queue): Status.PENDING for queue in OWN_QUEUES}
SETS |= {keys.running(0, queue): Status.RUNNING for queue in OWN_QUEUES}

Both = tuple[Task, Task]
"""A claimed task, as the store and as the model have given it."""

owners = st.sampled_from(OWNERS)
ids = st.sampled_from(["a", "b", "c"])
texts = st.sampled_from(["x", "y"])
lanes = st.sampled_from([Lane(0, "default"), Lane(0, "default"), Lane(0, "slow")])
holders = st.sampled_from(["one", "two"])
delays = st.one_of(st.integers(-1000, -1), st.integers(-1000, -1), st.integers(1, 1000)).map(lambda hours: hours * HOUR)
"""Long past or far ahead, so that nobody has to wait and nothing depends on how fast the test runs."""
outcomes = st.sampled_from(["completed", "retried", "failed", "put back", "withdrawn"])
choices = st.tuples(st.booleans(), st.integers(0, 5))
"""One of the present claims or of all that ever were; the last ones first."""
states = st.just(frozenset(LIVE)) | st.frozensets(st.sampled_from(LIVE), min_size=1)
targets = st.sampled_from([None, Status.PENDING, Status.PENDING, Status.CREATED, Status.CANCELLED, Status.CANCELLED])


class Machine(RuleBasedStateMachine):
    url: ClassVar[str]

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
        self.claims: list[Both] = []
        self.numbers: dict[int, int] = {0: 0}
        self.leases = itertools.count()

    def open(self, holder: str) -> RedisStore:
        store = RedisStore(self.url, clock=Clock(), holder=holder, own_queues=OWN_QUEUES)
        self.run(store.open())
        return store

    def teardown(self) -> None:
        for server in (self.raw, *(one for store in self.stores.values() for one in (store._server, store._listener))):
            self.run(server.aclose())
        self.runner.close()

    @initialize(delays=st.lists(delays, min_size=6, max_size=6))
    def begin(self, delays: list[int]) -> None:
        """Most of what can happen needs some tasks, and some of them claimed."""
        for at, delay in enumerate(delays):
            self.add(OWNERS[at % 2], "abc"[at % 3], delay, "x", Lane(0, "default"))
        self.claim("one", Lane(0, "default"), limit=2, ended=False)

    @rule(owner=owners, task_id=ids, delay=st.none() | delays, text=texts, lane=lanes)
    def add(self, owner: str, task_id: str, delay: int | None, text: str, lane: Lane) -> None:
        due = None if delay is None else self.now + delay
        task = thought(task_id, due=due, owner=owner, message=text, queue=lane.queue)
        real, model = self.both("one", lambda store: store.add(task))
        if real is not None:
            assert (real.kept, real.replaced) == (model.kept, model.replaced)
            self.alike(real.task, model.task)

    @rule(holder=holders, lane=lanes, limit=st.integers(0, 4), ended=st.booleans())
    def claim(self, holder: str, lane: Lane, limit: int, ended: bool) -> None:
        lease = self.lease(ended)
        real, model = self.both(holder, lambda store: store.claim(lane, limit=limit, lease=lease))
        assert real.next_due == model.next_due
        assert [task.name for task in real.tasks] == [task.name for task in model.tasks]
        latest = max(self.numbers)
        for mine, models in zip(real.tasks, model.tasks, strict=True):
            assert mine.claim > latest
            self.numbers[mine.claim] = models.claim
            self.alike(mine, models)
            self.claims.append((mine, models))

    @precondition(lambda self: self.claims)
    @rule(some=st.lists(choices, min_size=1, max_size=3), ended=st.booleans(), alone=st.booleans())
    def extend(self, some: list[tuple[bool, int]], ended: bool, alone: bool) -> None:
        chosen, lease = [self.chosen(one) for one in some], self.lease(ended)
        real = self.run(self.stores["one"].extend([mine for mine, _ in chosen], lease=lease, alone=alone))
        assert real == self.run(self.models["one"].extend([models for _, models in chosen], lease=lease, alone=alone))

    @precondition(lambda self: self.claims)
    @rule(some=st.lists(st.tuples(choices, outcomes, delays), min_size=1, max_size=3))
    def settle(self, some: list[tuple[tuple[bool, int], str, int]]) -> None:
        each_once = {id(self.chosen(one)): (self.chosen(one), said, delay) for one, said, delay in some}
        items = each_once.values()
        real = self.run(self.stores["one"].settle([self.outcome(mine, *said) for (mine, _), *said in items]))
        assert real == self.run(
            self.models["one"].settle([self.outcome(models, *said) for (_, models), *said in items])
        )

    @precondition(lambda self: self.claims)
    @rule(some=choices, said=outcomes, delay=delays)
    def settle_twice(self, some: tuple[bool, int], said: str, delay: int) -> None:
        """As after a lost reply."""
        mine, models = self.chosen(some)
        for _ in range(2):
            real = self.run(self.stores["one"].settle([self.outcome(mine, said, delay)]))
            assert real == self.run(self.models["one"].settle([self.outcome(models, said, delay)]))

    @rule(lane=lanes, limit=st.integers(1, 4), every=st.booleans())
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
        text=st.none() | texts,
        meant=st.booleans(),
        afresh=st.booleans(),
        version=st.none() | st.none() | st.integers(1, 3),
    )
    def move(
        self,
        owner: str,
        task_id: str,
        to: Status | None,
        delay: int | None,
        among: frozenset[Status],
        text: str | None,
        meant: bool,
        afresh: bool,
        version: int | None,
    ) -> None:
        due = None if delay is None else self.now + delay
        movement = Movement(
            states=among,
            to=to,
            due=due,
            nominal=due if meant else None,
            spec=None if text is None else thought(task_id, due=None, message=text).spec,
            afresh=afresh,
            version=version,
        )
        real, model = self.both("one", lambda store: store.move(owner, task_id, movement))
        assert real == model

    @precondition(lambda self: self.claims)
    @rule(some=choices)
    def withdraw(self, some: tuple[bool, int]) -> None:
        task, _ = self.chosen(some)
        movement = Movement(states=frozenset(LIVE), to=Status.CANCELLED)
        real, model = self.both("one", lambda store: store.move(task.owner, task.id, movement))
        assert real == model

    @rule(limit=st.integers(1, 5))
    def drain(self, limit: int) -> None:
        """Forget the same transitions on both sides, where their keys differ."""
        for store in (self.stores["one"], self.models["one"]):
            past = sorted(self.run(store.outbox.read(1000)), key=told)
            self.run(store.outbox.forget(past[:limit]))

    @rule()
    def forget_the_scripts(self) -> None:
        self.run(self.raw.script_flush())

    @rule()
    def lose_the_counter(self) -> None:
        self.run(self.raw.delete(keys.claims(0)))

    @rule(holder=holders, lane=lanes, owner=owners, among=states, limit=st.integers(1, 4))
    def look(self, holder: str, lane: Lane, owner: str, among: frozenset[Status], limit: int) -> None:
        """What every reader sees is what the model shows."""
        for verb in (
            lambda store: store.head(lane),
            lambda store: store.counts(),
            lambda store: store.failed_of(owner),
        ):
            real, model = self.both(holder, verb)
            assert real == model
        real, model = self.both(holder, lambda store: store.overdue(lane))
        assert real.count == model.count
        real, model = self.both(holder, lambda store: store.adopt(lane))
        for mine, models in zip(by_name(real), by_name(model), strict=True):
            self.alike(mine, models)
        real, model = self.both(holder, lambda store: store.outbox.read(1000))
        assert sorted(map(told, real)) == sorted(map(told, model))
        among |= {Status.PENDING}  # failed ones alone come in another order
        real, model = self.both(holder, lambda store: store.page(owner, statuses=among, cursor=None, limit=limit))
        for mine, models in zip(real.tasks, model.tasks, strict=True):
            self.alike(mine, models)

    @invariant()
    def every_live_task_is_in_exactly_one_set_and_as_the_model_says(self) -> None:
        found = dict(self.run(self.raw.eval(EVERYTHING, 0)))
        records = {
            key.removeprefix(keys.task(0, "")): codec.pairs(found.pop(key)) for key in list(found) if ":task:" in key
        }
        assert set(found) <= {*SETS, *USERS, *SHARED}
        dues = {
            f"{owner}/{task_id}": due
            for owner in OWNERS
            for task_id, due in codec.pairs(found.get(keys.user(0, owner), [])).items()
        }
        places = [
            (name, status, score)
            for key, status in SETS.items()
            for name, score in codec.pairs(found.get(key, [])).items()
        ]
        live = {task.name: task for task in self.ground.tasks.values()}
        assert sorted(name for name, _, _ in places) == sorted(live) == sorted(records) == sorted(dues)
        for name, status, score in places:
            lease_end = codec.score(score) if status is Status.RUNNING else None
            assert score == dues[name] or status is not Status.PENDING
            mine = codec.unpack(name, records[name], status=status, due=codec.score(dues[name]), lease_until=lease_end)
            self.alike(mine, live[name])

    def lease(self, ended: bool) -> Millis:
        """One that has ended long ago or lasts for long; each ends so much later that it does on both sides."""
        return next(self.leases) * 10_000 + (-DAY if ended else LONGEST_LEASE // 4)

    def chosen(self, choice: tuple[bool, int]) -> Both:
        present, back = choice
        held = [task.claim for task in self.ground.tasks.values() if task.status is Status.RUNNING]
        among = [pair for pair in self.claims if pair[1].claim in held] if present else self.claims
        among = among or self.claims
        return among[-1 - back % len(among)]

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

    def both(self, holder: str, ask: Any) -> tuple[Any, Any]:
        """The answers of both; where one refuses, the other does so too, and both are None."""
        real, real_error = self.answer(ask(self.stores[holder]))
        model, model_error = self.answer(ask(self.models[holder]))
        assert real_error is model_error
        return real, model

    def answer(self, asked: Coroutine[Any, Any, Any]) -> tuple[Any, type[LaterError] | None]:
        try:
            return self.run(asked), None
        except LaterError as error:
            return None, type(error)

    def alike(self, mine: Task, models: Task) -> None:
        """All but what is drawn from the clock is equal."""
        assert self.numbers[mine.claim] == models.claim
        assert (mine.lease_until is None) == (models.lease_until is None)
        if mine.lease_until is not None and models.lease_until is not None:
            assert abs(mine.lease_until - models.lease_until) < 10_000
        assert timeless(mine) == timeless(models)

    def run(self, asked: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.get_loop().run_until_complete(asked)


EVERYTHING = """
local read = {zset = {'ZRANGE', 0, -1, 'WITHSCORES'}, hash = {'HGETALL'}, stream = {'XLEN'}, string = {'GET'}}
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local how = read[redis.call('TYPE', key).ok]
  all[#all + 1] = {key, redis.call(how[1], key, unpack(how, 2))}
end
return all
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served("valkey") as server:
        yield server


def test_the_store_and_the_model_never_disagree(server: Server) -> None:
    class OnServer(Machine):
        url = server.url

    run_state_machine_as_test(OnServer, settings=SETTINGS)


# What the machine is written in.


def by_name(tasks: Any) -> list[Task]:
    return sorted(tasks, key=lambda task: task.name)


def timeless(task: Task) -> Task:
    return replace(task, updated=0, claim=0, lease_until=None)


def told(past: Transition) -> tuple[Any, ...]:
    task = past.task
    reasons = tuple(failure.reason for failure in task.failures)
    receipt = str(past.receipt and dict(past.receipt))
    return (task.uid, task.status, task.attempts, task.due or 0, task.version, reasons, past.started or 0, receipt)
