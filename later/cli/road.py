"""The way in for commands that can do without a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from later.cli import http, places


@contextmanager
def daemon_or_store() -> Iterator[http.Daemon]:
    """The daemon or, where there is none and somebody's Redis is named, the same API in this process."""
    found = http.find()
    if found is None and places.may_ask_the_store():
        from later.cli import engine

        with engine.without_a_daemon() as inside:
            yield inside
    else:
        yield found or http.daemon()
