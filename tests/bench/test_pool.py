"""What docs/decisions/0006-shape-of-the-pool.md says of the defaults, in small."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from later.settings import Settings
from tests.bench import pool
from tests.bench.line import line
from tests.bench.pool import Shape
from tests.servers import Server, served

ROOT = Path(__file__).parent.parent.parent
RTT_MS = 20.0


@pytest.fixture
def server() -> Iterator[Server]:
    with served("valkey") as server:
        yield server


@pytest.mark.slow
def test_larger_claims_and_more_places_outrun_the_round_trip(server: Server) -> None:
    defaults = Settings()
    with line(server.socket, RTT_MS) as url:

        def rate(workers: int, batch: int, action_ms: float) -> float:
            shape = Shape(rtt_ms=RTT_MS, workers=workers, batch=batch)
            return asyncio.run(pool.drained_a_second(server, url, shape, seconds=0.5, action_ms=action_ms))

        usual = rate(defaults.workers, defaults.batch, 0)
        one_by_one = rate(defaults.workers, 1, 0)
        lasting, in_a_small_pool = rate(defaults.workers, defaults.batch, 10), rate(10, 10, 10)
    print(
        f"{usual:,.0f} /s, one by one {one_by_one:,.0f}; of 10 ms {lasting:,.0f}, in ten places {in_a_small_pool:,.0f}"
    )
    assert usual >= 5 * one_by_one
    assert lasting >= 2 * in_a_small_pool


@pytest.mark.slow
def test_the_bench_prints_a_row_for_each_shape() -> None:
    shapes = ["--rtt", "1", "--workers", "10", "20", "--batch", "10", "--seconds", "0.2", "--rounds", "1"]
    words = [sys.executable, "-m", "tests.bench", "pool", *shapes]
    printed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert re.findall(r"^1\t[\d.]+\t(\d+)\t10(?:\t[\d,.]+){4}$", printed, re.M) == ["10", "20"]
