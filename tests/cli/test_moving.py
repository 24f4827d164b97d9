"""Moving house with the real program: a backup, another machine, another number of partitions, and all that breaks."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import house
from tests.asking import ask, tasks
from tests.cli.conftest import MAIL_THAT_FAILS, alone
from tests.cli.forked import forking
from tests.program import Program, installed
from tests.servers import served
from tests.terminal import on_a_terminal
from tests.waiting import wait_until

ME = getpass.getuser()
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def here() -> Iterator[Program]:
    """A house with a task in each state; nothing is changed there."""
    with installed(**MAIL_THAT_FAILS) as program:
        program.start()
        ask(program, "POST", "/v1/tasks", id="surprise", message="call mum — ü🙈", within="30d")
        ask(program, "POST", "/v1/tasks", id="held", message="some day", hold=True)
        ask(program, "POST", "/v1/tasks", id="unsent", message="x", to="a@example.org", action="email", **{"in": "0s"})
        for task_id in ("come", "read"):
            ask(program, "POST", "/v1/tasks", id=task_id, message="it came", **{"in": "0s"})
        ask(program, "POST", "/v1/tasks", id="dropped", message="never mind", **{"in": "30d"})
        ask(program, "DELETE", "/v1/tasks/dropped")
        wait_for(lambda: ask(program, "GET", "/v1/stats")["yours"] == {"owner": ME, "unread": 2, "failed": 1})
        [read] = [one for one in ask(program, "GET", "/v1/inbox")["tasks"] if one["id"] == "read"]
        ask(program, "POST", "/v1/inbox/read", delivery_ids=[read["delivery_id"]])
        with forking(program) as forked:
            yield forked


@pytest.fixture(scope="module")
def there() -> Iterator[Program]:
    """Another house with its daemon running, in which each test has ids of its own."""
    with installed(**MAIL_THAT_FAILS) as program:
        program.start()
        with forking(program) as forked:
            yield forked


@pytest.fixture(scope="module")
def exported(here: Program) -> Path:
    here.run("export", "backup.jsonl")
    return here.home / "backup.jsonl"


def wait_for(condition: Any) -> None:
    import anyio

    anyio.run(lambda: wait_until(condition))


def everything(program: Program) -> dict[str, Any]:
    """All that its owner sees."""
    return {
        "live": sorted(tasks(program), key=lambda task: str(task["id"])),
        "past": ask(program, "GET", "/v1/history?limit=1000")["tasks"],
        "unread": [task["id"] for task in ask(program, "GET", "/v1/inbox")["tasks"]],
    }


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def numbered(complaints: str) -> list[int]:
    return [int(line.split()[2]) for line in complaints.splitlines() if line.startswith("later: line ")]


class TestExport:
    def test_a_file_is_whole_private_and_says_what_it_is(self, here: Program, exported: Path) -> None:
        first, *rest, last = lines_of(exported)
        assert (first["later"], first["format"], first["all"]) == ("export", 1, False)
        assert [line["kind"] for line in rest] == ["live"] * 3 + ["past"] * 4
        assert last == {"later": "end", "live": 3, "past": 4, "left_out": 0}
        assert exported.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in here.home.glob("*.part")] == []

    def test_what_cannot_be_written_is_told_by_its_own_name(self, here: Program) -> None:
        refused = here.run("export", "nowhere/backup.jsonl", check=1)
        assert refused.stderr == "later: nowhere/backup.jsonl cannot be written: no such file or directory\n"

    def test_a_file_that_is_there_stays(self, here: Program, exported: Path) -> None:
        before = exported.read_bytes()
        refused = here.run("export", "backup.jsonl", check=4)
        assert refused.stderr == "later: backup.jsonl is there already, and stays; name another file\n"
        assert exported.read_bytes() == before

    def test_without_a_file_it_goes_to_standard_output(self, here: Program, exported: Path) -> None:
        done = here.run("export")
        assert sorted(done.stdout.splitlines()[1:]) == sorted(exported.read_text().splitlines()[1:])
        assert done.stderr == "exported 3 live and 4 past tasks\n"
        summary = here.run("export", "--json").stderr
        assert json.loads(summary) == {"file": None, "live": 3, "past": 4, "left_out": 0}

    @pytest.mark.slow
    def test_a_record_that_cannot_be_read_is_named_and_the_others_come(self) -> None:
        with served("valkey") as server, installed(LATER_REDIS_URL=server.url) as program:
            program.start()
            for task_id in ("sound", "spoilt"):
                program.run("add", "x", "--hold", "--id", task_id)
            server.ask("HSET", f"later:{{0}}:task:{ME}/spoilt", "created", "long ago")
            done = program.run("export", "b", check=1)
            assert done.stderr == f"later: {ME}/spoilt cannot be read, so it is left out; `later fsck` says more\n"
            assert lines_of(program.home / "b")[-1] == {"later": "end", "live": 1, "past": 0, "left_out": 1}

    def test_ctrl_c_leaves_nothing_half_written(self, here: Program) -> None:
        assert here.daemon is not None
        here.daemon.send_signal(signal.SIGSTOP)
        try:
            with background(here, "export", "broken-off") as exporting:
                wait_for(lambda: list(here.home.glob("broken-off.*.part")))
                exporting.send_signal(signal.SIGINT)
                assert exporting.wait(20) == 130
        finally:
            here.daemon.send_signal(signal.SIGCONT)
        assert list(here.home.glob("broken-off*")) == []

    def test_a_bar_is_for_those_who_watch(self, here: Program) -> None:
        seen = on_a_terminal(here, "export", "watched")
        assert seen.status == 0
        assert "exporting live tasks" in seen.screen
        assert "exporting past tasks" in seen.screen
        assert "100%" in seen.screen


class TestImport:
    def test_another_machine_has_what_this_one_had_and_a_second_time_changes_nothing(
        self, here: Program, exported: Path
    ) -> None:
        with installed(**MAIL_THAT_FAILS) as anew:
            anew.start()
            done = anew.run("import", str(exported))
            assert (done.stdout, done.stderr) == (f"imported 7 tasks from {exported}\n", "")
            assert everything(anew) == everything(here)
            anew.run("execute", "surprise")
            anew.run("delete", "held")
            wait_for(lambda: [task["id"] for task in tasks(anew)] == ["unsent"])
            anew.run("inbox")
            before = everything(anew)
            results = {"added": 0, "kept": 5, "finished": 2, "refused": 0, "whole": True}
            assert anew.json("import", str(exported)) == {"file": str(exported), **results}
            assert everything(anew) == before

    def test_damaged_lines_are_told_by_their_numbers_and_the_rest_comes(self, there: Program) -> None:
        file = house.write(there.home / "damaged", ME, lives=4, pasts=3)
        whole = file.read_bytes()
        lines = whole.splitlines()
        lines[2] = lines[2][:100]
        lines[4] = b"\xff\x00garbage"
        lines[5] = lines[5].replace(b'"occurrence": 1', b'"occurrence": -1')
        lines.insert(3, b" " * 5_000_000)
        lines.insert(1, b'{"kind":"unheard-of"}')
        file.write_bytes(b"\n".join(lines) + b"\n")
        done = there.run("import", "damaged", check=1)
        assert sorted(numbered(done.stderr)) == [2, 4, 5, 7, 8]
        assert "line 5 is left out: it is no JSON object, or longer than any task" in done.stderr
        assert "line 8 is left out: task.occurrence: " in done.stderr
        assert done.stdout == "imported 4 tasks from damaged, 5 refused\n"
        file.write_bytes(whole)
        assert there.run("import", "damaged").stdout == "imported 3 tasks from damaged, 4 here already\n"

    def test_a_file_that_was_cut_off_is_noticed_and_its_tasks_come(self, there: Program) -> None:
        cut = house.write(there.home / "cut", ME, lives=3, pasts=2)
        text = cut.read_bytes()
        cut.write_bytes(text[: text.index(b'"kind": "past"') + 50])
        done = there.run("import", "cut", check=1)
        assert done.stdout == "imported 3 tasks from cut, 1 refused\n"
        assert numbered(done.stderr) == [5]
        assert "cut was cut off: its last line is missing" in done.stderr
        assert json.loads(there.run("import", "cut", "--json", check=1).stdout)["whole"] is False

    def test_a_file_that_lost_lines_is_noticed(self, there: Program) -> None:
        short = house.write(there.home / "short", ME, lives=5, pasts=2)
        lines = short.read_bytes().splitlines(keepends=True)
        short.write_bytes(b"".join([*lines[:2], *lines[4:]]))
        done = there.run("import", "short", check=1)
        assert done.stderr == "later: short has 5 tasks, but had 7 when it was written\n"
        assert done.stdout == "imported 5 tasks from short\n"

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (b"", "is not a file that `later export` wrote: its first line should say so"),
            (b'{"kind":"live"}\n', "is not a file that `later export` wrote: its first line should say so"),
            (b"\x1f\x8b\x00\xff", "is not a file that `later export` wrote: its first line should say so"),
            (b'{"later":"export","format":2,"version":"9.0"}\n', "was written by Later 9.0 in format 2; this one, "),
        ],
        ids=["empty", "headless", "binary", "newer"],
    )
    def test_what_is_no_export_is_refused_whole(
        self, here: Program, content: bytes, sentence: str, tmp_path: Path
    ) -> None:
        (tmp_path / "other").write_bytes(content)
        done = here.run("import", str(tmp_path / "other"), check=2)
        assert sentence in done.stderr
        assert len(done.stderr.splitlines()) == 1

    @pytest.mark.parametrize(
        ("file", "sentence"),
        [
            ("nowhere", "nowhere cannot be read: no such file or directory"),
            (".", ". cannot be read: is a directory"),
            ("pipe", "pipe is read twice, so it has to be a file and no pipe"),
        ],
    )
    def test_what_cannot_be_read_is_told(self, here: Program, file: str, sentence: str) -> None:
        pipe = here.home / "pipe"
        if not pipe.exists():
            os.mkfifo(pipe)
        held = os.open(pipe, os.O_RDWR)  # so that opening it to read does not wait for somebody who writes
        try:
            assert here.run("import", file, check=2).stderr == f"later: {sentence}\n"
        finally:
            os.close(held)

    def test_another_task_of_that_id_stays_and_is_told(self, there: Program) -> None:
        house.write(there.home / "taken", ME, lives=2, pasts=0)
        there.run("add", "mine", "--hold", "--id", "taken1")
        done = there.run("import", "taken", check=1)
        assert "line 3 is left out: 'taken1' is another task here already, and it stays" in done.stderr
        assert there.json("get", "taken1")["message"] == "mine"
        assert done.stdout == "imported 1 task from taken, 1 refused\n"

    def test_a_task_whose_action_is_missing_is_kept_and_told_once(self, there: Program) -> None:
        lines = [house.live(ME, f"bell{at}", action="bell") for at in range(3)]
        text = "".join(f"{json.dumps(line)}\n" for line in (house.first(), *lines, house.last(3, 0)))
        (there.home / "bells").write_text(text)
        done = there.run("import", "bells")
        assert done.stderr.splitlines() == [
            "later: 3 tasks kept that could not be performed here as things stand: "
            "no action 'bell'; known: console, desktop, email, inbox"
        ]
        assert there.json("get", "bell2")["status"] == "pending"

    def test_a_bar_is_for_those_who_watch(self, here: Program, exported: Path) -> None:
        seen = on_a_terminal(here, "import", str(exported))
        assert f"importing {exported}" in seen.screen
        assert "100%" in seen.screen
        assert "7 here already" in seen.screen

    def test_it_goes_on_where_ctrl_c_ended_it(self, there: Program) -> None:
        house.write(there.home / "many", ME, lives=1500, pasts=100)
        before = pending(there)
        with background(there, "import", "many") as importing:
            wait_for(lambda: pending(there) > before + 100)
            importing.send_signal(signal.SIGINT)
            assert importing.wait(20) == 130
        begun = pending(there) - before
        assert 100 < begun < 1500
        again = there.json("import", "many")
        assert (again["refused"], again["finished"]) == (0, 0)
        assert again["kept"] + again["added"] == 1600
        assert again["kept"] >= begun
        assert pending(there) == before + 1500

    @pytest.mark.slow
    def test_it_goes_on_by_itself_when_the_daemon_is_killed_and_comes_back(self, program: Program) -> None:
        program.start()
        house.write(program.home / "many", ME, lives=3000, pasts=0)
        with background(program, "import", "many", "--json") as importing:
            wait_for(lambda: pending(program) > 100)
            program.stop(signal.SIGKILL)
            program.start()
            said, _ = importing.communicate(timeout=60)
        result = json.loads(said)
        assert (importing.returncode, result["refused"]) == (0, 0)
        assert result["added"] + result["kept"] == 3000
        assert pending(program) == 3000


class TestElsewhere:
    @alone
    @pytest.mark.slow
    def test_with_somebodys_redis(self, exported: Path, here: Program) -> None:
        with served("valkey") as server, installed(LATER_REDIS_URL=server.url, **MAIL_THAT_FAILS) as program:
            program.start()
            assert program.run("import", str(exported)).stdout == f"imported 7 tasks from {exported}\n"
            program.run("export", "again")
            assert sorted(map(str, lines_of(program.home / "again")[1:])) == sorted(map(str, lines_of(exported)[1:]))
            assert everything(program) == everything(here)

    @alone
    def test_with_somebodys_redis_and_no_daemon_nothing_is_archived_where_no_daemon_looks(self, exported: Path) -> None:
        with served("valkey") as server, installed(LATER_REDIS_URL=server.url) as program:
            for words in (["import", str(exported)], ["export"]):
                assert "start one: `later run` here" in program.run(*words, check=69).stderr
            assert not program.state.exists()
            assert server.ask("DBSIZE") == 0

    @alone
    def test_with_the_embedded_store_a_daemon_is_needed(self, exported: Path) -> None:
        with installed() as program:
            for words in (["import", str(exported)], ["export"]):
                assert "start one: `later run` here" in program.run(*words, check=69).stderr

    @pytest.mark.slow
    def test_over_tcp_one_moves_ones_own(self, exported: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        with installed(LATER_PORT=port, LATER_TOKEN=TOKEN, LATER_OWNER="ada") as daemon:
            daemon.start()
            away = {"LATER_URL": f"http://127.0.0.1:{port}"}
            for task_id in ("a", "b"):
                daemon.run("add", "x", "--hold", "--id", task_id, **away)
            daemon.run("add", "x", "--hold", "--id", "not-hers")
            daemon.run("export", "hers", **away)
            assert {line["task"]["id"] for line in lines_of(daemon.home / "hers")[1:-1]} == {"a", "b"}
            assert daemon.run("import", "hers", **away).stdout == "imported 0 tasks from hers, 2 here already\n"
            refused = daemon.run("export", "all", "--all", check=1, **away)
            assert refused.stderr == "later: this needs the right to admin, which ada does not have here\n"
            assert not (daemon.home / "all").exists()
            refused = daemon.run("import", str(exported), check=1, **away)
            assert refused.stderr.count(f"it belongs to {ME}; only an administrator keeps tasks for others") == 7


class TestAnotherNumberOfPartitions:
    @pytest.mark.slow
    def test_the_steps_of_the_manual(self, exported: Path, here: Program) -> None:
        with installed(**MAIL_THAT_FAILS) as program:
            program.start()
            program.run("import", str(exported))
            before = everything(program)

            program.run("export", "--all", "later.jsonl")
            program.stop()
            program.start(wait=False, LATER_PARTITIONS="4")
            assert program.daemon is not None
            assert program.daemon.wait(30) == 2
            sentence = "`later export --all`, then `later import`"
            assert sentence in (program.home / "log").read_text().splitlines()[-1]

            program.state.rename(program.home / "later.old")
            program.env["LATER_PARTITIONS"] = "4"
            program.start()
            assert program.run("import", "later.jsonl").stdout == "imported 7 tasks from later.jsonl\n"
            assert everything(program) == before == everything(here)
            program.run("execute", "surprise")
            wait_for(lambda: "surprise" in everything(program)["unread"])


def background(program: Program, *arguments: str) -> subprocess.Popen[bytes]:
    """A command that a signal may end."""
    return subprocess.Popen(
        [sys.executable, "-m", "later", *arguments],
        env=program.env,
        cwd=program.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def pending(program: Program) -> int:
    return int(ask(program, "GET", "/v1/stats")["tasks"]["pending"])
