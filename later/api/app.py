"""The HTTP application: the routes, their limits, and how errors are told."""

from __future__ import annotations

from fastapi import FastAPI

from later import __version__
from later.api import daemon, limits, moving, past, problems, tasks
from later.api.house import House


def create_app(house: House) -> FastAPI:
    """The application of this house."""
    # The description is a route of our own, because over TCP it needs the token as all others do; and a path with
    # a slash at its end is another one.
    app = FastAPI(title="Later", version=__version__, openapi_url=None, redirect_slashes=False)
    app.state.house = house
    app.add_middleware(limits.BodyLimit)
    problems.install(app)
    for routes in (tasks, past, moving, daemon):
        app.include_router(routes.router)
    return app
