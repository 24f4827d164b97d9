"""Daemons that freeze past their lease, and tasks that kill every daemon: each costs its own, and nobody else's."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.acceptance.api import Api
from tests.acceptance.sink import sink
from tests.program import Program, installed
from tests.servers import KINDS, Server, served
from tests.waiting import wait_until

TASKS = 5


@pytest.fixture(params=KINDS)
def somebodys_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with served(request.param) as server:
        yield server


@pytest.mark.slow
async def test_a_frozen_daemon_is_replaced_and_changes_nothing_afterwards(somebodys_server: Server) -> None:
    ids = {f"t{at}" for at in range(TASKS)}
    with sink() as arrivals:
        settings = {**arrivals.settings, "LATER_REDIS_URL": somebodys_server.url, "LATER_LEASE_SECONDS": "1"}
        with installed(**settings) as frozen, installed(**settings) as other:
            frozen.start()
            for each in ids:
                api(frozen).add(id=each, message="take 2", action="sink", **{"in": "0s"})
            arrivals.wait_for("begun", TASKS)
            assert frozen.daemon is not None
            frozen.daemon.send_signal(signal.SIGSTOP)
            other.start()
            arrivals.wait_for("begun", 2 * TASKS)
            frozen.daemon.send_signal(signal.SIGCONT)
            await wait_until(lambda: not live(other))

            refused = [event["task"] for event in frozen.events() if event["event"] in REFUSED]
            assert sorted(refused) == sorted(event["task"] for event in other.events("task_completed"))
            assert len(refused) == TASKS
            counted = api(frozen).ask("GET", "/v1/stats").body["outcomes"]
            assert sum(counted[event.removeprefix("task_")] for event in REFUSED) == TASKS
            assert counted["completed"] == 0
            assert frozen.events("task_completed") == []
            past = [*api(frozen).all("/v1/history"), *api(other).all("/v1/history")]
            assert {(one["id"], one["status"], one["crashes"]) for one in past} == {
                (each, "completed", 1) for each in ids
            }
            begun = sorted(arrivals.lines("begun"), key=lambda line: (line["id"], line["at"]))
            assert all(one["claim"] < then["claim"] for one, then in pairwise(begun) if one["id"] == then["id"])
            assert (frozen.stop(), other.stop()) == (0, 0)


@pytest.mark.slow
async def test_a_task_that_kills_its_daemon_fails_and_takes_none_of_its_neighbours_with_it() -> None:
    neighbours = {f"n{at}" for at in range(49)}
    with sink() as arrivals, installed(**arrivals.settings) as program:
        program.start()
        for each in neighbours:
            api(program).add(id=each, message="take 0.6", action="sink", **{"in": "2s"})
        api(program).add(id="poison", message="kill 0.2", action="sink", **{"in": "2s"})
        daemons = 1
        while not program.events("task_failed"):
            assert program.daemon is not None
            await wait_until(
                lambda: program.daemon.poll() is not None or program.events("task_failed") != [], within=60
            )
            if program.daemon.poll() is not None:
                program.start()
                daemons += 1
        await wait_until(lambda: {line["id"] for line in arrivals.lines("done")} == neighbours, within=60)
        await wait_until(lambda: live(program) == {"failed": 1})
        past = api(program).all("/v1/history")
        assert Counter((one["id"], one["status"]) for one in past) == {
            ("poison", "failed"): 1,
            **{(each, "completed"): 1 for each in neighbours},
        }
        assert {one["attempts"] for one in past if one["id"] != "poison"} == {1}
        [poison] = [one for one in past if one["id"] == "poison"]
        [failure] = poison["failures"]
        assert failure["reason"] == "7 daemons ended while performing it, so it is not tried again"
        assert (poison["attempts"], poison["crashes"]) == (0, 7)
        assert daemons == 8
        assert max(Counter(line["id"] for line in arrivals.lines("begun") if line["id"] != "poison").values()) <= 4
        assert program.stop() == 0


REFUSED = ("task_settlement_stale", "task_settlement_gone", "task_lease_lost")


def api(program: Program) -> Api:
    return Api(program.state / "api.sock")


def live(program: Program) -> dict[str, int]:
    """How many tasks are in which state, and in the outbox; states without any are left out."""
    counts = api(program).ask("GET", "/v1/stats").body["tasks"]
    return {status: count for status, count in counts.items() if count}
