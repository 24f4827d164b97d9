"""Every command over tasks and over what has come, with every option."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta

import pytest

from later.cli import COMMANDS
from tests.asking import ask, asking, status, tasks
from tests.program import Program
from tests.waiting import wait_until

A_MOMENT = timedelta(milliseconds=100)

CHANGES = {
    "update": ["update", "ID", "--message", "other"],
    "schedule": ["schedule", "ID", "--in", "2d"],
    "snooze": ["snooze", "ID", "2d"],
    "execute": ["execute", "ID"],
    "delete": ["delete", "ID"],
    "retry": ["retry", "ID"],
    "get": ["get", "ID"],
}


def add(later: Program, task_id: str, **body: str) -> dict[str, str]:
    return dict(ask(later, "POST", "/v1/tasks", id=task_id, **{"message": task_id, **body}))


async def has_failed(later: Program, task_id: str) -> None:
    add(later, task_id, action="email", to="ada@example.org", **{"in": "0s"})
    await wait_until(lambda: status(later, task_id) == "failed")


async def has_come(later: Program, task_id: str) -> None:
    add(later, task_id, **{"in": "0s"})
    await wait_until(lambda: status(later, task_id) == "completed")


def due(later: Program, task_id: str) -> datetime:
    return datetime.fromisoformat(ask(later, "GET", f"/v1/tasks/{task_id}")["due"])


def from_now(later: Program, task_id: str) -> timedelta:
    task = ask(later, "GET", f"/v1/tasks/{task_id}")
    return datetime.fromisoformat(task["due"]) - datetime.fromisoformat(task["updated_at"])


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(later: Program, command: str) -> None:
    done = later.run(*command.split(), "--help")
    assert done.stdout.startswith(f"Usage: later {command}".rstrip())
    assert done.stderr == ""


def test_it_says_its_version(later: Program) -> None:
    assert re.fullmatch(r"later \d+\.\d+\.\d+\n", later.run("--version").stdout)


def test_without_a_command_it_explains_itself(later: Program) -> None:
    assert later.run(check=2).stderr.startswith("Usage: later")


def test_list_shows_what_is_still_to_come(later: Program) -> None:
    add(later, "exact", at="2045-11-25 10:14", message="two\nlines\tand\x1b[31m more")
    add(later, "waiting")
    lines = [line.split("\t") for line in later.run("list").stdout.splitlines()]
    assert ["exact", "pending", "Sat 25 Nov 2045, 10:14", "in your inbox", "two ⏎ lines and\\x1b[31m more"] in lines
    assert ["waiting", "created", "not scheduled", "in your inbox", "waiting"] in lines


def test_list_shows_one_state(later: Program) -> None:
    add(later, "one-state")
    assert {task["status"] for task in later.json("list", "--status", "created")["tasks"]} == {"created"}


async def test_list_shows_why_tasks_have_failed(later: Program) -> None:
    await has_failed(later, "lost-mail")
    [line] = [line for line in later.run("list", "--status", "failed").stdout.splitlines() if "lost-mail" in line]
    task_id, text, why = line.split("\t")
    assert (task_id, text) == ("lost-mail", "lost-mail")
    assert "127.0.0.1" in why
    assert len(why) > 20


async def test_list_shows_past_ones_too(later: Program) -> None:
    await has_come(later, "come")
    add(later, "cancelled")
    later.run("delete", "cancelled")
    assert "come\tcompleted\t" in later.run("list", "--status", "completed").stdout
    assert "cancelled\tcancelled\t" in later.run("list", "--status", "cancelled").stdout
    assert "cancelled\tcancelled\t" not in later.run("list").stdout


def test_get_shows_a_live_task(later: Program) -> None:
    add(later, "known", at="2045-11-25 10:14", message="two\nlines", action="email", to="ada@example.org")
    shown = dict(re.findall(r"^(\w+) +(.*)$", later.run("get", "known").stdout, re.M))
    assert shown["text"] == "two"
    assert shown["how"] == "by email to ada@example.org"
    assert shown["when"] == "Sat 25 Nov 2045, 10:14"
    assert shown["rule"] == "at 2045-11-25 10:14"
    assert shown["status"] == "pending"


async def test_get_shows_what_came_of_a_past_one(later: Program) -> None:
    await has_come(later, "delivered")
    shown = later.run("get", "delivered").stdout
    assert re.search(r"^receipt +kept in the inbox$", shown, re.M)
    assert later.json("get", "delivered")["receipt"] == {"detail": "kept in the inbox"}


async def test_get_shows_the_chain_of_causes(later: Program) -> None:
    await has_failed(later, "in-vain")
    shown = later.run("get", "in-vain").stdout
    assert re.search(r"^attempts +1$", shown, re.M)
    assert re.search(r"^failure +\w+ \d+ \w+, [\d:]+: .*127\.0\.0\.1", shown, re.M)


def test_update_changes_what_is_to_be_done(later: Program) -> None:
    before = add(later, "draft", at="2045-11-25 10:14")
    done = later.run("update", "draft", "--message", "fair copy", "--action", "email", "--to", "ada@example.org")
    assert done.stdout == 'changed draft: "fair copy" comes Sat 25 Nov 2045, 10:14, by email to ada@example.org\n'
    task = later.json("update", "draft", "--message", "again")
    assert (task["message"], task["to"], task["due"]) == ("again", "ada@example.org", before["due"])
    assert task["delivery_id"] == before["delivery_id"]


@pytest.mark.parametrize("change", [["--message", "a" * 65_537], ["--action", "emial"], ["--message", ""]])
def test_update_refuses_what_add_refuses(later: Program, change: list[str]) -> None:
    ask(later, "POST", "/v1/tasks", id="firm", message="firm")
    later.run("update", "firm", *change, check=2)
    assert later.json("get", "firm")["message"] == "firm"


def test_schedule_gives_another_time(later: Program) -> None:
    add(later, "open")
    assert "comes Wed 1 Jan 2048, 00:00" in later.run("schedule", "open", "--at", "2048-01-01 00:00").stdout
    later.run("schedule", "open", "--in", "5d")
    assert abs(from_now(later, "open") - timedelta(days=5)) < A_MOMENT
    assert "comes some time between " in later.run("schedule", "open", "--within", "9d", "--after", "8d").stdout
    assert timedelta(days=8) < from_now(later, "open") + A_MOMENT
    assert from_now(later, "open") <= timedelta(days=9)
    assert later.json("schedule", "open", "--in", "1d", TZ="Asia/Tokyo")["zone"] == "Asia/Tokyo"


def test_schedule_wants_a_time(later: Program) -> None:
    add(later, "timeless")
    assert "say when" in later.run("schedule", "timeless", check=2).stderr


def test_snooze_moves_it_to_so_long_from_now(later: Program) -> None:
    add(later, "sleepy", within="300d")
    done = later.run("snooze", "sleepy", "1h30m")
    assert done.stdout.startswith('snoozed sleepy: "sleepy" comes ')
    assert "some time" not in done.stdout
    assert abs(from_now(later, "sleepy") - timedelta(minutes=90)) < A_MOMENT


async def test_snooze_brings_a_delivered_one_back(later: Program) -> None:
    await has_come(later, "back")
    first = later.json("get", "back")
    again = later.json("snooze", "back", "2d")
    assert (again["status"], again["message"]) == ("pending", "back")
    assert again["delivery_id"] != first["delivery_id"]


async def test_execute_is_now(later: Program) -> None:
    add(later, "far", within="300d")
    assert later.run("execute", "far").stdout.startswith('executing far: "far" ')
    await wait_until(lambda: status(later, "far") == "completed")


async def test_execute_brings_a_delivered_one_back(later: Program) -> None:
    await has_come(later, "encore")
    later.run("inbox")
    later.run("execute", "encore")
    await wait_until(lambda: "encore" in later.run("inbox").stdout)


def test_delete_cancels(later: Program) -> None:
    add(later, "wrong")
    assert later.run("delete", "wrong").stdout == "deleted wrong\n"
    assert later.json("get", "wrong")["status"] == "cancelled"
    assert later.run("delete", "wrong", check=3).stdout == ""


def test_delete_answers_json(later: Program) -> None:
    add(later, "wrong-too")
    assert later.json("delete", "wrong-too") == {"id": "wrong-too", "deleted": True, "running": False}


async def test_retry_tries_a_failed_one_again(later: Program) -> None:
    await has_failed(later, "once-more")
    assert later.run("retry", "once-more").stdout.startswith('retrying once-more: "once-more" ')
    await wait_until(lambda: status(later, "once-more") == "failed")
    task = later.json("get", "once-more")
    assert (task["attempts"], len(task["failures"])) == (1, 1)


def test_retry_is_for_failed_ones(later: Program) -> None:
    add(later, "fine")
    assert len(later.run("retry", "fine", check=4).stderr.splitlines()) == 1


async def test_retry_all_tries_each_once(later: Program) -> None:
    for number in range(3):
        await has_failed(later, f"all-{number}")
    count = sum(task["status"] == "failed" for task in tasks(later))
    assert later.run("retry", "--all").stdout == f"retrying {count} failed tasks\n"
    await wait_until(lambda: sum(task["status"] == "failed" for task in tasks(later)) == count)
    assert later.json("retry", "--all") == {"retried": count}


async def test_the_inbox_shows_thoughts_and_marks_them(later: Program) -> None:
    later.run("inbox")
    await has_come(later, "news")
    await has_come(later, "more-news")
    kept = later.run("inbox", "--keep").stdout
    shown = later.run("inbox").stdout
    assert shown == kept
    assert re.search(r"^\w+ \d+ \w+, [\d:]+  news  \(news\)\n.*  more-news  \(more-news\)$", shown, re.M)
    again = later.run("inbox")
    assert (again.stdout, again.stderr) == ("", "nothing new\n")


async def test_the_inbox_answers_json(later: Program) -> None:
    later.run("inbox")
    await has_come(later, "json")
    assert [task["id"] for task in later.json("inbox")["tasks"]] == ["json"]
    assert later.json("inbox") == {"tasks": [], "next": None}


async def test_history_shows_what_came_of_tasks(later: Program) -> None:
    await has_come(later, "old")
    await has_failed(later, "older")
    add(later, "oldest")
    later.run("delete", "oldest")
    lines = [line.split("\t") for line in later.run("history", "--limit", "3").stdout.splitlines()]
    assert [line[1:3] for line in lines] == [["oldest", "cancelled"], ["older", "failed"], ["old", "completed"]]
    assert "127.0.0.1" in lines[1][3]
    assert lines[2][3:] == ["kept in the inbox", "old"]
    assert [task["id"] for task in later.json("history", "--limit", "1")["tasks"]] == ["oldest"]
    assert {task["status"] for task in later.json("history", "--status", "failed")["tasks"]} == {"failed"}


async def test_stats_say_how_many_and_where(later: Program) -> None:
    await has_come(later, "counted")
    shown = later.run("stats").stdout
    assert re.search(r"^kept in +Valkey [\d.]+ in ~/state/redis$", shown, re.M)
    assert re.search(r"^since start +\d+ completed", shown, re.M)
    figures = later.json("stats")
    assert {"created", "pending", "running", "failed"} <= set(figures["tasks"])
    assert figures["yours"]["owner"]


def test_nothing_to_mend(later: Program) -> None:
    done = later.run("doctor", check=None)
    findings = later.json("doctor", check=None)["findings"]  # type: ignore[arg-type]
    assert done.returncode == (1 if findings else 0)


def test_health_says_ok(later: Program) -> None:
    assert later.run("health").stdout == "ok\n"
    assert later.json("health") == {"status": "ok"}


@pytest.mark.parametrize("command", CHANGES)
def test_an_unknown_task_is_not_found(later: Program, command: str) -> None:
    words = [word.replace("ID", "nobody") for word in CHANGES[command]]
    done = later.run(*words, check=3)
    assert "'nobody'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    problem = json.loads(later.run(*words, "--json", check=3).stderr)
    assert (problem["status"], problem["title"]) == (404, "Not found")


def test_a_long_list_is_shown_whole(later: Program) -> None:
    with asking(later) as client:
        names = [f"many-{number}" for number in range(201)]
        for name in names:
            client.post("/v1/tasks", json={"id": name, "message": "x"})
        listed = later.json("list", "--status", "created")
        assert {task["id"] for task in listed["tasks"]} >= set(names)
        assert listed["next"] is None
        for name in names:
            client.delete(f"/v1/tasks/{name}")
