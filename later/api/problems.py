"""Errors as RFC 9457 problems: one table from Later's errors to HTTP statuses."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from later.api.answers import Answer
from later.core import errors
from later.core.when import rfc3339

STATUS = {
    errors.InvalidTask: 422,
    errors.InvalidSetting: 422,
    errors.NotAuthenticated: 401,
    errors.NotAuthorized: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unavailable: 503,
    errors.LaterError: 500,
}
TITLE = {
    400: "Unreadable",
    401: "Not authenticated",
    403: "Not authorized",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    422: "Invalid",
    503: "Unavailable",
}
RETRY_AFTER_S = "1"

log = structlog.get_logger()


class Problem(Answer):
    """One sentence that says what was asked, what is wrong and what would work."""

    media_type = "application/problem+json"

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> None:
        body = {"type": "about:blank", "title": TITLE.get(status, "Failed"), "status": status, "detail": detail, **more}
        super().__init__(body, status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    """Answer every error of the app as a problem."""
    app.add_exception_handler(errors.LaterError, _of_later)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_anything)


def status_of(error: errors.LaterError) -> int:
    """The status of the nearest ancestor that the table has."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


async def _of_later(request: Request, error: Exception) -> Problem:
    assert isinstance(error, errors.LaterError)
    status = status_of(error)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": RETRY_AFTER_S}}.get(status)
    if isinstance(error, errors.TaskRunning) and error.lease_until is not None:
        return Problem(status, error.message, headers, lease_until=rfc3339(error.lease_until))
    return Problem(status, error.message, headers)


async def _of_validation(request: Request, error: Exception) -> Problem:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Problem(400, "the body is not valid JSON")
    where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
    return Problem(422, f"{where}: {first['msg'].removeprefix('Value error, ')}")


async def _of_http(request: Request, error: Exception) -> Problem:
    assert isinstance(error, HTTPException)
    detail = error.detail if error.status_code != 404 else f"there is no {request.url.path}; see /openapi.json"
    return Problem(error.status_code, detail, dict(error.headers) if error.headers else None)


async def _of_anything(request: Request, error: Exception) -> Problem:
    log.error("request_broke", method=request.method, path=request.url.path, exc_info=error)
    return Problem(500, "Later has a fault and could not answer; its log says more")
