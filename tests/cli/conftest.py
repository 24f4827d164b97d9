"""One daemon for all tests of a file, and a terminal for those that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.program import Program, installed

NOBODYS_PORT = "9"
"""Where no mail server listens."""

MAIL_THAT_FAILS = {
    "LATER_EMAIL__HOST": "127.0.0.1",
    "LATER_EMAIL__PORT": NOBODYS_PORT,
    "LATER_EMAIL__SECURITY": "none",
    "LATER_RETRY__ATTEMPTS": "1",
}


@pytest.fixture(scope="module")
def later() -> Iterator[Program]:
    """The program with its daemon running; `--action email` fails there at the first attempt."""
    with installed(**MAIL_THAT_FAILS) as program:
        program.start()
        yield program
