"""One daemon for all tests here that do not need one of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from later.cli import places
from tests.cli.forked import forking
from tests.program import Program, installed

alone = pytest.mark.skipif(os.path.exists(places.SYSTEM_DIR), reason="this machine has a daemon for all its users")
"""For tests of what happens where no daemon is found."""

NOBODYS_PORT = "9"
"""Where no mail server listens."""

MAIL_THAT_FAILS = {
    "LATER_EMAIL__HOST": "127.0.0.1",
    "LATER_EMAIL__PORT": NOBODYS_PORT,
    "LATER_EMAIL__SECURITY": "none",
    "LATER_RETRY__ATTEMPTS": "1",
}


@pytest.fixture(scope="session")
def later() -> Iterator[Program]:
    """The program with its daemon running; `--action email` fails there at the first attempt."""
    with installed(**MAIL_THAT_FAILS) as program:
        program.start()
        with forking(program) as forked:
            yield forked
