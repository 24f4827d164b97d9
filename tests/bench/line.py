"""A line to a server on which every answer takes its time, in a process of its own so that it costs nobody else's."""

from __future__ import annotations

import asyncio
import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.proxy import Proxy


@contextmanager
def line(server: Path, rtt_ms: float) -> Iterator[str]:
    """The address at which this server answers so much later."""
    home = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_serve, args=(server, home / "line.sock", rtt_ms / 1000, ready), daemon=True)
    try:
        process.start()
        if not ready.wait(30):
            raise TimeoutError("the line does not open")
        yield f"unix://{home / 'line.sock'}"
    finally:
        process.kill()
        process.join()
        shutil.rmtree(home)


def _serve(server: Path, path: Path, delay_s: float, ready: multiprocessing.synchronize.Event) -> None:
    async def run() -> None:
        proxy = Proxy(server, path)
        proxy.delay_s = delay_s
        async with proxy.running():
            ready.set()
            await asyncio.Event().wait()

    asyncio.run(run())
