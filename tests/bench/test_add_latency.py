"""`later add` as a whole process against a running daemon: what a person waits for at the prompt."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from tests.program import Program, installed
from tests.terminal import on_a_terminal

RUNS = 25
BOUND_MS = 110.0
TIMES_CLICK = 2.0
"""On a busy machine everything is slow; then the measure is what nobody can leave out: Python, and click."""


@pytest.mark.slow
def test_adding_a_thought_takes_at_most_110_ms() -> None:
    with installed() as program:
        program.start()
        add = [sys.executable, "-m", "later", "add", "call mum", "--within", "3d"]
        click = [sys.executable, "-c", "import click"]
        added, imported, told = [], [], []
        for _ in range(RUNS):  # in turn, so that other people's load meets all alike
            added.append(took_ms(program, add))
            imported.append(took_ms(program, click))
            told.append(on_a_terminal_ms(program))
    median, floor = statistics.median(added), statistics.median(imported)
    for name, figures in (("later add", added), ("import click", imported), ("later add on a terminal", told)):
        print(f"{name}: median {statistics.median(figures):.0f} ms, {min(figures):.0f} to {max(figures):.0f}")
    print(f"ratio: {median / floor:.2f}")
    assert median <= max(BOUND_MS, TIMES_CLICK * floor)


def took_ms(program: Program, words: Sequence[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(words, env=program.env, cwd=program.home, capture_output=True)
    took = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    return took * 1000


def on_a_terminal_ms(program: Program) -> float:
    """The same where somebody looks: it also asks what waits for its reader."""
    began = time.perf_counter()
    seen = on_a_terminal(program, "add", "call mum", "--within", "3d")
    took = time.perf_counter() - began
    assert seen.status == 0, seen.screen
    return took * 1000
