"""Past tasks over HTTP: the history, page by page, and the inbox until it has been read."""

from __future__ import annotations

import httpx2
import pytest

from tests.api.test_tasks import add, come, failed, get


def inbox(client: httpx2.Client) -> list[dict[str, str]]:
    return list(client.get("/v1/inbox").json()["tasks"])


def read(client: httpx2.Client, *delivery_ids: str) -> int:
    answer = client.post("/v1/inbox/read", json={"delivery_ids": delivery_ids})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["read"])


def read_all(client: httpx2.Client) -> None:
    read(client, *(thought["delivery_id"] for thought in inbox(client)))


async def test_the_inbox_keeps_a_thought_until_it_is_read(me: httpx2.Client) -> None:
    read_all(me)
    first, second = await come(me, "first"), await come(me, "second")
    assert [thought["id"] for thought in inbox(me)] == ["first", "second"]
    assert inbox(me)[0] == first
    assert read(me, str(first["delivery_id"])) == 1
    assert [thought["id"] for thought in inbox(me)] == ["second"]
    assert read(me, str(first["delivery_id"]), "unknown.1", str(second["delivery_id"])) == 1
    assert inbox(me) == []
    assert me.get("/v1/stats").json()["yours"]["unread"] == 0
    assert get(me, "first") == first


async def test_nobody_reads_anothers_thoughts(me: httpx2.Client, ada: httpx2.Client) -> None:
    thought = await come(me, "private")
    assert thought["delivery_id"] not in [other["delivery_id"] for other in inbox(ada)]
    assert read(ada, str(thought["delivery_id"])) == 0
    assert thought in inbox(me)


async def test_what_is_read_is_not_what_comes_again(me: httpx2.Client) -> None:
    read_all(me)
    first = await come(me, "echo")
    me.post("/v1/tasks/echo/execute")
    second = await come_again(me, "echo")
    assert read(me, str(first["delivery_id"])) == 1
    assert [thought["delivery_id"] for thought in inbox(me)] == [second]


async def come_again(client: httpx2.Client, task_id: str) -> str:
    from tests.waiting import wait_until

    await wait_until(lambda: len([one for one in inbox(client) if one["id"] == task_id]) == 2)
    return inbox(client)[-1]["delivery_id"]


async def test_history_tells_what_came_of_tasks_newest_first(me: httpx2.Client) -> None:
    await come(me, "h-completed")
    await failed(me, "h-failed")
    add(me, "h-cancelled")
    me.delete("/v1/tasks/h-cancelled")
    tasks = me.get("/v1/history?limit=3").json()["tasks"]
    assert [(task["id"], task["status"]) for task in tasks] == [
        ("h-cancelled", "cancelled"),
        ("h-failed", "failed"),
        ("h-completed", "completed"),
    ]
    assert all(task["finished_at"] for task in tasks)
    only = me.get("/v1/history?status=cancelled&status=failed&limit=2").json()["tasks"]
    assert [task["id"] for task in only] == ["h-cancelled", "h-failed"]


async def test_history_goes_on_where_a_page_ends(me: httpx2.Client) -> None:
    names = [f"part-{number}" for number in range(5)]
    for name in names:
        add(me, name)
        me.delete(f"/v1/tasks/{name}")
    seen: list[str] = []
    cursor = None
    while len(seen) < 5:
        params = {"status": "cancelled", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = me.get("/v1/history", params=params).json()
        seen += [task["id"] for task in page["tasks"]]
        cursor = page["next"]
        add(me, f"meanwhile-{len(seen)}")
        me.delete(f"/v1/tasks/meanwhile-{len(seen)}")  # what comes in meanwhile moves nothing
    assert seen[:5] == list(reversed(names))


@pytest.mark.parametrize("cursor", ["x", "1", "1.2.3", "-1.0", "9" * 100, "1.1; drop table past"])
def test_a_cursor_that_no_page_gave_is_refused(me: httpx2.Client, cursor: str) -> None:
    answer = me.get("/v1/history", params={"cursor": cursor})
    assert answer.status_code == 422
    assert "cursor" in answer.json()["detail"] or "take `next` of the page before" in answer.json()["detail"]


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 100])
def test_nor_is_one_of_the_live_list(me: httpx2.Client, cursor: str) -> None:
    assert me.get("/v1/tasks", params={"cursor": cursor}).status_code == 422
