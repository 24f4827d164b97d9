"""The HTTP API as a program would use it: through the daemon's unix socket, one connection a request."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode


@dataclass(frozen=True)
class Answer:
    """The status, and the JSON that came with it."""

    status: int
    body: Any


class Api:
    """One daemon's API. Whatever goes wrong on the way is an OSError: the outcome is unknown."""

    def __init__(self, path: Path, *, patience: float = 30.0) -> None:
        self._path = path
        self._patience = patience

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        connection = _OverUnixSocket(self._path, self._patience)
        try:
            connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(repr(error)) from error
        finally:
            connection.close()
        return Answer(response.status, json.loads(text) if text else None)

    def add(self, **task: Any) -> dict[str, Any]:
        """Add a task that nothing speaks against; says how it is kept."""
        answer = self.ask("POST", "/v1/tasks", task)
        assert answer.status in (200, 201), answer
        return dict(answer.body)

    def all(self, path: str, **query: Any) -> Sequence[Mapping[str, Any]]:
        """A list from its first page to its last."""
        found: list[Mapping[str, Any]] = []
        cursor: str | None = None
        while True:
            said = {**query, "limit": 1000, **({"cursor": cursor} if cursor else {})}
            page = self.ask("GET", f"{path}?{urlencode(said)}").body
            found += page["tasks"]
            cursor = page["next"]
            if cursor is None:
                return found


class _OverUnixSocket(http.client.HTTPConnection):
    def __init__(self, path: Path, patience: float) -> None:
        super().__init__("later", timeout=patience)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
