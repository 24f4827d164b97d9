"""Asks the daemon over HTTP: through its unix socket, or at a URL."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from later.cli import places
from later.cli.output import EXIT, Refused, unavailable

PATIENCE_S = 30.0

NOBODY = (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)


@dataclass(frozen=True)
class Answer:
    """What the daemon said to a request that it carried out."""

    status: int
    body: Any


class Daemon:
    """An open connection to a daemon."""

    def __init__(self, door: places.Door, connection: http.client.HTTPConnection) -> None:
        self.door = door
        self._connection = connection

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, query: dict[str, Any] | None = None
    ) -> Answer:
        """Send a request; raises Refused when it is not carried out."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self.door.url and (token := places.variable("LATER_TOKEN")):
            headers["Authorization"] = f"Bearer {token}"
        where = path + ("?" + urlencode(query, doseq=True) if query else "")
        try:
            self._connection.request(method, where, json.dumps(body) if body is not None else None, headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise unavailable(f"the daemon at {self.door} did not answer ({_why(error)}); try again") from None
        return understood(response.status, _json(text))


def connect(door: places.Door) -> Daemon | None:
    """The daemon behind this door; None if nobody is there. Raises Refused where somebody is who may not be asked."""
    connection = _at_url(door.url) if door.url else _UnixConnection(str(door.socket))
    try:
        connection.connect()
    except PermissionError:
        raise unavailable(
            f"you may not use the daemon at {door}; join its group: sudo usermod -aG later $USER, then log in again"
        ) from None
    except NOBODY:
        return None
    except OSError as error:
        raise unavailable(f"the daemon at {door} cannot be reached ({_why(error)}); check LATER_URL") from None
    return Daemon(door, connection)


def find() -> Daemon | None:
    """The first daemon there is."""
    return next((daemon for door in places.doors() if (daemon := connect(door))), None)


def daemon() -> Daemon:
    """The daemon that there must be; raises Refused with what to do."""
    found = find()
    if found is None:
        where = " nor ".join(str(door) for door in places.doors())
        raise unavailable(
            f"no daemon answers at {where}; start one: `later run` here, or `later service install` for good"
        )
    return found


def understood(status: int, body: Any) -> Answer:
    """The answer, unless it is a problem; raises Refused with its sentence."""
    if status < 400:
        return Answer(status, body)
    detail = body.get("detail") if isinstance(body, dict) else None
    raise Refused(detail or f"the daemon answered {status}", status=EXIT.get(status, 1), problem=body or None)


def segment(task_id: str) -> str:
    """An id as one segment of a path."""
    return quote(task_id, safe=":")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("later", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self._path)


def _at_url(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused("LATER_URL is not an address; use http://host:port or https://host", status=2)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=PATIENCE_S)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return {}


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
