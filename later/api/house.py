"""What the routes need: the process they live in, the caller, and the caller's client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import Request

from later.api.principal import Gate, Principal
from later.client import Client
from later.moving import Moving


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What the routes need of the process they live in."""

    gate: Gate
    kept_in: str
    client: Callable[[str], Client]
    moving: Moving
    stats: Callable[[], Awaitable[Mapping[str, Any]]]
    health: Callable[[], Awaitable[None]]
    findings: Callable[[], Awaitable[list[dict[str, str]]]]
    examine: Callable[[str | None, bool], Awaitable[Mapping[str, Any]]]
    stop: Callable[[], None]


def _house(request: Request) -> House:
    house: House = request.app.state.house
    return house


TheHouse = Annotated[House, Depends(_house)]


def _caller(request: Request, house: TheHouse) -> Principal:
    return house.gate(request)


Caller = Annotated[Principal, Depends(_caller)]


def _client(house: TheHouse, caller: Caller) -> Client:
    return house.client(caller.owner)


TheClient = Annotated[Client, Depends(_client)]
