"""The routes for moving house: whose tasks they give, whose they take, and what they answer to what is no line."""

from __future__ import annotations

import getpass
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from later.api.lines import LINE_BYTES

NDJSON = {"content-type": "application/x-ndjson"}


def exported(client: httpx2.Client, **query: Any) -> list[dict[str, Any]]:
    """All lines."""
    lines: list[dict[str, Any]] = []
    for part in ("live", "past"):
        cursor: dict[str, str] = {}
        while True:
            page = client.get("/v1/export", params={"part": part, **query, **cursor}).json()
            assert page["unreadable"] == []
            assert (page["total"] is None) is bool(cursor)
            lines += page["lines"]
            if page["next"] is None:
                break
            cursor = {"cursor": page["next"]}
    return lines


def imported(client: httpx2.Client, *lines: Any) -> list[dict[str, str]]:
    answer = client.post("/v1/import", content=b"\n".join(json.dumps(line).encode() for line in lines), headers=NDJSON)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["results"])


def live(client: httpx2.Client, task_id: str) -> dict[str, Any]:
    """The line of a live task."""
    [line] = [line for line in exported(client) if (line["kind"], line["task"]["id"]) == ("live", task_id)]
    return line


@pytest.fixture
def both(me: httpx2.Client, ada: httpx2.Client) -> Iterator[None]:
    """A live and a past task of either."""
    for client in (me, ada):
        client.post("/v1/tasks", json={"id": "moving-live", "message": "here", "in": "30d"})
        client.post("/v1/tasks", json={"id": "moving-past", "message": "gone", "in": "30d"})
        client.delete("/v1/tasks/moving-past")
    yield
    for client in (me, ada):
        client.delete("/v1/tasks/moving-live")


@pytest.mark.usefixtures("both")
class TestRights:
    def test_lines_are_ones_own(self, me: httpx2.Client, ada: httpx2.Client) -> None:
        for client, owner in ((me, getpass.getuser()), (ada, "ada")):
            for limit in (1, 3, 1000):
                lines = exported(client, limit=limit)
                assert {line["task"]["owner"] for line in lines} == {owner}
                ids = {(line["kind"], line["task"]["id"]) for line in lines}
                assert {("live", "moving-live"), ("past", "moving-past")} <= ids

    def test_only_the_daemons_own_user_sees_all_of_them(self, me: httpx2.Client, ada: httpx2.Client) -> None:
        assert {line["task"]["owner"] for line in exported(me, all=1)} >= {getpass.getuser(), "ada"}
        answer = ada.get("/v1/export", params={"part": "live", "all": 1})
        assert answer.status_code == 403
        assert answer.json()["detail"] == "this needs the right to admin, which ada does not have here"

    def test_nobody_writes_for_another(self, me: httpx2.Client, ada: httpx2.Client) -> None:
        mine = [line for line in exported(me) if line["task"]["id"].startswith("moving-")]
        assert len(mine) >= 2
        before = exported(me)
        for line in mine:
            line["task"]["message"] = "forged"
            line["task"]["id"] += "-forged"
        reason = f"it belongs to {getpass.getuser()}; only an administrator keeps tasks for others"
        assert imported(ada, *mine) == [{"result": "refused", "reason": reason}] * len(mine)
        assert exported(me) == before

    def test_the_daemons_own_user_writes_for_all(self, me: httpx2.Client, ada: httpx2.Client) -> None:
        line = live(ada, "moving-live")
        ada.delete("/v1/tasks/moving-live")
        assert imported(me, line) == [{"result": "finished"}]
        line["task"]["delivery_id"] = "anew.1"
        assert imported(me, line) == [{"result": "added"}]
        assert ada.get("/v1/tasks/moving-live").json()["delivery_id"] == "anew.1"
        assert imported(ada, line) == [{"result": "kept"}]


def test_each_line_stands_for_itself(ada: httpx2.Client) -> None:
    ada.post("/v1/tasks", json={"id": "model", "message": "here", "in": "30d"})
    model = live(ada, "model")
    lines = [json.loads(json.dumps(model)) for _ in range(3)]
    for at, line in enumerate(lines):
        line["task"] |= {"id": f"each-{at}", "delivery_id": f"each{at}.1"}
    lines[1]["task"]["due"] = "soon"
    results = imported(ada, lines[0], 7, lines[1], {}, lines[2])
    assert [result["result"] for result in results] == ["added", "refused", "refused", "refused", "added"]
    assert results[2]["reason"].startswith("task.due: 'soon' is not a time")
    for at, status in enumerate((200, 404, 200)):
        assert ada.get(f"/v1/tasks/each-{at}").status_code == status
        ada.delete(f"/v1/tasks/each-{at}")
    ada.delete("/v1/tasks/model")


def test_what_comes_out_is_what_the_description_says(me: httpx2.Client) -> None:
    described = me.get("/openapi.json").json()["paths"]
    assert described["/v1/import"]["post"]["requestBody"]["content"].keys() == {"application/x-ndjson"}
    assert {one["name"] for one in described["/v1/export"]["get"]["parameters"]} == {"part", "cursor", "limit", "all"}


@pytest.mark.parametrize("cursor", ["x", "-1", "1.2.3", "1" * 19, "a.1" + "0" * 18, "7;8"])
def test_a_cursor_that_cannot_be_is_refused(me: httpx2.Client, cursor: str) -> None:
    for part in ("live", "past"):
        answer = me.get("/v1/export", params={"part": part, "cursor": cursor})
        assert answer.status_code == 422, (part, answer.text)


def test_a_walk_of_another_life_of_the_server_begins_again(me: httpx2.Client) -> None:
    answer = me.get("/v1/export", params={"part": "live", "cursor": f"{'0' * 40}.17"})
    assert answer.status_code == 409
    assert answer.json()["detail"] == "the store was restarted in the meantime; begin again"


def test_a_cursor_of_the_live_ones_is_none_of_the_past_ones(me: httpx2.Client) -> None:
    assert me.get("/v1/export", params={"part": "past", "cursor": f"{'0' * 40}.17"}).status_code == 422


def test_too_many_lines_at_a_time_and_too_large_ones_are_refused(me: httpx2.Client) -> None:
    answer = me.post("/v1/import", content=b"{}\n" * 1001, headers=NDJSON)
    assert (answer.status_code, answer.json()["detail"]) == (422, "these are 1,001 lines; send at most 1,000 at a time")
    answer = me.post("/v1/import", content=b" " * (LINE_BYTES + 1), headers=NDJSON)
    assert (answer.status_code, answer.json()["detail"]) == (413, "the body is larger than 4,194,304 bytes; send less")
    assert me.post("/v1/import", content=b"\n\n", headers=NDJSON).json() == {"results": []}


def test_what_is_larger_than_other_bodies_may_be_comes_in(ada: httpx2.Client) -> None:
    payload = {"content_type": "text/plain", "text": "\x01" * 200_000}
    assert len(json.dumps(payload)) > 1024 * 1024
    ada.post("/v1/tasks", json={"id": "model", "message": "x", "in": "30d"})
    line = live(ada, "model")
    line["task"] |= {"id": "large", "delivery_id": "large.1", "payload": payload}
    assert imported(ada, line) == [{"result": "added"}]
    assert ada.get("/v1/tasks/large").json()["payload"] == payload
    for task_id in ("model", "large"):
        ada.delete(f"/v1/tasks/{task_id}")


def test_a_page_ends_early_where_its_tasks_are_large_and_none_is_lost(ada: httpx2.Client) -> None:
    large = {f"large-{at}" for at in range(70)}
    for task_id in sorted(large):
        payload = {"content_type": "text/plain", "text": "x" * 250_000}
        added = ada.post("/v1/tasks", json={"id": task_id, "message": "x", "payload": payload, "hold": True})
        assert added.status_code == 201, added.text
    assert pages_of(ada, "live", large) > 1
    for task_id in sorted(large):
        ada.delete(f"/v1/tasks/{task_id}")
    assert pages_of(ada, "past", large) > 1


def pages_of(client: httpx2.Client, part: str, ids: set[str]) -> int:
    """How many pages there are; all these are in them, and none is much larger than it may be."""
    seen: set[str] = set()
    cursor: dict[str, str] = {}
    number = 0
    while number == 0 or cursor:
        number += 1
        answer = client.get("/v1/export", params={"part": part, "limit": 1000, **cursor})
        assert len(answer.content) < 12_000_000
        page = answer.json()
        seen |= {line["task"]["id"] for line in page["lines"]}
        cursor = {"cursor": page["next"]} if page["next"] else {}
    assert ids <= seen
    return number


def around(task: str) -> bytes:
    return b'{"kind":"live","task":{' + task.encode() + b"}}"


HOSTILE = {
    "bad failures": around('"failures":[' + ",".join(['{"a":0}'] * 250_000) + "]"),
    "unknown fields": around(",".join(f'"{at}":0' for at in range(380_000))),
    "one unknown field again and again": around(",".join(['"x":0'] * 600_000)),
    "a large receipt": around('"receipt":{"x":[' + ",".join(["[]"] * 1_300_000) + "]}"),
    "a large payload": around('"payload":{"json":[' + ",".join(["0"] * 2_000_000) + "]}"),
    "many lines of unknown fields": b"\n".join([around(",".join(f'"{at}":0' for at in range(380)))] * 1000),
    "an endless kind": b'{"kind":"' + b"9" * 4_000_000 + b'"}',
    "an endless time": b'{"kind":"live","since":"' + b"9" * 4_000_000 + b'"}',
    "nothing but line ends": b"\n" * LINE_BYTES,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_made_to_hold_the_daemon_up_is_refused_at_once(
    me: httpx2.Client, ada: httpx2.Client, body: bytes
) -> None:
    over = threading.Event()
    slowest = 0.0

    def look() -> None:
        nonlocal slowest
        while not over.is_set():
            began = time.monotonic()
            assert me.get("/health").status_code == 200
            slowest = max(slowest, time.monotonic() - began)

    looking = threading.Thread(target=look)
    looking.start()
    began = time.monotonic()
    answer = ada.post("/v1/import", content=body, headers=NDJSON)
    took = time.monotonic() - began
    over.set()
    looking.join()
    assert answer.status_code in (200, 422)
    assert answer.status_code == 422 or {one["result"] for one in answer.json()["results"]} == {"refused"}
    assert len(answer.content) < 400 * 1000
    assert all(len(one["reason"]) <= 300 for one in answer.json().get("results", ()))
    assert took < 1.5
    assert slowest < 0.8
