"""Server and daemon stopped and started again, both at once: everything is where it was."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.api import Api
from tests.acceptance.sink import sink
from tests.program import installed
from tests.servers import KINDS, Server, served
from tests.waiting import wait_until

SETTINGS = {"LATER_LEASE_SECONDS": "1", "LATER_GRACE_SECONDS": "0.1", "LATER_RETRY__ATTEMPTS": "1"}


@pytest.fixture(params=KINDS)
def persistent(request: pytest.FixtureRequest) -> Iterator[Server]:
    with served(request.param, appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked to end", "killed"])
async def test_a_restart_of_server_and_daemon_keeps_everything(persistent: Server, number: signal.Signals) -> None:
    with sink() as arrivals, installed(**arrivals.settings, LATER_REDIS_URL=persistent.url, **SETTINGS) as program:
        program.start()
        api = Api(program.state / "api.sock")
        api.add(id="held", message="no time yet", hold=True)
        api.add(id="pending", message="Grüße 🎂", action="sink", payload={"json": {"n": [1]}}, **{"in": "365d"})
        api.add(id="done", message="note", action="sink", **{"in": "0s"})
        api.add(id="failed", message="take nonsense", action="sink", **{"in": "0s"})
        await wait_until(lambda: len(api.all("/v1/history")) == 2)
        before = kept(api)
        assert before["live"].keys() == {"held", "pending", "failed"}
        api.add(id="at-work", message="wait", action="sink", **{"in": "0s"})
        arrivals.wait_for("begun", 3)
        program.stop(number)
        persistent.end(number)
        persistent.start()
        program.start()
        assert kept(api) == before
        arrivals.open_gate()
        await wait_until(lambda: "at-work" in kept(api)["past"])
        at_work = kept(api)["past"].pop("at-work")
        assert (at_work["status"], at_work["crashes"]) == ("completed", int(number is signal.SIGKILL))
        assert program.stop() == 0


def kept(api: Api) -> dict[str, dict[str, Any]]:
    """All there is of tasks, but for the one that is at work."""
    live = {task["id"]: task for task in api.all("/v1/tasks") if task["id"] != "at-work"}
    return {"live": live, "past": {task["id"]: task for task in api.all("/v1/history")}}
