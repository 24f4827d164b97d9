"""Asks a daemon over HTTP as any program would: through its socket, or over TCP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from tests.program import Program


@contextmanager
def asking(program: Program, **options: Any) -> Iterator[httpx2.Client]:
    """A client on the program's socket."""
    # Certificates would take 30 ms to load, for a socket that has none.
    transport = httpx2.HTTPTransport(uds=str(program.state / "api.sock"), verify=False)
    with httpx2.Client(transport=transport, base_url="http://later", timeout=30, **options) as client:
        yield client


def ask(program: Program, method: str, path: str, **body: Any) -> Any:
    """What the daemon answers to one request that it carries out."""
    with asking(program) as client:
        answer = client.request(method, path, json=body or None)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def tasks(program: Program) -> list[dict[str, Any]]:
    """The live tasks."""
    return list(ask(program, "GET", "/v1/tasks?limit=1000")["tasks"])


def status(program: Program, task_id: str) -> str:
    """Where this task stands."""
    return str(ask(program, "GET", f"/v1/tasks/{task_id}")["status"])
