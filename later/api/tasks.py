"""Routes over live tasks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from later.api.answers import Answer
from later.api.house import Caller, TheClient, TheHouse
from later.api.schemas import (
    AddedTask,
    LiveStatus,
    NewTime,
    Snooze,
    TaskChanges,
    TaskList,
    TaskOut,
    TaskToAdd,
    task_json,
)
from later.core.task import LIVE

router = APIRouter(prefix="/v1", tags=["tasks"])

Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(pattern="^[0-9]{1,15}$")]


@router.post("/tasks", status_code=201, response_model=AddedTask)
async def add(body: TaskToAdd, client: TheClient, caller: Caller, house: TheHouse) -> Answer:
    """Keep a task. The same id with the same content again answers 200 and `kept`."""
    caller.require("write")
    added = await client.add(body.new_task())
    disposition = "kept" if added.kept else "replaced" if added.replaced else "created"
    answer = {**task_json(added.task), "disposition": disposition, "kept_in": house.kept_in}
    return Answer(answer, status_code=200 if added.kept else 201)


@router.get("/tasks", response_model=TaskList)
async def list_live(
    client: TheClient,
    caller: Caller,
    status: Annotated[list[LiveStatus] | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Answer:
    """Your live tasks in due order; `status` may be given several times."""
    caller.require("read")
    page = await client.page(status or LIVE, cursor=cursor, limit=limit)
    return Answer({"tasks": [task_json(task) for task in page.tasks], "next": page.next})


@router.post("/tasks:retry")
async def retry_all(client: TheClient, caller: Caller) -> dict[str, int]:
    """Try all of your failed tasks again."""
    caller.require("write")
    return {"retried": await client.retry_all()}


@router.get("/tasks/{task_id}", response_model=TaskOut)
async def get(task_id: str, client: TheClient, caller: Caller) -> Answer:
    """A task, live or past."""
    caller.require("read")
    return Answer(task_json(await client.get(task_id)))


@router.patch("/tasks/{task_id}", response_model=TaskOut)
async def update(task_id: str, body: TaskChanges, client: TheClient, caller: Caller) -> Answer:
    """Change what is to be done; the time stays."""
    caller.require("write")
    return Answer(task_json(await client.update(task_id, body.changes())))


@router.delete("/tasks/{task_id}", status_code=204)
async def delete(task_id: str, client: TheClient, caller: Caller) -> Response:
    """Cancel a task: 204. A running one answers 202 and is not performed again."""
    caller.require("write")
    moved = await client.delete(task_id)
    return Response(status_code=202 if moved.withdrawn else 204)


@router.post("/tasks/{task_id}/schedule", response_model=TaskOut)
async def schedule(task_id: str, body: NewTime, client: TheClient, caller: Caller) -> Answer:
    """Give a task another time."""
    caller.require("write")
    return Answer(task_json(await client.schedule(task_id, body.when(), zone=body.zone)))


@router.post("/tasks/{task_id}/snooze", response_model=TaskOut)
async def snooze(task_id: str, body: Snooze, client: TheClient, caller: Caller) -> Answer:
    """Let a task come this much later from now; one that has come already comes again."""
    caller.require("write")
    return Answer(task_json(await client.snooze(task_id, body.in_)))


@router.post("/tasks/{task_id}/execute", response_model=TaskOut)
async def execute(task_id: str, client: TheClient, caller: Caller) -> Answer:
    """Let a task come now."""
    caller.require("write")
    return Answer(task_json(await client.execute(task_id)))


@router.post("/tasks/{task_id}/retry", response_model=TaskOut)
async def retry(task_id: str, client: TheClient, caller: Caller) -> Answer:
    """Try a failed task again, with all its attempts."""
    caller.require("write")
    return Answer(task_json(await client.retry(task_id)))
