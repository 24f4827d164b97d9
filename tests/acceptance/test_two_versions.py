"""This version and the one before it on one server, as while daemons are updated one after the other."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import anyio
import pytest

from tests.acceptance.fleet import api, complaints, fleet, nothing_is_left, past
from tests.acceptance.sink import Sink, sink
from tests.program import Program
from tests.servers import Server, missing, served
from tests.waiting import wait_until

BEFORE = "40ecf00f78a5f6f48e86e53b5eb41977346b0d1a"
"""The commit with the version before this one."""
ROOT = Path(__file__).parent.parent.parent
EACH = 200
TASK = {"message": "pass 0.05", "action": "sink", "in": "3s"}
IN_HAND = 3
SETTINGS = {"LATER_WORKERS": "5", "LATER_LEASE_SECONDS": "2", "LATER_GRACE_SECONDS": "0"}


@pytest.fixture(scope="module")
def before() -> Iterator[Path]:
    """The program's tree as it was."""
    words = ["git", "-C", str(ROOT), "archive", "--format=tar", BEFORE, "later"]
    packed = subprocess.run(words, capture_output=True) if shutil.which("git") else None
    if packed is None or packed.returncode:
        missing(f"commit {BEFORE[:7]} of this repository, with git,")
    home = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    try:
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tree:
            tree.extractall(home, filter="data")
        yield home
    finally:
        shutil.rmtree(home)


@pytest.fixture
def server() -> Iterator[Server]:
    with served("valkey") as server:
        yield server


@pytest.mark.slow
async def test_each_performs_what_the_other_has_added(before: Path, server: Server) -> None:
    with sink() as arrivals:
        async with fleet(arrivals, [was(before, arrivals, server), now(server)]) as daemons:
            old, new = daemons
            assert "outcomes" not in api(old).ask("GET", "/v1/stats").body
            each_knows_again_what_the_other_has_added(old, new)
            each_withdraws_what_the_other_has_added(old, new)
            for at in range(1, EACH):
                for name, daemon in (("old", old), ("new", new)):
                    api(daemon).add(id=f"{name}-{at}", **TASK)
            await wait_until(lambda: nothing_is_left(server), within=60)

            times = Counter(line["id"] for line in arrivals.lines())
            added = {f"{name}-{at}" for name in ("old", "new") for at in range(EACH)}
            assert times == dict.fromkeys(added, 1)
            assert [line for line in arrivals.lines() if line["at"] < line["due"]] == []
            crossed = {(line["id"].partition("-")[0], line["pid"]) for line in arrivals.lines()}
            assert crossed == {(name, daemon.daemon.pid) for name in ("old", "new") for daemon in daemons}
            kept = [await past(daemon) for daemon in daemons]
            assert set[str]().union(*kept) == added
            assert [complaints(daemon) for daemon in daemons] == [[], []]
            assert [daemon.stop() for daemon in daemons] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
@pytest.mark.parametrize("ends", ["old", "new"])
async def test_each_takes_over_what_the_other_had_in_hand(
    ends: str, end: signal.Signals, before: Path, server: Server
) -> None:
    with sink() as arrivals:
        versions = {"old": was(before, arrivals, server), "new": now(server)}
        ending, staying = versions.pop(ends), *versions.values()
        async with fleet(arrivals, [ending]) as [victim]:
            ids = {f"t{at}" for at in range(IN_HAND)}
            for each in ids:
                api(victim).add(id=each, message="wait", action="sink", **{"in": "0s"})
            await wait_until(lambda: len(arrivals.lines("begun")) == IN_HAND)
            async with fleet(arrivals, [staying]) as [other]:
                victim.daemon.send_signal(end)
                await anyio.to_thread.run_sync(victim.daemon.wait)
                await wait_until(lambda: len(arrivals.lines("begun")) == 2 * IN_HAND)
                arrivals.open_gate()
                await wait_until(lambda: nothing_is_left(server))
                done = [(line["id"], line["pid"], line["crashes"]) for line in arrivals.lines("done")]
                crashes = 1 if end == signal.SIGKILL else 0
                assert sorted(done) == sorted((each, other.daemon.pid, crashes) for each in ids)
                assert await past(other) == dict.fromkeys(ids, 1)
                assert complaints(victim) + complaints(other) == []


def was(before: Path, arrivals: Sink, server: Server) -> Mapping[str, str]:
    """The environment of a daemon of the version before."""
    path = f"{before}:{arrivals.settings['PYTHONPATH']}"
    return {**SETTINGS, "LATER_REDIS_URL": server.url, "PYTHONPATH": path}


def now(server: Server) -> Mapping[str, str]:
    return {**SETTINGS, "LATER_REDIS_URL": server.url}


def each_knows_again_what_the_other_has_added(old: Program, new: Program) -> None:
    for name, one, other in (("old", old, new), ("new", new, old)):
        api(one).add(id=f"{name}-0", **TASK)
        assert api(other).ask("POST", "/v1/tasks", {"id": f"{name}-0", **TASK}).status == 200


def each_withdraws_what_the_other_has_added(old: Program, new: Program) -> None:
    for one, other in ((old, new), (new, old)):
        api(one).add(id="unwanted", **TASK)
        assert api(other).ask("DELETE", "/v1/tasks/unwanted").status == 204
