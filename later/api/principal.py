"""Who is calling: by the unix socket's peer, or by the token over TCP. Never by anything in a body."""

from __future__ import annotations

import os
import pwd
import secrets
from dataclasses import dataclass

from starlette.requests import Request

from later.core.errors import InvalidTask, NotAuthenticated, NotAuthorized
from later.core.task import check_owner

PEER = "uid:"
"""How the server notes a unix peer as the connection's client; no network address begins like this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller: whose tasks these are, and what may be done."""

    owner: str
    scopes: frozenset[str]

    def require(self, scope: str) -> None:
        """Raises NotAuthorized."""
        if scope not in self.scopes:
            raise NotAuthorized(f"this needs the right to {scope}, which {self.owner} does not have here")


class Gate:
    """Turns a request into a principal."""

    def __init__(self, *, token: str | None, token_owner: str | None) -> None:
        self._token = token
        self._token_owner = token_owner or login_of(os.getuid())

    def __call__(self, request: Request) -> Principal:
        """Raises NotAuthenticated."""
        client = request.client
        if client is not None and client.host.startswith(PEER):
            return self._peer(int(client.host.removeprefix(PEER)))
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if self._token is None or scheme.lower() != "bearer":
            raise NotAuthenticated
        if not secrets.compare_digest(given.strip().encode(), self._token.encode()):
            raise NotAuthenticated("this token is not valid; send the one in LATER_TOKEN")
        return Principal(owner=self._token_owner, scopes=frozenset({"read", "write"}))

    def _peer(self, uid: int) -> Principal:
        admin = {"admin"} if uid in (0, os.getuid()) else set()
        return Principal(owner=login_of(uid), scopes=frozenset({"read", "write"} | admin))


def login_of(uid: int) -> str:
    """The login name of a user, or `uid<N>` if there is none that can be an owner."""
    try:
        return check_owner(pwd.getpwuid(uid).pw_name)
    except (KeyError, InvalidTask):
        return f"uid{uid}"
