"""As much of HTTP as the command line speaks: one request at a time, over a unix socket or at a URL.

http.client would make `later add` wait 20 ms for its imports, so the unix socket does without it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Protocol


class Wire(Protocol):
    """An open connection to a daemon."""

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Send a request and read the answer: status and body. Raises OSError."""


class UnixWire:
    """HTTP/1.1 with our own daemon: every answer of its comes with its length."""

    def __init__(self, path: str, patience: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(patience)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._answers = self._socket.makefile("rb")

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        lines = [f"{method} {target} HTTP/1.1", "Host: later", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        # It may have refused already, without reading to the end.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + body)
        try:
            return self._answer()
        except ValueError:
            raise ConnectionError("that is not an answer of Later") from None

    def _answer(self) -> tuple[int, bytes]:
        first = self._answers.readline(65_536)
        if not first:
            raise ConnectionResetError("it hung up")
        status = int(first.split()[1]) if first.startswith(b"HTTP/1.") else int("")
        length = 0
        while (line := self._answers.readline(65_536)) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = self._answers.read(length)
        if len(body) < length:
            raise ConnectionResetError("it hung up")
        return status, body


class UrlWire:
    """HTTP or HTTPS with whatever stands at a URL."""

    def __init__(self, url: str, patience: float) -> None:
        """Raises ValueError where that is no URL."""
        import http.client
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an address")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._failure = http.client.HTTPException
        self._base = parts.path.rstrip("/")
        self._connection = kind(parts.hostname, parts.port, timeout=patience)
        self._connection.connect()

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        try:
            self._connection.request(method, self._base + target, body or None, dict(headers))
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except self._failure as error:
            raise ConnectionError(str(error) or type(error).__name__) from None
