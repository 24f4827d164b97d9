"""`later add`: what it answers, what it hides, and when the same thought is added again."""

from __future__ import annotations

import re
import select
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.asking import ask, status, tasks
from tests.program import Program
from tests.waiting import wait_until

DAY = timedelta(days=1)


def due(task: dict[str, str]) -> datetime:
    return datetime.fromisoformat(task["due"])


def wait_from_now(task: dict[str, str]) -> timedelta:
    return due(task) - datetime.fromisoformat(task["created_at"])


def test_it_answers_what_when_how_and_where_it_is_kept(later: Program) -> None:
    done = later.run("add", "call mum", "--at", "2045-11-25 10:14", "--id", "mum")
    home = re.escape(str(later.state).replace(str(later.home), "~"))
    assert re.fullmatch(
        rf'added mum: "call mum" comes Sat 25 Nov 2045, 10:14, in your inbox; kept in Valkey [\d.]+ in {home}/redis\n',
        done.stdout,
    )
    assert done.stderr == ""


def test_it_answers_to_whom(later: Program) -> None:
    done = later.run("add", "call mum", "--in", "3d", "--action", "email", "--to", "ada@example.org")
    assert ", by email to ada@example.org; kept in " in done.stdout


def test_words_need_no_quotes(later: Program) -> None:
    assert later.json("add", "call", "mum", "--in", "3d")["message"] == "call mum"


def test_every_way_to_say_when(later: Program) -> None:
    assert wait_from_now(later.json("add", "x", "--in", "1h30m")) == timedelta(minutes=90)
    assert due(later.json("add", "x", "--at", "2045-11-25 10:14:15")) == datetime(2045, 11, 25, 10, 14, 15, tzinfo=UTC)
    assert due(later.json("add", "x", "--at", "2045-11-25T10:14:00+02:00")) == datetime(2045, 11, 25, 8, 14, tzinfo=UTC)
    assert timedelta() < wait_from_now(later.json("add", "x", "--within", "3d")) <= 3 * DAY
    assert 2 * DAY < wait_from_now(later.json("add", "x", "--after", "2d", "--within", "3d")) <= 3 * DAY


def test_without_a_time_it_waits_for_one(later: Program) -> None:
    done = later.run("add", "some day", "--hold", "--id", "held")
    assert done.stdout.startswith('added held: "some day" waits until you schedule it, in your inbox; ')
    assert later.json("get", "held")["status"] == "created"


async def test_in_0s_is_now(later: Program) -> None:
    task = later.json("add", "now", "--in", "0s")
    await wait_until(lambda: status(later, task["id"]) == "completed")


def test_with_no_time_at_all_it_comes_between_one_day_and_two_weeks_from_now(later: Program) -> None:
    task = later.json("add", "x")
    assert task["rule"] == "within 2w after 1d"
    assert DAY < wait_from_now(task) <= 14 * DAY


def test_the_own_default_counts_only_where_no_time_is_given(later: Program) -> None:
    own = {"LATER_WITHIN": "3h", "LATER_AFTER": "2h"}
    assert later.json("add", "x", **own)["rule"] == "within 3h after 2h"
    assert later.json("add", "x", "--within", "5h", **own)["rule"] == "within 5h"
    assert later.json("add", "x", "--in", "5h", **own)["rule"] == "in 5h"
    assert later.json("add", "x", "--hold", **own)["rule"] is None


def test_the_own_default_may_stand_in_the_file_of_settings(later: Program) -> None:
    config = later.home / "config"
    (config / "later").mkdir(parents=True, exist_ok=True)
    (config / "later" / "env").write_text("# mine\nexport LATER_WITHIN='3h' # soon\nLATER_AFTER=2h # not too soon\n")
    assert later.json("add", "x", XDG_CONFIG_HOME=str(config))["rule"] == "within 3h after 2h"


def test_a_time_is_meant_in_the_callers_zone(later: Program) -> None:
    task = later.json("add", "x", "--at", "2045-07-01 10:00", TZ="America/New_York")
    assert (task["due"], task["zone"]) == ("2045-07-01T14:00:00.000Z", "America/New_York")
    shown = later.run("get", task["id"], TZ="Asia/Tokyo").stdout
    assert "Sat 1 Jul 2045, 23:00" in shown


@pytest.mark.parametrize("zone", ["CET-1CEST,M3.5.0,M10.5.0/3", ":/usr/share/zoneinfo/Europe/Berlin"])
def test_a_zone_without_a_name_is_understood_too(later: Program, zone: str) -> None:
    assert later.json("add", "x", "--at", "2045-07-01 10:00", TZ=zone)["due"] == "2045-07-01T08:00:00.000Z"


def test_a_random_moment_stays_a_surprise(later: Program) -> None:
    task = later.json("add", "surprise", "--within", "3d", "--id", "surprise")
    moment = due(task)
    drawn = f"{moment:%a} {moment.day} {moment:%b}, {moment:%H:%M}"
    until = datetime.fromisoformat(task["window"]["until"])
    window = f"some time before {until:%a} {until.day} {until:%b}, {until:%H:%M}"
    for command in (["add", "surprise", "--within", "3d", "--id", "surprise"], ["get", "surprise"], ["list"]):
        hidden = later.run(*command).stdout
        assert window in hidden
        assert drawn not in hidden
        assert drawn in later.run(*command, "--reveal").stdout
    assert later.json("get", "surprise")["due"] == task["due"]


def test_a_window_that_has_not_begun_is_named_whole(later: Program) -> None:
    window = later.json("add", "x", "--after", "40d", "--within", "90d", "--id", "whole")["window"]
    begin, end = (f"{moment:%a} {moment.day} {moment:%b}" for moment in map(datetime.fromisoformat, window.values()))
    assert re.search(rf"^when +some time between {begin}.* and {end}", later.run("get", "whole").stdout, re.M)


def test_the_place_in_the_list_does_not_tell_it_either(later: Program) -> None:
    names = [f"later-{n}" for n in range(12)] + [f"sooner-{n}" for n in range(12)]
    for name in names:
        within = "200d" if name.startswith("later") else "100d"
        ask(later, "POST", "/v1/tasks", id=name, message="x", within=within)
    listed = [line.split("\t")[0] for line in later.run("list").stdout.splitlines()]
    assert [name for name in listed if name in names] == names[12:] + names[:12]


def test_an_id_is_drawn_of_10_characters_of_base32(later: Program) -> None:
    assert re.fullmatch("[a-z2-7]{10}", later.json("add", "x", "--in", "3d")["id"])


def test_the_same_thought_again_is_kept_once(later: Program) -> None:
    first = later.json("add", "once", "--within", "3d", "--id", "once")
    again = later.run("add", "once", "--within", "3d", "--id", "once")
    assert again.stdout.startswith('kept already once: "once" comes some time before ')
    kept = later.json("add", "once", "--within", "3d", "--id", "once")
    assert (first["disposition"], kept["disposition"]) == ("created", "kept")
    assert (kept["due"], kept["delivery_id"]) == (first["due"], first["delivery_id"])


@pytest.mark.parametrize("other", [["another"], ["taken", "--action", "email", "--to", "a@example.org"]])
def test_another_thought_with_the_same_id_is_refused_and_the_first_stays(later: Program, other: list[str]) -> None:
    later.run("add", "taken", "--at", "2045-01-01 00:00", "--id", "taken")
    refused = later.run("add", *other, "--at", "2045-01-01 00:00", "--id", "taken", check=4)
    assert "'taken'" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert later.json("get", "taken")["message"] == "taken"


async def test_one_that_has_failed_is_replaced(later: Program) -> None:
    first = later.json("add", "x", "--in", "0s", "--id", "again", "--action", "email", "--to", "a@example.org")
    await wait_until(lambda: status(later, "again") == "failed")
    again = later.run("add", "y", "--in", "3d", "--id", "again")
    assert again.stdout.startswith('added again again: "y" comes ')
    task = later.json("get", "again")
    assert (task["status"], task["message"], task["failures"]) == ("pending", "y", [])
    assert task["delivery_id"] != first["delivery_id"]


TEXTS = [
    "naïve ☕ \U0001f468\u200d\U0001f469\u200d\U0001f467 東京",
    "quote \" and ' and `",
    "two\nlines\n",
    " spaces  ",
    ".",
]


@pytest.mark.parametrize("text", [*TEXTS, "a" * 65_536])
def test_the_text_is_kept_to_the_letter(later: Program, text: str) -> None:
    task = later.json("add", text, "--in", "3d")
    assert later.json("get", task["id"])["message"] == text


def test_a_text_may_begin_with_a_dash(later: Program) -> None:
    later.run("add", "--in", "3d", "--id", "frost", "--", "-5 degrees")
    assert later.json("get", "frost")["message"] == "-5 degrees"


class Cutter:
    """Stands before the daemon's socket and takes its answers to the first `cuts` connections away."""

    def __init__(self, target: Path, path: Path, cuts: int) -> None:
        self._target, self._cuts = target, cuts
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            with caller, socket.socket(socket.AF_UNIX) as daemon:
                daemon.connect(str(self._target))
                self._pass_on(caller, daemon)

    def _pass_on(self, caller: socket.socket, daemon: socket.socket) -> None:
        while True:
            for ready in select.select([caller, daemon], [], [])[0]:
                passed = ready.recv(1 << 20)
                if ready is daemon and self._cuts:
                    self._cuts -= 1
                    return
                if not passed:
                    return
                (daemon if ready is caller else caller).sendall(passed)


@pytest.mark.parametrize("cuts", [1, 2])
def test_a_lost_answer_makes_no_second_thought(later: Program, cuts: int) -> None:
    path = later.home / f"cut-{cuts}"
    cutter = Cutter(later.state / "api.sock", path, cuts)
    text = f"lost {cuts}"
    done = later.run("add", text, "--in", "3d", check=None, LATER_SOCKET=str(path))
    if cuts == 2:
        assert done.returncode == 69
        words = re.search(r"so that it is not there twice, say (--id) (\w+)$", done.stderr)
        assert words is not None
        later.run("add", text, "--in", "3d", *words.groups())
    cutter.close()
    assert [task["message"] for task in tasks(later)].count(text) == 1
