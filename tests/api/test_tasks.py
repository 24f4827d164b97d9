"""Live tasks over HTTP: added, listed, changed, moved, and brought back."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import httpx2
import pytest

from later.api.schemas import AddedTask, TaskOut
from tests.waiting import wait_until

A_MOMENT = timedelta(milliseconds=500)

FIELDS = [
    "id",
    "owner",
    "status",
    "queue",
    "action",
    "to",
    "message",
    "payload",
    "options",
    "due",
    "nominal",
    "window",
    "zone",
    "rule",
    "occurrence",
    "delivery_id",
    "attempts",
    "crashes",
    "failures",
    "receipt",
    "version",
    "created_at",
    "updated_at",
    "started_at",
    "finished_at",
]


def add(client: httpx2.Client, task_id: str, **body: object) -> dict[str, object]:
    answer = client.post("/v1/tasks", json={"id": task_id, "message": task_id, **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def get(client: httpx2.Client, task_id: str) -> dict[str, object]:
    answer = client.get(f"/v1/tasks/{task_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def as_described(task: dict[str, object]) -> bool:
    """Whether it has exactly the fields of the description, each of its kind."""
    return set(task) == set(TaskOut.model_fields) and bool(TaskOut.model_validate(task, strict=False))


def moment(text: object) -> datetime:
    return datetime.fromisoformat(str(text))


def until_due(task: dict[str, object]) -> timedelta:
    return moment(task["due"]) - moment(task["updated_at"])


async def come(client: httpx2.Client, task_id: str) -> dict[str, object]:
    """A thought that has been delivered."""
    add(client, task_id, **{"in": "0s"})
    await wait_until(lambda: get(client, task_id)["status"] == "completed")
    return get(client, task_id)


async def failed(client: httpx2.Client, task_id: str) -> dict[str, object]:
    """A task whose only attempt was in vain."""
    add(client, task_id, action="email", to="x@example.org", **{"in": "0s"})
    await wait_until(lambda: get(client, task_id)["status"] == "failed")
    return get(client, task_id)


def test_a_task_without_a_time_is_created(me: httpx2.Client) -> None:
    added = add(me, "no-time")
    assert (added["status"], added["due"], added["disposition"]) == ("created", None, "created")
    assert add(me, "held", hold=True)["status"] == "created"


def test_a_task_is_the_same_everywhere(me: httpx2.Client) -> None:
    added = add(me, "same", at="2045-01-01 10:00", zone="Asia/Tokyo")
    assert list(added) == [*FIELDS, "disposition", "kept_in"]
    assert AddedTask.model_validate(added)
    one = get(me, "same")
    assert list(one) == FIELDS
    assert as_described(one)
    assert one == {name: added[name] for name in FIELDS}
    assert one in me.get("/v1/tasks?limit=1000").json()["tasks"]
    assert (one["due"], one["zone"], one["rule"]) == ("2045-01-01T01:00:00.000Z", "Asia/Tokyo", "at 2045-01-01 10:00")


def test_an_id_is_drawn_where_none_is_given(me: httpx2.Client) -> None:
    answer = me.post("/v1/tasks", json={"message": "x"})
    assert answer.status_code == 201
    assert len(answer.json()["id"]) == 10


def test_a_random_moment_comes_with_its_window(me: httpx2.Client) -> None:
    task = add(me, "random", within="3d", after="1d")
    window = task["window"]
    assert isinstance(window, dict)
    assert moment(window["until"]) - moment(window["from"]) == timedelta(days=2)
    assert moment(window["from"]) < moment(task["due"]) <= moment(window["until"])


def test_the_same_again_is_kept(me: httpx2.Client) -> None:
    first = add(me, "twice", within="3d")
    again = me.post("/v1/tasks", json={"id": "twice", "message": "twice", "within": "3d"})
    assert again.status_code == 200
    assert again.json() == {**first, "disposition": "kept"}


@pytest.mark.parametrize("other", [{"message": "other"}, {"to": "x@example.org"}, {"within": "4d"}, {"zone": "UTC"}])
def test_another_one_with_the_same_id_is_refused(me: httpx2.Client, other: dict[str, str]) -> None:
    body = {"id": "mine", "message": "mine", "within": "3d", "action": "email", "to": "y@example.org"}
    me.post("/v1/tasks", json=body)
    assert me.post("/v1/tasks", json={**body, **other}).status_code == 409
    assert get(me, "mine")["message"] == "mine"


async def test_one_that_has_failed_is_replaced(me: httpx2.Client) -> None:
    before = await failed(me, "replaced")
    added = add(me, "replaced", **{"in": "3d"})
    assert added["disposition"] == "replaced"
    assert added["delivery_id"] != before["delivery_id"]
    assert get(me, "replaced")["failures"] == []


@pytest.mark.parametrize(
    "message",
    [
        "naïve ☕ 東京 \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\r\n\t\x01\x7f\x85\u2028",
        "a" * 65_536,
        "\ufeff",
        "\\u0041 \\n",
    ],
    ids=["emoji", "controls", "longest", "bom", "escapes"],
)
def test_a_message_comes_back_to_the_byte(me: httpx2.Client, message: str) -> None:
    added = me.post("/v1/tasks", json={"message": message}).json()
    assert get(me, added["id"])["message"] == message


@pytest.mark.parametrize(
    "payload",
    [
        {"text": "plain ☕"},
        {"content_type": "application/json", "json": {"a": [1, None, {"b": "☕"}]}},
        {"json": None},
        {"json": json.loads("[" * 98 + "]" * 98)},
        {"content_type": "image/png", "base64": "iVBORw0KGgo="},
    ],
)
def test_a_payload_comes_back_as_it_was(me: httpx2.Client, payload: dict[str, object]) -> None:
    added = me.post("/v1/tasks", json={"message": "x", "payload": payload}).json()
    assert get(me, added["id"])["payload"] == {"content_type": "application/octet-stream", **payload}


def test_the_list_can_be_narrowed_and_continued(me: httpx2.Client) -> None:
    names = [f"page-{number}" for number in range(5)]
    for name in reversed(names):
        add(me, name, at=f"2046-01-0{names.index(name) + 1} 00:00")
    assert {task["status"] for task in me.get("/v1/tasks?status=created").json()["tasks"]} == {"created"}
    both = me.get("/v1/tasks?status=created&status=pending").json()["tasks"]
    assert {task["status"] for task in both} == {"created", "pending"}
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = me.get("/v1/tasks", params={"status": "pending", "limit": 2, **({"cursor": cursor} if cursor else {})})
        assert len(page.json()["tasks"]) <= 2
        seen += [task["id"] for task in page.json()["tasks"]]
        cursor = page.json()["next"]
    assert [name for name in seen if name in names] == names
    assert len(seen) == len(set(seen))


def test_an_update_changes_what_is_said_and_nothing_else(me: httpx2.Client) -> None:
    before = add(me, "changed", within="3d", action="email", to="x@example.org")
    answer = me.patch("/v1/tasks/changed", json={"message": "new"})
    assert answer.status_code == 200
    moved = {"version", "updated_at", "message", "disposition", "kept_in"}
    assert {**before, **answer.json()} == {
        **before,
        **{name: answer.json()[name] for name in moved & set(answer.json())},
    }
    assert answer.json()["message"] == "new"
    assert int(answer.json()["version"]) > int(str(before["version"]))
    assert me.patch("/v1/tasks/changed", json={"to": "y@example.org"}).json()["to"] == "y@example.org"
    assert me.patch("/v1/tasks/changed", json={"to": "", "action": "inbox"}).json()["to"] is None


def test_schedule_gives_another_time(me: httpx2.Client) -> None:
    add(me, "timed")
    answer = me.post("/v1/tasks/timed/schedule", json={"in": "3d"})
    assert (answer.status_code, answer.json()["status"], answer.json()["rule"]) == (200, "pending", "in 3d")
    assert abs(until_due(answer.json()) - timedelta(days=3)) < A_MOMENT
    there = me.post("/v1/tasks/timed/schedule", json={"at": "2045-01-01 10:00", "zone": "Asia/Tokyo"}).json()
    assert (there["due"], there["nominal"]) == ("2045-01-01T01:00:00.000Z",) * 2
    drawn = me.post("/v1/tasks/timed/schedule", json={"within": "3d"}).json()
    assert drawn["window"] is not None


def test_snooze_moves_the_moment_and_keeps_what_was_meant(me: httpx2.Client) -> None:
    before = add(me, "snoozed", at="2045-01-01 10:00")
    answer = me.post("/v1/tasks/snoozed/snooze", json={"in": "2h"})
    assert answer.status_code == 200
    assert abs(until_due(answer.json()) - timedelta(hours=2)) < A_MOMENT
    assert answer.json()["nominal"] == before["nominal"]
    assert answer.json()["delivery_id"] == before["delivery_id"]


async def test_execute_is_now(me: httpx2.Client) -> None:
    add(me, "now", within="300d")
    assert me.post("/v1/tasks/now/execute").status_code == 200
    await wait_until(lambda: get(me, "now")["status"] == "completed")
    past = get(me, "now")
    assert as_described(past)
    assert past["receipt"] == {"detail": "kept in the inbox"}
    assert moment(past["due"]) <= moment(past["started_at"]) <= moment(past["finished_at"])


async def test_a_delivered_one_is_brought_back_by_snooze_and_by_execute(me: httpx2.Client) -> None:
    before = await come(me, "returns")
    again = me.post("/v1/tasks/returns/snooze", json={"in": "3d"})
    assert (again.status_code, again.json()["status"]) == (200, "pending")
    assert again.json()["delivery_id"] != before["delivery_id"]
    assert again.json()["message"] == before["message"]
    me.post("/v1/tasks/returns/execute")
    await wait_until(lambda: get(me, "returns")["status"] == "completed")
    assert get(me, "returns")["delivery_id"] == again.json()["delivery_id"]
    me.post("/v1/tasks/returns/execute")
    await wait_until(lambda: get(me, "returns")["status"] == "completed")
    ids = [task["delivery_id"] for task in me.get("/v1/inbox").json()["tasks"] if task["id"] == "returns"]
    assert len(ids) == len(set(ids)) == 3


async def test_a_past_one_cannot_be_changed_or_scheduled(me: httpx2.Client) -> None:
    await come(me, "gone-by")
    assert me.patch("/v1/tasks/gone-by", json={"message": "x"}).status_code == 404
    assert me.post("/v1/tasks/gone-by/schedule", json={"in": "3d"}).status_code == 404
    assert me.post("/v1/tasks/gone-by/retry").status_code == 404
    assert me.delete("/v1/tasks/gone-by").status_code == 404


async def test_a_failed_one_waits_for_its_owner(me: httpx2.Client) -> None:
    before = await failed(me, "waits")
    assert as_described(before)
    failures = before["failures"]
    assert isinstance(failures, list)
    assert (before["attempts"], len(failures)) == (1, 1)
    assert "127.0.0.1" in failures[0]["reason"]
    again = me.post("/v1/tasks/waits/retry")
    assert (again.status_code, again.json()["delivery_id"]) == (200, before["delivery_id"])
    await wait_until(lambda: get(me, "waits")["failures"] not in ([], failures))
    assert get(me, "waits")["attempts"] == 1
    moved = me.post("/v1/tasks/waits/schedule", json={"in": "3d"}).json()
    assert (moved["status"], moved["attempts"], moved["failures"]) == ("pending", 0, [])


async def test_all_failed_ones_are_tried_again_once(me: httpx2.Client) -> None:
    for number in range(3):
        await failed(me, f"again-{number}")
    count = len(me.get("/v1/tasks?status=failed&limit=1000").json()["tasks"])
    assert me.post("/v1/tasks:retry").json() == {"retried": count}


def test_only_a_failed_one_is_retried(me: httpx2.Client) -> None:
    add(me, "fine", **{"in": "3d"})
    assert me.post("/v1/tasks/fine/retry").status_code == 409


def test_delete_cancels_and_says_nothing_more(me: httpx2.Client) -> None:
    add(me, "unwanted", **{"in": "3d"})
    answer = me.delete("/v1/tasks/unwanted")
    assert (answer.status_code, answer.content) == (204, b"")
    assert get(me, "unwanted")["status"] == "cancelled"
    assert me.delete("/v1/tasks/unwanted").status_code == 404
    assert add(me, "unwanted")["disposition"] == "created"


@pytest.mark.parametrize("task_id", [".", "..", "a:b", "-", "x" * 200, "a.b_c-d:e"])
def test_every_id_there_may_be_can_be_asked_for(me: httpx2.Client, task_id: str) -> None:
    me.post("/v1/tasks", json={"id": task_id, "message": "x"})
    path = task_id.replace(".", "%2E")
    assert me.get(f"/v1/tasks/{path}").json()["id"] == task_id
