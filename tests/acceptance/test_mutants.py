"""Tests under test: each fault that is put into a copy of Later on purpose makes its part of the suite fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import mutation
from tests.mutation import ROOT, Change

CONTRACT = ("tests/contract/test_store.py", "tests/contract/test_machine.py")
WIRE = ("tests/acceptance/test_transaction.py",)
TIMING = ("tests/daemon/test_manager.py::test_nothing_starts_before_it_is_due",)
WHOSE_LATER = """
from pathlib import Path
import later

def test_it_is_the_copy_that_is_tested() -> None:
    assert Path(later.__file__).is_relative_to(Path(__file__).parents[1])
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


MUTANTS = {
    "the fence is not checked": (
        CONTRACT,
        Change("store/lua/settle.lua", "if is.claim ~= number then return 'stale' end", ""),
    ),
    "the per-user entry stays": (
        CONTRACT,
        Change("store/lua/settle.lua", "redis.pcall('ZREM', user, id)", ""),
    ),
    "tasks are due 50 ms too early": (
        CONTRACT,
        Change("store/lua/claim.lua", "'-inf', now, 'BYSCORE'", "'-inf', now + 50, 'BYSCORE'"),
    ),
    "tasks are due 50 ms too early, seen from the action": (
        TIMING,
        Change("store/lua/claim.lua", "'-inf', now, 'BYSCORE'", "'-inf', now + 50, 'BYSCORE'"),
    ),
    "the outbox is written after the transaction": (
        WIRE,
        Change("store/lua/settle.lua", "redis.call('XADD', outbox, '*', 'name', name,", "local _ = ({"),
        Change("store/lua/settle.lua", "'entry', entry, unpack(fields))", "'entry', entry, unpack(fields)})"),
        Change(
            "store/redis.py",
            "        self.outbox.written()\n        return results\n",
            "        for one in settlements:\n"
            "            if one.status is not None:\n"
            "                lane = self._layout.lane(one.task.owner, one.task.queue)\n"
            "                words = ['name', one.task.name, 'status', one.status, 'at', self.now(), 'entry',\n"
            "                         codec.pack_entry(one), *codec.pack(one.task, lane=lane.queue)]\n"
            "                await self._calls.command('XADD', keys.outbox(lane.partition), '*', *words)\n"
            "        self.outbox.written()\n        return results\n",
        ),
    ),
    "what is claimed is in no set": (
        CONTRACT,
        Change("store/lua/claim.lua", "redis.call('ZADD', running, now + lease, name)", ""),
    ),
    "an id is added twice": (
        CONTRACT,
        Change("store/lua/add.lua", "if redis.call('EXISTS', record) == 1 then", "if false then"),
    ),
    "a lease that has ended is extended": (
        CONTRACT,
        Change("store/lua/extend.lua", "held[1] == number and", ""),
    ),
    "a crash leaves no trace": (
        CONTRACT,
        Change("store/lua/recover.lua", "    one_more(record, 'crashes')\n", ""),
    ),
}


def test_an_unmodified_copy_passes(tmp_path: Path) -> None:
    outcome = suite(copied(tmp_path), *CONTRACT, *WIRE, *TIMING, "tests/test_whose_later.py")
    assert outcome.returncode == 0, outcome.stdout[-3000:]


@pytest.mark.parametrize("fault", MUTANTS)
def test_the_suite_notices_that(fault: str, tmp_path: Path) -> None:
    part, *changes = MUTANTS[fault]
    outcome = suite(copied(tmp_path, *changes), *part, "-x")
    assert outcome.returncode == 1, outcome.stdout[-3000:]
    assert re.search(r"^FAILED ", outcome.stdout, re.MULTILINE), outcome.stdout[-3000:]
    assert not re.search(r"^ERROR ", outcome.stdout, re.MULTILINE), outcome.stdout[-3000:]


def copied(place: Path, *changes: Change) -> Path:
    """The package and its tests, so changed."""
    mutation.copied(place, *changes, packages=("later", "tests"))
    shutil.copy(ROOT / "pyproject.toml", place)
    (place / "tests" / "test_whose_later.py").write_text(WHOSE_LATER)
    return place


def suite(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The default ring of these files, run on the copy."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-header", "--tb=line", *words],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=380,
    )
