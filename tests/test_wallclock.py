"""The wall clock that other tests step: whether processes that run go by it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.servers import KINDS, Server, served
from tests.waiting import wait_until
from tests.wallclock import WallClock, wallclock

HOUR_S = 3600.0


@pytest.fixture
def clock() -> Iterator[WallClock]:
    with wallclock() as clock:
        yield clock


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, clock: WallClock) -> Iterator[Server]:
    with served(request.param, env=clock.env) as server:
        yield server


async def test_a_running_server_follows_every_step(server: Server, clock: WallClock) -> None:
    """Valkey looks at the wall clock now and then only, and goes by the monotonic clock in between."""
    for step in (60, -60, HOUR_S, -2 * HOUR_S, HOUR_S):
        clock.step(step)
        await wait_until(lambda: abs(shown_by(server) - time.time() - clock.ahead_s) < 1, within=5)


def test_a_running_python_follows_and_its_monotonic_clock_goes_on(clock: WallClock) -> None:
    program = "import time\nwhile input(): print(time.time(), time.monotonic(), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program], env=dict(clock.env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as asked:
        assert asked.stdin is not None
        assert asked.stdout is not None
        for step in (0, HOUR_S, -2 * HOUR_S):
            clock.step(step)
            print("now?", file=asked.stdin, flush=True)
            wall, monotonic = map(float, asked.stdout.readline().split())
            assert wall == pytest.approx(time.time() + clock.ahead_s, abs=1)
            assert monotonic == pytest.approx(time.monotonic(), abs=1)
        print(file=asked.stdin, flush=True)


def shown_by(server: Server) -> float:
    seconds, micros = server.ask("TIME")  # type: ignore[misc]
    return int(seconds) + int(micros) / 1e6
