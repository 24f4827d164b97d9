"""Walking through all keys: none is left out, and a walk across a restart is refused rather than wrong."""

from __future__ import annotations

import pytest

from later.clock import Clock
from later.core.errors import Conflict, StoreUnavailable
from later.store.calls import Calls, connect
from later.store.contact import Contact
from later.store.walk import Walk
from tests.servers import Server


@pytest.fixture
async def walk(on_server: Server):
    server, clock = connect(on_server.url), Clock()
    yield Walk(Calls(server, Contact(clock, tolerance=10), clock))
    await server.aclose()


async def pages(walk: Walk, pattern: str, looked_at: int):
    cursor = None
    while True:
        found, cursor = await walk.page(pattern, cursor=cursor, looked_at=looked_at)
        yield found
        if cursor is None:
            return


async def test_every_key_comes_whatever_is_added_and_deleted_meanwhile(walk: Walk, on_server: Server) -> None:
    for at in range(500):
        on_server.ask("SET", f"later:{{{at % 3}}}:task:ana/{at}", at)
    found: list[str] = []
    async for page in pages(walk, "later:{*}:task:*", 20):
        assert len(page) < 100
        found += page
        on_server.ask("SET", f"later:{{0}}:task:new/{len(found)}", 1)
        on_server.ask("SET", f"other:{len(found)}", 1)
    assert {f"later:{{{at % 3}}}:task:ana/{at}" for at in range(500)} <= set(found)
    assert not any(key.startswith("other") for key in found)


async def test_a_walk_across_a_restart_is_refused(walk: Walk, on_server: Server) -> None:
    for at in range(100):
        on_server.ask("SET", f"later:{{0}}:task:ana/{at}", at)
    _, cursor = await walk.page("*", cursor=None, looked_at=10)
    assert cursor is not None
    on_server.end()
    on_server.start()
    with pytest.raises(StoreUnavailable):  # the connection is the old server's
        await walk.page("*", cursor=cursor, looked_at=10)
    with pytest.raises(Conflict, match="begin again"):
        await walk.page("*", cursor=cursor, looked_at=10)


async def test_a_cursor_that_no_page_gave_is_refused(walk: Walk) -> None:
    with pytest.raises(Conflict, match="begin again"):
        await walk.page("*", cursor="nonsense", looked_at=10)
