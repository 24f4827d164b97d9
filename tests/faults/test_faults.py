"""The history checker: on this build it must find nothing, and on builds with a fault it must find that."""

from __future__ import annotations

import anyio
import pytest

from tests.faults.campaign import Plan, run
from tests.faults.mutants import MUTANTS, hunt_all
from tests.wallclock import wallclock

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


def test_nothing_is_lost_early_or_repeated_without_a_reason_in_a_minute_of_faults() -> None:
    report = anyio.run(run, Plan(seed=1, seconds=60))
    print(report)
    assert {name: cases[:5] for name, cases in report.verdict.found.items() if cases} == {}
    assert report.exits == 0
    assert len(report.history.arrivals) > 1000
    assert len(report.history.faults) > 20


def test_every_mutant_is_seen() -> None:
    with wallclock():  # so that it is skipped here, and not in the processes below, where none can be built
        pass
    sightings = list(hunt_all(seed=1))
    print(*sightings, sep="\n")
    assert [one.name for one in sightings if not one.expected] == []
    assert len(sightings) == len(MUTANTS)
