"""Who may ask: the socket tells who it is, TCP wants the token, and nobody learns of another's tasks."""

from __future__ import annotations

import getpass
from typing import Any

import httpx2
import pytest

from tests.api.conftest import TOKEN, over_tcp
from tests.program import Program
from tests.waiting import wait_until

OPEN = {("GET", "/health")}

BODIES: dict[tuple[str, str], dict[str, Any] | None] = {
    ("GET", "/v1/tasks/{task_id}"): None,
    ("PATCH", "/v1/tasks/{task_id}"): {"message": "taken over"},
    ("DELETE", "/v1/tasks/{task_id}"): None,
    ("POST", "/v1/tasks/{task_id}/schedule"): {"in": "1d"},
    ("POST", "/v1/tasks/{task_id}/snooze"): {"in": "1d"},
    ("POST", "/v1/tasks/{task_id}/execute"): None,
    ("POST", "/v1/tasks/{task_id}/retry"): None,
}
"""Every route to one task, and a body that would work; a new route fails here until it has one."""

STATES = {
    "created": {},
    "pending": {"in": "30d"},
    "failed": {"in": "0s", "action": "email", "to": "x@example.org"},
    "completed": {"in": "0s"},
    "cancelled": {"in": "30d"},
}


def routes(client: httpx2.Client) -> list[tuple[str, str]]:
    paths = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_every_route_to_one_task_is_known_here(me: httpx2.Client) -> None:
    assert {route for route in routes(me) if "{" in route[1]} == set(BODIES)


@pytest.fixture(scope="module", params=STATES)
def mine(request: pytest.FixtureRequest, me: httpx2.Client) -> str:
    """The id of a task of ours in each state."""
    task_id = f"mine-{request.param}"
    me.post("/v1/tasks", json={"id": task_id, "message": "secret", **STATES[request.param]})
    if request.param == "cancelled":
        me.delete(f"/v1/tasks/{task_id}")
    import anyio

    anyio.run(lambda: wait_until(lambda: me.get(f"/v1/tasks/{task_id}").json()["status"] == request.param))
    return task_id


@pytest.mark.parametrize("route", BODIES, ids=" ".join)
def test_anothers_task_is_as_unknown_as_one_that_never_was(
    me: httpx2.Client, ada: httpx2.Client, mine: str, route: tuple[str, str]
) -> None:
    before = me.get(f"/v1/tasks/{mine}").json()
    method, path = route
    theirs = ada.request(method, path.format(task_id=mine), json=BODIES[route])
    nobodys = ada.request(method, path.format(task_id="never-was"), json=BODIES[route])
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.text.replace(mine, "never-was") == nobodys.text
    assert me.get(f"/v1/tasks/{mine}").json() == before


def test_lists_and_figures_are_ones_own(me: httpx2.Client, ada: httpx2.Client, mine: str) -> None:
    for path in ("/v1/tasks?limit=1000", "/v1/history?limit=1000", "/v1/inbox"):
        assert {task["owner"] for task in ada.get(path).json()["tasks"]} <= {"ada"}
        assert {task["owner"] for task in me.get(path).json()["tasks"]} <= {getpass.getuser()}
    assert ada.get("/v1/stats").json()["yours"]["failed"] == 0
    assert ada.post("/v1/tasks:retry").json() == {"retried": 0}
    assert (ada.get("/v1/stats").json()["yours"]["owner"], me.get("/v1/stats").json()["yours"]["owner"]) == (
        "ada",
        getpass.getuser(),
    )


def test_both_may_use_the_same_id(me: httpx2.Client, ada: httpx2.Client) -> None:
    assert me.post("/v1/tasks", json={"id": "ours", "message": "mine"}).status_code == 201
    assert ada.post("/v1/tasks", json={"id": "ours", "message": "hers"}).status_code == 201
    assert ada.delete("/v1/tasks/ours").status_code == 204
    assert me.get("/v1/tasks/ours").json()["message"] == "mine"


def test_over_tcp_every_route_but_health_wants_the_token(anybody: httpx2.Client, me: httpx2.Client) -> None:
    all_routes = [*routes(me), ("GET", "/openapi.json")]
    for method, path in all_routes:
        answer = anybody.request(method, path.format(task_id="x"), json=BODIES.get((method, path), {"message": "x"}))
        if (method, path) in OPEN:
            assert answer.status_code == 200
            continue
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"] == "A valid token is needed: send it as `Authorization: Bearer …`."


@pytest.mark.parametrize(
    "header", ["Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}", "Bearer é"]
)
def test_another_token_is_none(program: Program, header: str) -> None:
    with over_tcp(program) as client:
        assert client.get("/v1/stats", headers={"authorization": header.encode()}).status_code == 401


def test_the_word_bearer_has_no_case(program: Program) -> None:
    with over_tcp(program, authorization=f"bearer {TOKEN}") as client:
        assert client.get("/v1/stats").status_code == 200


def test_who_calls_is_never_taken_from_a_request(program: Program, anybody: httpx2.Client) -> None:
    for headers in ({"x-forwarded-for": "uid:0"}, {"x-remote-user": "root"}, {"forwarded": "for=uid:0"}):
        assert anybody.get("/v1/stats", headers=headers).status_code == 401


def test_only_the_daemons_own_user_may_stop_it(ada: httpx2.Client) -> None:
    answer = ada.post("/v1/stop")
    assert answer.status_code == 403
    assert answer.json()["detail"] == "this needs the right to admin, which ada does not have here"


def test_only_the_daemons_own_user_may_examine_the_store(me: httpx2.Client, ada: httpx2.Client) -> None:
    for body in ({}, {"repair": True}):
        assert ada.post("/v1/fsck", json=body).status_code == 403
    examined = me.post("/v1/fsck", json={"repair": False}).json()
    assert set(examined) == {"counts", "damages", "advice", "keys", "next"}
    assert (examined["damages"], examined["next"]) == ([], None)
    assert me.post("/v1/fsck", json={"cursor": "another server's.0|0|"}).status_code == 409
    assert me.post("/v1/fsck", json={"repiar": True}).status_code == 422


def test_the_description_names_every_route_and_what_it_takes(me: httpx2.Client) -> None:
    described = me.get("/openapi.json").json()
    assert described["info"]["title"] == "Later"
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            assert route["description"], (method, path)


def test_figures_and_findings(me: httpx2.Client) -> None:
    figures = me.get("/v1/stats").json()
    assert figures["kept_in"].startswith("Valkey ")
    assert {"created", "pending", "running", "failed"} <= set(figures["tasks"])
    assert figures["workers"] == {"busy": figures["workers"]["busy"], "places": 50}
    for finding in me.get("/v1/doctor").json()["findings"]:
        assert set(finding) == {"subject", "advice"}
    assert me.get("/health").json() == {"status": "ok"}
