"""The one door from the command line to the engine: all that is heavy is imported here, when it is needed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from later.cli import http, places
from later.cli.output import UNAVAILABLE, Refused

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from later.wiring import Answering

DEMO_THOUGHT = "call mum"


def run(env_file: str | None) -> int:
    """The daemon, with the settings of the file and the environment."""
    from later import loading

    file = Path(env_file) if env_file is not None else None
    with _refusals():
        chosen = loading.load(file)

        from later import wiring

        return asyncio.run(wiring.run(chosen, audience=sys.stdout if sys.stdout.isatty() else None))


def demo(audience: TextIO) -> int:
    """A daemon in a throw-away directory, with one thought that comes back in three seconds."""
    from later import settings, wiring

    for name in [name for name in os.environ if name in places.KNOWN]:
        del os.environ[name]
    state_dir = Path(tempfile.mkdtemp(prefix="later-demo-"))
    try:
        throw_away = settings.Settings(state_dir=state_dir, action="console", log_level="warning")
        audience.write(f"a daemon of its own starts in {state_dir}\n")
        audience.flush()
        with _refusals():
            return asyncio.run(
                wiring.run(throw_away, audience=audience, visitor=lambda of: _add_one(of.socket_path, audience))
            )
    finally:
        shutil.rmtree(state_dir, ignore_errors=True)


def add(body: dict[str, Any]) -> dict[str, Any]:
    """A new thought straight into somebody's Redis, where no daemon answers."""
    with without_a_daemon() as door:
        task: dict[str, Any] = door.ask("POST", "/v1/tasks", body).body
    return task | {"kept_in": f"{task['kept_in']}, where it waits for a daemon: `later run`"}


@contextlib.contextmanager
def without_a_daemon() -> Iterator[http.Daemon]:
    """The API in this process, on somebody's Redis."""
    from anyio.from_thread import start_blocking_portal

    from later import loading

    with _refusals():
        chosen = loading.load()

        from later import wiring

        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(wiring.answering(chosen)) as answer,
        ):
            yield http.Daemon(places.Door(), _Inside(portal, answer))


class _Inside:
    """A wire that does not leave the process."""

    def __init__(self, portal: BlockingPortal, answer: Answering) -> None:
        self._portal = portal
        self._answer = answer

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        return self._portal.call(self._answer, method, target, headers, body)


async def _add_one(socket_path: Path, audience: TextIO) -> None:
    def add() -> dict[str, Any]:
        daemon = http.connect(places.Door(socket=str(socket_path)))
        assert daemon is not None
        task: dict[str, Any] = daemon.ask("POST", "/v1/tasks", {"message": DEMO_THOUGHT, "in": "3s"}).body
        return task

    task = await asyncio.to_thread(add)
    audience.write(f'added {task["id"]}: "{task["message"]}" due in 3 s\n')
    audience.flush()


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """A refusal of the engine becomes one of the command line."""
    from later.core import errors

    try:
        yield
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
