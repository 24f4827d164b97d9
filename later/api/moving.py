"""Routes for moving house: every task out of here, line by line, and into here again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request

from later.api.answers import Answer
from later.api.house import Caller, TheHouse
from later.api.lines import line_of, read_line
from later.api.principal import Principal
from later.api.tasks import Limit
from later.archive.rows import Past
from later.core.errors import InvalidTask
from later.moving import Arrival, Arrived
from later.store.base import Standing

LINES = 1000
"""Reading that many does not keep others waiting for long."""

PAGE_BYTES = 4 * 1024 * 1024
CHUNK = 20
"""Looked at together; a page ends after the chunk with which it has PAGE_BYTES."""

router = APIRouter(prefix="/v1", tags=["moving"])


class Taken(BaseModel):
    """Lines of an export, names of tasks that cannot be read, about how many there are, and where it goes on."""

    lines: list[dict[str, Any]]
    unreadable: list[str]
    total: int | None
    next: str | None


class ArrivedOut(BaseModel):
    """What has become of one line."""

    result: Arrival
    reason: str | None = None
    warning: str | None = None


class Results(BaseModel):
    """What has become of each line, in their order."""

    results: list[ArrivedOut]


@router.get("/export", response_model=Taken)
async def take_out(
    house: TheHouse,
    caller: Caller,
    part: Literal["live", "past"],
    cursor: Annotated[str | None, Query(pattern=r"^([0-9a-f]{1,64}\.)?[0-9]{1,18}$")] = None,
    limit: Limit = 100,
    every: Annotated[bool, Query(alias="all")] = False,
) -> Answer:
    """Your tasks as lines that another Later keeps: all of the part `live` first, then `past`. `all`: of every owner.

    A page may be empty and not the last one; it ends early where tasks are large. `total` comes with the first page.
    """
    caller.require("read")
    if every:
        caller.require("admin")
    owner, moving = None if every else caller.owner, house.moving
    total = await moving.count(owner, part) if cursor is None else None
    page: dict[str, list[Any]] = {"lines": [], "unreadable": []}
    size = 0
    for begin in range(0, limit, CHUNK):
        chunk = min(CHUNK, limit - begin)
        if part == "live":
            walked = await moving.live(owner, cursor=cursor, limit=chunk)
            (lines, odd), unreadable, cursor = _lines(walked.found), walked.unreadable, walked.next
        else:
            rows, cursor = await moving.past(owner, cursor=cursor, limit=chunk)
            (lines, odd), unreadable = _lines(rows), ()
        page["lines"] += lines
        page["unreadable"] += [*unreadable, *odd]
        size += len(json.dumps(lines))
        if cursor is None or size >= PAGE_BYTES:
            break
    return Answer({**page, "total": total, "next": cursor})


@router.post(
    "/import",
    response_model=Results,
    openapi_extra={"requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": {}}}}},
)
async def bring_in(request: Request, house: TheHouse, caller: Caller) -> Answer:
    """Keep these lines of an export, one JSON object each, as the tasks were; the past ones before the live ones.

    One that is here already stays as it is. Those of other owners are for an administrator.
    """
    caller.require("write")
    body = await request.body()
    count = body.count(b"\n") + (not body.endswith(b"\n"))
    if count > LINES:
        raise InvalidTask(f"these are {count:,} lines; send at most {LINES:,} at a time")
    read = []
    for line in body.split(b"\n"):
        if line.strip():
            read.append(_read(line, caller))
            await asyncio.sleep(0)  # reading them all would hold up everybody else
    arrived = iter(await house.moving.keep([one for one in read if not isinstance(one, Arrived)]))
    return Answer({"results": [_shown(one if isinstance(one, Arrived) else next(arrived)) for one in read]})


def _read(line: bytes, caller: Principal) -> Standing | Past | Arrived:
    """The task of a line, or why it is refused."""
    try:
        one = read_line(line)
    except InvalidTask as refusal:
        return Arrived(arrival=Arrival.REFUSED, reason=refusal.message)
    if one.task.owner != caller.owner and "admin" not in caller.scopes:
        reason = f"it belongs to {one.task.owner}; only an administrator keeps tasks for others"
        return Arrived(arrival=Arrival.REFUSED, reason=reason)
    return one


def _shown(arrived: Arrived) -> dict[str, str]:
    said = {"result": arrived.arrival.value, "reason": arrived.reason, "warning": arrived.warning}
    return {name: value for name, value in said.items() if value is not None}


def _lines(found: Iterable[Standing | Past]) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of these, and the names of those that none can be made of."""
    lines, unreadable = [], []
    for one in found:
        try:
            lines.append(line_of(one))
        except (ValueError, OverflowError):
            unreadable.append(one.task.name)
    return lines, unreadable
