"""Joins those who perform due tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from later.daemon.diary import Diary
from later.daemon.leases import Leases
from later.daemon.manager import Manager
from later.daemon.performer import Performer
from later.daemon.pool import Pool
from later.daemon.settler import Settler
from later.daemon.suspects import Suspects
from later.daemon.worker import Worker
from later.wiring.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Who does what with due tasks."""

    diary: Diary
    settler: Settler
    pool: Pool
    leases: Leases
    managers: Sequence[Manager]


def hire(engine: Engine) -> Crew:
    """A crew for this engine: one pool, and a manager for each lane."""
    settings, store, rng = engine.settings, engine.store, engine.rng
    settler, diary = Settler(store, rng), Diary(engine.clock)
    worker = Worker(
        store=store,
        performer=Performer(engine.actions, timeout=settings.timeout_seconds),
        settler=settler,
        policy=settings.retry.policy(),
        rng=rng,
        diary=diary,
    )
    pool = Pool(settings.workers, Suspects(worker, store, rng, lease=settings.lease).work)
    managers = [
        Manager(
            lane,
            store=store,
            pool=pool,
            clock=engine.clock,
            rng=rng,
            batch=settings.batch,
            lease=settings.lease,
            wakeup_before=settings.wakeup_before_seconds,
        )
        for lane in store.lanes
    ]
    leases = Leases(store, pool, rng, lease=settings.lease)
    return Crew(diary=diary, settler=settler, pool=pool, leases=leases, managers=managers)
