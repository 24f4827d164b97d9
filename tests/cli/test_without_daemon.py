"""With a Redis of somebody's and no daemon, a thought is written there at once; a daemon performs it later."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.asking import status
from tests.cli.conftest import alone
from tests.program import Program, installed
from tests.servers import Server, served
from tests.waiting import wait_until

pytestmark = alone


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served("valkey") as server:
        yield server


@pytest.fixture
def later(server: Server) -> Iterator[Program]:
    with installed(LATER_REDIS_URL=server.url, LATER_AUTOSTART="1") as program:
        yield program


async def test_a_thought_waits_there_for_a_daemon(later: Program, server: Server) -> None:
    done = later.run("add", "patience", "--in", "0s", "--id", "patience")
    assert done.stdout.startswith('added patience: "patience" comes ')
    assert done.stdout.endswith(
        f", in your inbox; kept in Redis at {server.socket}, where it waits for a daemon: `later run`\n"
    )
    assert done.stderr == ""
    assert not later.state.exists()
    assert "'patience'" in later.run("add", "other", "--in", "0s", "--id", "patience", check=4).stderr
    later.start()
    await wait_until(lambda: status(later, "patience") == "completed")
    assert "patience" in later.run("inbox").stdout


def test_what_is_refused_is_refused_there_too(later: Program, server: Server) -> None:
    size = server.ask("DBSIZE")
    done = later.run("add", "x", "--action", "mial", check=2)
    assert len(done.stderr.splitlines()) == 1
    assert server.ask("DBSIZE") == size


def test_other_commands_need_a_daemon(later: Program) -> None:
    assert "start one: `later run`" in later.run("list", check=69).stderr


def test_a_redis_that_is_not_there_is_told(later: Program) -> None:
    nowhere = {"LATER_REDIS_URL": "redis://127.0.0.1:9/0"}
    done = later.run("add", "x", "--in", "3d", "--id", "x", check=69, **nowhere)
    assert len(done.stderr.splitlines()) == 1
    assert "Redis at redis://127.0.0.1:9/0 does not answer; check LATER_REDIS_URL" in done.stderr


def test_a_user_whom_the_server_refuses_is_told_so(later: Program) -> None:
    with served("valkey") as locked:
        locked.ask("CONFIG", "SET", "requirepass", "open-sesame")
        done = later.run("add", "x", "--in", "3d", check=69, LATER_REDIS_URL=locked.url)
    assert len(done.stderr.splitlines()) == 1
    assert "the store refuses this user" in done.stderr


def test_a_database_that_the_server_does_not_have_is_told(later: Program) -> None:
    with served("valkey", databases="1") as server:
        done = later.run("add", "x", "--in", "3d", check=69, LATER_REDIS_URL=f"{server.url}?db=7")
    assert "DB index is out of range; check LATER_REDIS_URL" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_address_that_is_none_is_refused_by_name(later: Program) -> None:
    done = later.run("add", "x", "--in", "3d", check=2, LATER_REDIS_URL="localhost:6379")
    assert done.stderr.startswith("later: LATER_REDIS_URL: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_server_that_may_forget_is_named_by_the_doctor_and_one_that_is_gone_by_health(later: Program) -> None:
    with served("valkey", appendonly="no", maxmemory_policy="allkeys-lru") as careless:
        later.env["LATER_REDIS_URL"] = careless.url
        later.start()
        findings = later.run("doctor", check=1).stdout.splitlines()
        assert findings[:2] == [
            "store: nothing is written to disk (appendonly no): a restart loses tasks; set appendonly yes",
            "store: maxmemory-policy is allkeys-lru: a full server drops tasks; set maxmemory-policy noeviction",
        ]
        assert [f"store: {event['advice']}" for event in later.events("store_unsafe")] == findings[:2]
        assert len(json.loads(later.run("doctor", "--json", check=1).stdout)["findings"]) == len(findings)
        careless.end()
        began = time.monotonic()
        assert "the store does not answer" in later.run("health", check=1).stderr.lower()
        assert time.monotonic() - began < 5
        assert later.stop() == 0
