"""Routes about the daemon itself."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request

from later.api.answers import Answer
from later.api.house import Caller, TheClient, TheHouse
from later.api.schemas import Examination

router = APIRouter(tags=["daemon"])


@router.get("/health")
async def health(house: TheHouse) -> dict[str, str]:
    """200 if the daemon gets on with its work and the store answers, else 503. Anybody may ask."""
    await house.health()
    return {"status": "ok"}


@router.get("/v1/stats")
async def stats(house: TheHouse, client: TheClient, caller: Caller) -> dict[str, Any]:
    """How many tasks there are, how many of yours want attention, and where all is kept."""
    caller.require("read")
    yours = {"owner": caller.owner, "unread": await client.unread(), "failed": await client.failed()}
    return {**await house.stats(), "yours": yours}


@router.get("/v1/doctor")
async def doctor(house: TheHouse, caller: Caller) -> dict[str, Any]:
    """What to mend, each with what to do about it."""
    caller.require("read")
    return {"findings": await house.findings()}


@router.get("/openapi.json", include_in_schema=False)
async def description(request: Request, caller: Caller) -> dict[str, Any]:
    """This API, as programs read it."""
    caller.require("read")
    app: FastAPI = request.app
    return app.openapi()


@router.post("/v1/fsck")
async def fsck(body: Examination, house: TheHouse, caller: Caller) -> Answer:
    """Look for about a second whether the store is sound, of all owners; `next` is the cursor of the following part."""
    caller.require("admin")
    return Answer(await house.examine(body.cursor, body.repair))


@router.post("/v1/stop", status_code=202)
async def stop(house: TheHouse, caller: Caller) -> dict[str, str]:
    """Stop the daemon as a signal would: what is running may finish, nothing is lost."""
    caller.require("admin")
    house.stop()
    return {"status": "stopping"}
