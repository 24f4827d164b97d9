"""Routes over past tasks: the history, and the inbox of thoughts that have come."""

from __future__ import annotations

from typing import Annotated, get_args

from fastapi import APIRouter, Query

from later.api.answers import Answer
from later.api.house import Caller, TheClient
from later.api.schemas import PastStatus, Read, TaskList, task_json
from later.api.tasks import Limit

router = APIRouter(prefix="/v1", tags=["past tasks"])


@router.get("/history", response_model=TaskList)
async def history(
    client: TheClient,
    caller: Caller,
    status: Annotated[list[PastStatus] | None, Query()] = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Limit = 100,
) -> Answer:
    """What came of your tasks, newest first; `status` may be given several times."""
    caller.require("read")
    rows, following = await client.history(status or get_args(PastStatus), cursor=cursor, limit=limit)
    return Answer({"tasks": [task_json(row) for row in rows], "next": following})


@router.get("/inbox", response_model=TaskList)
async def inbox(client: TheClient, caller: Caller) -> Answer:
    """Thoughts that have come and are not read yet, oldest first."""
    caller.require("read")
    return Answer({"tasks": [task_json(row) for row in await client.inbox()], "next": None})


@router.post("/inbox/read")
async def mark_read(body: Read, client: TheClient, caller: Caller) -> dict[str, int]:
    """Mark thoughts as read; answers how many were not before."""
    caller.require("write")
    return {"read": await client.mark_read(set(body.delivery_ids))}
