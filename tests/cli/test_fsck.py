"""`later fsck`: sound or not, what it says of each damage, and that a repair ends it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from later.cli import fsck
from later.cli.fsck import Ask, Part
from later.cli.output import Refused
from later.store import codec
from tests.asking import ask, status
from tests.cli.conftest import alone
from tests.contract.world import thought
from tests.program import Program, installed
from tests.servers import Server, served
from tests.terminal import on_a_terminal
from tests.waiting import wait_until

FAR = 4_000_000_000_000


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with served("valkey") as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.ask("FLUSHALL")
    return running


@pytest.fixture
def mine(server: Server) -> Iterator[Program]:
    """On a Redis of somebody's, without a daemon."""
    with installed(LATER_REDIS_URL=server.url) as program:
        yield program


def damage(server: Server) -> None:
    """Four tasks of ana's, of which two are ill, and more."""
    for task_id in ("lost", "bad", "good", "well"):
        server.ask("HSET", f"later:{{0}}:task:ana/{task_id}", *codec.pack(thought(task_id, due=FAR), lane="default"))
        server.ask("ZADD", "later:{0}:user:ana", FAR, task_id)
        server.ask("ZADD", "later:{0}:due:default", FAR, f"ana/{task_id}")
    server.ask("ZREM", "later:{0}:due:default", "ana/lost")
    server.ask("HSET", "later:{0}:task:ana/bad", "spec", "buy milk")
    server.ask("ZADD", "later:{0}:due:default", "1", "nobody/nothing")
    server.ask("RPUSH", "later:{0}:failed", "x")


@alone
def test_without_a_daemon_it_examines_somebodys_redis(mine: Program, server: Server) -> None:
    damage(server)
    assert mine.run("fsck", check=1).stdout == (
        "records      4\n"
        "created      0\n"
        "pending      3\n"
        "running      0\n"
        "failed       0\n"
        "quarantined  1\n"
        "owners       1\n"
        "damage       1 in no state, so never performed: ana/lost\n"
        "damage       1 not readable, and not in quarantine: ana/bad\n"
        "damage       1 in a set without a record: nobody/nothing (in due:default)\n"
        "damage       1 a key that is not of its type: later:{0}:failed\n"
        "not sound: 4 damaged; `later fsck --repair` mends what it can\n"
    )
    repaired = mine.run("fsck", "--repair").stdout
    assert "damage       mended 1 of 1 in no state, so never performed: ana/lost\n" in repaired
    assert repaired.splitlines()[-1] == "sound again"
    server.ask("HSET", "later:{5}:task:ana/milk", "uid", "u")
    again = json.loads(mine.run("fsck", "--repair", "--json", check=1).stdout)
    assert again["sound"] is False
    assert again["counts"] == {"records": 4, "pending": 3, "quarantined": 1, "owners": 1}
    [damaged] = again["damages"]
    assert (damaged["kind"], damaged["mended"], damaged["names"]) == ("elsewhere", 0, ["later:{5}:task:ana/milk"])
    assert {note["kind"] for note in again["advice"]} == {"quarantined", "aside"}


async def test_a_daemon_waits_for_the_repair_of_a_key_and_goes_on(mine: Program, server: Server) -> None:
    mine.start()
    assert mine.daemon is not None
    ask(mine, "POST", "/v1/tasks", id="soon", message="m", **{"in": "1h"})
    server.ask("DEL", "later:{0}:due:default")
    server.ask("SET", "later:{0}:due:default", "garbage")
    server.ask("PUBLISH", "later:{0}:wake", "default")
    mine.wait_for_log("store_damaged")
    for command in (["add", "more"], ["doctor"]):
        refused = mine.run(*command, check=69)
        assert "later:{0}:due:default in the store is a string and cannot be used" in refused.stderr
        assert "`later fsck --repair`" in refused.stderr
    assert [task["id"] for task in ask(mine, "GET", "/v1/tasks")["tasks"]] == ["soon"]
    assert mine.run("fsck", "--repair").stdout.splitlines()[-1] == "sound again"
    assert mine.run("fsck").stdout.splitlines()[-1] == "sound"
    ask(mine, "POST", "/v1/tasks/soon/execute")
    await wait_until(lambda: status(mine, "soon") == "completed")
    assert mine.daemon.poll() is None
    assert [event["key"] for event in mine.events("store_damaged")] == ["later:{0}:due:default"]
    assert mine.events("store_lost") == []


def test_who_owns_a_task_in_quarantine_may_delete_it(mine: Program, server: Server) -> None:
    mine.start()
    owner = ask(mine, "POST", "/v1/tasks", id="bad", message="m", **{"in": "1h"})["owner"]
    server.ask("HDEL", f"later:{{0}}:task:{owner}/bad", "uid")
    mine.run("fsck", "--repair")
    assert "`later fsck` names them" in mine.run("doctor", check=1).stdout
    mine.run("delete", "bad")
    assert mine.run("fsck").stdout.splitlines()[-2:] == ["owners       0", "sound"]


def test_a_restart_in_the_middle_begins_it_again_once(capsys: pytest.CaptureFixture[str]) -> None:
    part = {"counts": {"records": 500}, "damages": [], "advice": [], "keys": 900}
    first, last = {**part, "next": "x"}, {**part, "next": None}
    restarted = Refused("the store was restarted in the meantime; begin again", status=4)
    assert fsck.examine(saying(first, restarted, first, last), repair=False, quiet=True)["counts"] == {"records": 1000}
    assert capsys.readouterr().err.startswith("later: the store was restarted in the meantime")
    for refusals in ([restarted, restarted], [Refused("no", status=1)]):
        with pytest.raises(Refused):
            fsck.examine(saying(*refusals), repair=False, quiet=True)


def saying(*answers: Part | Refused) -> Ask:
    """A daemon that gives these answers, one after the other."""
    left = list(answers)

    def ask(body: Part) -> Part:
        answer = left.pop(0)
        if isinstance(answer, Refused):
            raise answer
        return answer

    return ask


def test_on_a_terminal_it_shows_how_far_it_is(later: Program) -> None:
    ask(later, "POST", "/v1/tasks", id="one", message="m")
    seen = on_a_terminal(later, "fsck", piped=True)
    assert re.search(r"examining .*100%", seen.screen)
    assert seen.piped.splitlines()[-1] == "sound"
    assert later.run("fsck").stderr == ""
    assert "examining" not in on_a_terminal(later, "fsck", "--json").screen
