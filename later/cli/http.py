"""Finds a daemon and asks it."""

from __future__ import annotations

import json
import os
import re
from typing import Any, NamedTuple

from later.cli import places
from later.cli.output import EXIT, Refused, unavailable
from later.cli.wire import UnixWire, UrlWire, Wire

PATIENCE_S = 30.0

NOBODY = (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)


class Answer(NamedTuple):
    """What the daemon said to a request that it carried out."""

    status: int
    body: Any


class Unanswered(Refused):
    """No answer came, or that the store did not answer: nobody knows whether the request was carried out."""


class Daemon:
    """An open connection to a daemon."""

    def __init__(self, door: places.Door, wire: Wire) -> None:
        self.door = door
        self._wire = wire

    def ask(
        self, method: str, path: str, body: dict[str, Any] | bytes | None = None, query: dict[str, Any] | None = None
    ) -> Answer:
        """Send a request; a body in bytes is lines of JSON.

        Raises Refused when it is not carried out, Unanswered when nobody can say.
        """
        kind, content = ("x-ndjson", body) if isinstance(body, bytes) else ("json", json.dumps(body).encode())
        headers = {"Content-Type": f"application/{kind}"} if body is not None else {}
        if self.door.url and (token := places.variable("LATER_TOKEN")):
            headers["Authorization"] = f"Bearer {token}"
        if query:
            from urllib.parse import urlencode

            path += "?" + urlencode(query, doseq=True)
        try:
            status, text = self._wire.exchange(method, path, headers, content if body is not None else b"")
        except OSError as error:
            sentence = f"the daemon at {self.door} did not answer ({_why(error)}); try again"
            raise unavailable(sentence, Unanswered) from error
        return understood(status, _json(text))


def connect(door: places.Door, patience: float = PATIENCE_S) -> Daemon | None:
    """The daemon behind this door; None if nobody is there. Raises Refused where somebody is who may not be asked."""
    try:
        return Daemon(door, UrlWire(door.url, patience) if door.url else UnixWire(door.socket, patience))
    except NOBODY:
        return None
    except ValueError:
        raise Refused("LATER_URL is not an address; use http://host:port or https://host", status=2) from None
    except PermissionError as error:
        raise _locked(door) if door.socket else _unreachable(door, error) from None
    except OSError as error:
        raise _unreachable(door, error) from None


def find(patience: float = PATIENCE_S) -> Daemon | None:
    """The first daemon there is."""
    places.refuse_unknown()
    return next((daemon for door in places.doors() if (daemon := connect(door, patience))), None)


def daemon(patience: float = PATIENCE_S) -> Daemon:
    """The daemon that there must be; raises Refused with what to do."""
    found = find(patience)
    if found is None:
        doors = list(places.doors())
        where = " nor ".join(str(door) for door in doors)
        if doors[0].url:
            raise unavailable(f"no daemon answers at {where}; start it there, or correct LATER_URL")
        first = "`later add` something, " if places.may_start_one() else ""
        raise unavailable(
            f"no daemon answers at {where}; start one: {first}`later run` here, or `later service install` for good"
        )
    return found


def understood(status: int, body: Any) -> Answer:
    """The answer, unless it is a problem; raises Refused with its sentence."""
    if 200 <= status < 300:
        return Answer(status, body)
    problem = body if isinstance(body, dict) and "detail" in body else None
    sentence = str(problem["detail"]) if problem else f"the daemon answered {status}"
    if status == 401:
        sentence = (
            f"the daemon refuses LATER_TOKEN: {sentence}"
            if places.variable("LATER_TOKEN")
            else ("the daemon needs a token; set LATER_TOKEN to the one that it was started with")
        )
    kind = Unanswered if status == 503 else Refused
    raise kind(sentence, status=EXIT.get(status, 1), problem=problem)


def segment(task_id: str) -> str:
    """An id as one segment of a path; raises Refused where it can be none."""
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,200}", task_id):
        raise Refused(f"{task_id[:80]!r} cannot be an id: use 1 to 200 of A-Z a-z 0-9 . _ : -", status=2)
    return task_id


def _locked(door: places.Door) -> Refused:
    """Somebody's daemon is there, and not ours: a system one lets its group in, a person's nobody."""
    directory = os.path.dirname(door.socket)
    try:
        a_groups = os.stat(directory).st_mode & 0o077 != 0
    except OSError:
        a_groups = True
    if a_groups:
        advice = "join its group: sudo usermod -aG later $USER, then log in again"
    else:
        advice = "it belongs to another user; set LATER_STATE_DIR to a directory of your own"
    return unavailable(f"you may not use the daemon at {door}; {advice}")


def _unreachable(door: places.Door, error: OSError) -> Refused:
    return unavailable(f"the daemon at {door} cannot be reached ({_why(error)})")


def _json(text: bytes) -> Any:
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return {}


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
