"""How long to wait before the next attempt, and when the trying ends."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from later.core.retry import RetryPolicy, backoff, ceiling

POLICY = RetryPolicy(attempts=150, within=3 * 86_400_000, base=5_000, cap=3_600_000)


def test_the_longest_pause_doubles_up_to_the_cap() -> None:
    seconds = [ceiling(POLICY, attempt) // 1000 for attempt in range(1, 13)]
    assert seconds == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]


@pytest.mark.parametrize("attempt", [0, -1, -(10**9)])
def test_before_the_first_attempt_it_is_the_first_pause(attempt: int) -> None:
    assert ceiling(POLICY, attempt) == ceiling(POLICY, 1) == 5_000


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 10**30), st.integers(1, 10**9), st.integers(1, 10**12))
def test_no_attempt_is_too_many_to_reckon_with(attempt: int, base: int, cap: int) -> None:
    policy = RetryPolicy(attempts=1, within=1, base=base, cap=cap)
    assert 0 < ceiling(policy, attempt) <= ceiling(policy, attempt + 1) <= cap
    assert 0 <= backoff(policy, attempt, random.Random(attempt)) <= cap


def test_the_pause_is_uniform_over_its_whole_range(rng: random.Random) -> None:
    policy = RetryPolicy(attempts=150, within=1, base=10, cap=1_000)
    for attempt, longest in ((1, 10), (3, 40), (50, 1_000)):
        draws = Counter(backoff(policy, attempt, rng) for _ in range(20_000))
        assert (min(draws), max(draws)) == (0, longest)
        expected = 20_000 / (longest + 1)
        chi_square = sum((draws[pause] - expected) ** 2 / expected for pause in range(longest + 1))
        # Of a chi-square with k degrees the mean is k and the variance 2 k; five deviations are chance no more.
        assert abs(chi_square - longest) < 5 * (2 * longest) ** 0.5


def test_without_a_base_there_is_no_pause(rng: random.Random) -> None:
    assert backoff(RetryPolicy(attempts=1, within=1, base=0, cap=1_000), 7, rng) == 0


def test_whichever_budget_ends_first_ends_the_trying() -> None:
    policy = RetryPolicy(attempts=3, within=1_000, base=1, cap=1)
    cases = {
        (2, 1_500): False,
        (3, 1_500): True,
        (4, 1_500): True,
        (2, 2_000): False,
        (2, 2_001): True,
        (9, 9_999): True,
    }
    assert {
        (attempts, next_at): policy.exhausted(attempts=attempts, began=1_000, next_at=next_at)
        for attempts, next_at in cases
    } == cases
