"""Everything that is refused is refused as an RFC 9457 problem with one sentence, and changes nothing."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from later.api.answers import Answer

JSON = {"content-type": "application/json"}

SURROGATE = r'"\ud83d"'


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


INVALID: dict[str, tuple[Any, str]] = {
    "unknown field": ({"mesage": "x"}, "mesage"),
    "a state": ({"message": "x", "status": "completed"}, "status"),
    "an owner": ({"message": "x", "owner": "ada"}, "owner"),
    "no text": ({"message": ""}, "the inbox needs a text"),
    "NUL": ({"message": "a\0b"}, "the text has a NUL character, which no channel can carry; leave it out"),
    "64 KiB and one": ({"message": "a" * 65_537}, "the text has 65,537 bytes; at most 65,536 are kept"),
    "64 KiB in fewer signs": ({"message": "é" * 32_769}, "the text has 65,538 bytes"),
    "a number for a text": ({"message": 5}, "message: "),
    "a bad id": ({"message": "x", "id": "a/b"}, "'a/b' cannot be an id"),
    "an id with a newline": ({"message": "x", "id": "a\n"}, "cannot be an id"),
    "an empty id": ({"message": "x", "id": ""}, "'' cannot be an id"),
    "a long id": ({"message": "x", "id": "a" * 201}, "cannot be an id"),
    "an unknown action": ({"message": "x", "action": "mial"}, "no action 'mial'; known: "),
    "nobody to see it": ({"message": "x", "action": "console"}, "nobody would see it"),
    "an address for the inbox": ({"message": "x", "action": "inbox", "to": "ada"}, "the inbox is your own"),
    "an unknown zone": ({"message": "x", "zone": "Mars/Olympus"}, "'Mars/Olympus' is not a time zone"),
    "a file for a zone": ({"message": "x", "zone": "../../etc/passwd"}, "is not a time zone"),
    "two times": ({"message": "x", "in": "1d", "at": "2045-01-01 00:00"}, "contradict each other"),
    "a time and none": ({"message": "x", "in": "1d", "hold": True}, "contradict each other"),
    "a past time": ({"message": "x", "at": "2020-01-01T00:00:00Z"}, "in the past"),
    "no window": ({"message": "x", "within": "0s"}, "leaves no time at all"),
    "a negative time": ({"message": "x", "in": "-5m"}, "cannot be negative"),
    "beyond all years": ({"message": "x", "in": "999999999w"}, "beyond the year 2100"),
    "a long time": ({"message": "x", "in": "1" * 2000}, "in: "),
    "a payload of two forms": ({"message": "x", "payload": {"text": "a", "base64": "YQ=="}}, "exactly one of"),
    "an empty payload": ({"message": "x", "payload": {}}, "exactly one of"),
    "a payload that is no base64": ({"message": "x", "payload": {"base64": "~"}}, "base64 is not valid base64"),
    "a large payload": ({"message": "x", "payload": {"text": "a" * 262_145}}, "at most 262,144 bytes"),
    "large options": ({"message": "x", "options": {"a": "a" * 16_384}}, "options have at most 16,384 bytes"),
    "a list": ([], "the body: "),
    "null": (None, "the body: "),
}

UNREADABLE = {
    "nothing": b"",
    "no JSON": b"message=x",
    "half of it": b'{"message": "x',
    "no UTF-8": b'{"message": "\xff"}',
    "a bottomless list": b"[" * 100_000,
}

PATHS = [
    ("POST", "/v1/tasks"),
    ("PATCH", "/v1/tasks/x"),
    ("POST", "/v1/tasks/x/schedule"),
    ("POST", "/v1/tasks/x/snooze"),
    ("POST", "/v1/inbox/read"),
]


def problem(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert body["title"] != "Failed"
    assert body["detail"].count("\n") == 0
    assert len(body["detail"]) < 400
    return dict(body)


@pytest.fixture
def unchanged(me: httpx2.Client) -> Any:
    """Nothing is stored by what happens in between."""
    before = me.get("/v1/tasks?limit=1000").json()
    yield
    assert me.get("/v1/tasks?limit=1000").json() == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("case", INVALID)
def test_a_task_that_cannot_be_kept_is_refused(me: httpx2.Client, case: str) -> None:
    body, sentence = INVALID[case]
    assert sentence in problem(me.post("/v1/tasks", json=body), 422)["detail"]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "body",
    [
        '{"message": ?}',
        '{"message": "x", "id": ?}',
        '{"message": "x", "to": ?, "action": "email"}',
        '{"message": "x", "action": ?}',
        '{"message": "x", "zone": ?}',
        '{"message": "x", "in": ?}',
        '{"message": "x", ?: 1}',
        '{"message": "x", "options": {"a": ?}}',
        '{"message": "x", "payload": {"text": ?}}',
        '{"message": "x", "payload": {"json": ?}}',
        '{"message": "x", "payload": {"text": "x", "content_type": ?}}',
    ],
)
def test_half_a_character_is_refused_wherever_it_stands(me: httpx2.Client, body: str) -> None:
    answer = me.post("/v1/tasks", content=body.replace("?", SURROGATE), headers=JSON)
    problem(answer, 422)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("levels", [101, 900, 5_000])
@pytest.mark.parametrize("where", ['{"message": "x", "options": {"a": ?}}', '{"message": "x", "payload": {"json": ?}}'])
def test_what_is_nested_too_deeply_is_refused(me: httpx2.Client, where: str, levels: int) -> None:
    answer = me.post("/v1/tasks", content=where.replace("?", deep(levels)), headers=JSON)
    assert answer.status_code in (400, 422), answer.text
    problem(answer, answer.status_code)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(me: httpx2.Client, number: str) -> None:
    body = '{"message": "x", "payload": {"json": ?}}'.replace("?", number)
    problem(me.post("/v1/tasks", content=body, headers=JSON), 422)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("case", UNREADABLE)
def test_a_body_that_cannot_be_read_is_refused(me: httpx2.Client, case: str, method: str, path: str) -> None:
    answer = me.request(method, path, content=UNREADABLE[case], headers=JSON)
    problem(answer, 422 if case == "nothing" else 400)


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_an_unknown_field_is_refused_everywhere(me: httpx2.Client, method: str, path: str) -> None:
    body = {"in": "1d"} if path.endswith("snooze") else {"delivery_ids": []} if path.endswith("read") else {}
    answer = me.request(method, path, json={**body, "surprise": 1})
    assert problem(answer, 422)["detail"] == "surprise: Extra inputs are not permitted"


@pytest.mark.parametrize(
    "query",
    [
        "/v1/tasks?status=completed",
        "/v1/tasks?status=done",
        "/v1/tasks?limit=0",
        "/v1/tasks?limit=1001",
        "/v1/tasks?limit=many",
        "/v1/history?status=pending",
        "/v1/history?limit=0",
        "/v1/tasks/a%20b",
        "/v1/tasks/%00",
        f"/v1/tasks/{'a' * 201}",
    ],
)
def test_a_question_that_makes_no_sense_is_refused(me: httpx2.Client, query: str) -> None:
    problem(me.get(query), 422)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/task", "/v1/tasks/", "/v1/tasks/a/b", "/docs", "/v1/tasks/x/burn"])
def test_an_unknown_path_is_not_found(me: httpx2.Client, path: str) -> None:
    assert problem(me.get(path), 404)["detail"] == f"there is no {path}; see /openapi.json"


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/tasks"), ("DELETE", "/v1/history"), ("GET", "/v1/stop")])
def test_an_unknown_method_is_told_which_there_are(me: httpx2.Client, method: str, path: str) -> None:
    answer = me.request(method, path)
    problem(answer, 405)
    assert answer.headers["allow"]


def test_a_conflict_is_told(me: httpx2.Client) -> None:
    me.post("/v1/tasks", json={"id": "conflict", "message": "x"})
    detail = problem(me.post("/v1/tasks", json={"id": "conflict", "message": "y"}), 409)["detail"]
    assert "'conflict'" in detail


def test_an_unknown_task_is_not_found(me: httpx2.Client) -> None:
    assert "'nobody'" in problem(me.get("/v1/tasks/nobody"), 404)["detail"]


def test_half_a_character_in_somebodys_words_is_passed_on() -> None:
    words = {"detail": "the server said \ud83d"}
    assert json.loads(Answer(words).body) == words
