"""Joins the API to the process it lives in."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from later import __version__
from later.actions.base import PermanentFailure, TemporaryFailure
from later.actions.email import EmailAction
from later.api.house import House
from later.core.errors import StoreUnavailable, Unavailable
from later.daemon import doctor
from later.wiring.crew import Crew
from later.wiring.engine import Engine

STALLED_S = 60.0


def build(engine: Engine, crew: Crew | None) -> House:
    """What the API needs of this process."""

    async def stats() -> Mapping[str, Any]:
        workers = {"busy": len(crew.pool.attempts), "places": crew.pool.places} if crew else None
        return {
            "version": __version__,
            "pid": os.getpid(),
            "kept_in": engine.where,
            "tasks": await engine.store.counts(),
            "workers": workers,
            "outcomes": dict(crew.diary.outcomes) if crew else None,
            "overdue_ms": max([(await engine.store.overdue(lane)).late for lane in engine.store.lanes], default=0),
        }

    async def health() -> None:
        await engine.store.ping()
        if trouble := engine.store.trouble():  # a full disk, say: what is read is answered all the same
            raise StoreUnavailable(trouble)
        idle = max((manager.idle_for() for manager in crew.managers), default=0.0) if crew else 0.0
        if idle > STALLED_S:
            raise Unavailable(f"the manager has not looked at its tasks for {idle:.0f} s; restart the daemon")

    async def findings() -> list[doctor.Finding]:
        found = [*doctor.examine_store(await engine.store.describe(), replicas=engine.settings.redis_replicas)]
        found += doctor.examine_counts(await engine.store.counts())
        found += doctor.examine_clock(engine.store.now(), engine.clock.wall())
        found += doctor.examine_disk(engine.settings.state_dir)
        return found + await _examine_email(engine)

    async def examine(cursor: str | None, repair: bool) -> Mapping[str, Any]:
        return asdict(await engine.store.examine(cursor, mend=repair))

    return House(
        gate=engine.gate(),
        kept_in=engine.where,
        client=engine.client,
        moving=engine.moving,
        stats=stats,
        health=health,
        findings=findings,
        examine=examine,
        stop=lambda: os.kill(os.getpid(), signal.SIGTERM),
    )


async def _examine_email(engine: Engine) -> list[doctor.Finding]:
    """Whether the mail server lets us in, where there is one."""
    if engine.settings.email.host is None:
        return []
    action = engine.actions.get("email")
    assert isinstance(action, EmailAction)
    try:
        await action.verify()
    except (TemporaryFailure, PermanentFailure) as failure:
        return [{"subject": "email", "advice": str(failure)}]
    return []
