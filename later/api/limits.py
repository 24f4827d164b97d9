"""Bounds on what a caller may send, before anything is parsed."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later.api.lines import LINE_BYTES
from later.api.problems import Problem

BODY_BYTES = 1024 * 1024
WIDER = {"/v1/import": LINE_BYTES}
"""Where one task may take more, as all its characters may be escaped there."""


class _TooLarge(HTTPException):
    """FastAPI lets errors of this kind alone pass while it reads a body."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is larger than {limit:,} bytes; send less")


class BodyLimit:
    """Refuses bodies beyond the path's limit, whether they announce their length or not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = WIDER.get(scope["path"], BODY_BYTES)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        received, answered = 0, False

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _TooLarge(limit)
            return message

        async def watched(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            if not announced.isdigit() or int(announced) > limit:
                raise _TooLarge(limit)
            await self._app(scope, bounded, watched)
        except _TooLarge as refusal:
            if not answered:
                await Problem(refusal.status_code, refusal.detail)(scope, receive, send)
