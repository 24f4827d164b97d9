"""The one door from the command line to the engine: all that is heavy is imported here, when it is needed."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TextIO, TypeVar

from later.cli import http, places
from later.cli.output import UNAVAILABLE, Refused

WAITING = "your Redis, where it waits for a daemon: `later run`"

DEMO_THOUGHT = "call mum"

Result = TypeVar("Result")


def run(env_file: Path | None) -> int:
    """The daemon, with the settings of the file and the environment."""
    from later import settings, wiring

    audience = sys.stdout if sys.stdout.isatty() else None
    return _finished(lambda: wiring.run(settings.load(env_file), audience=audience))


def demo(audience: TextIO) -> int:
    """A daemon in a throw-away directory, with one thought that comes back in three seconds."""
    from later import settings, wiring

    state_dir = Path(tempfile.mkdtemp(prefix="later-demo-"))
    try:
        throw_away = settings.Settings(
            state_dir=state_dir, redis_url=None, socket=None, port=None, action="console", log_level="warning"
        )
        audience.write(f"a daemon of its own starts in {state_dir}\n")
        audience.flush()
        return _finished(
            lambda: wiring.run(throw_away, audience=audience, visitor=lambda of: _add_one(of.socket_path, audience))
        )
    finally:
        shutil.rmtree(state_dir, ignore_errors=True)


def ask(method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """One request, answered in this process: for `add` where there is a Redis and no daemon."""
    from later import settings, wiring

    return _finished(lambda: wiring.ask(settings.load(), method, path, body))


async def _add_one(socket_path: Path, audience: TextIO) -> None:
    def add() -> dict[str, Any]:
        daemon = http.connect(places.Door(socket=socket_path))
        assert daemon is not None
        task: dict[str, Any] = daemon.ask("POST", "/v1/tasks", {"message": DEMO_THOUGHT, "in": "3s"}).body
        return task

    task = await asyncio.to_thread(add)
    audience.write(f'added {task["id"]}: "{task["message"]}" due in 3 s\n')
    audience.flush()


def _finished(begin: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run to the end; a refusal of the engine becomes one of the command line."""
    from later.core import errors

    try:
        return asyncio.run(begin())
    except errors.LaterError as error:
        raise _refused(error) from None
    except BaseExceptionGroup as group:
        known = group.subgroup(errors.LaterError)
        if known is None:
            raise
        raise _refused(_first(known)) from None


def _refused(error: BaseException) -> Refused:
    from later.core import errors

    statuses = {errors.InvalidSetting: 2, errors.InvalidTask: 2, errors.Unavailable: UNAVAILABLE, errors.Conflict: 4}
    status = next((status for kind, status in statuses.items() if isinstance(error, kind)), 1)
    return Refused(str(error), status=status)


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
