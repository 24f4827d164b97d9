"""What all tests share: no setting of the caller reaches them, and chance is seeded where a test asks for it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.program import Program, installed

for _name in [name for name in os.environ if name.startswith("LATER_") or name == "WAKEUP_BEFORE_SECONDS"]:
    del os.environ[_name]


@pytest.fixture
def rng() -> random.Random:
    """Chance that comes out the same in every run."""
    return random.Random(20261122)


@pytest.fixture
def program() -> Iterator[Program]:
    """The real program in a home of its own."""
    with installed() as program:
        yield program
