"""What may be a task: owners, ids, queues, messages; its names and its delivery id."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from later.core.errors import InvalidTask
from later.core.task import (
    LIVE,
    MESSAGE_BYTES,
    PAST,
    Spec,
    Status,
    Task,
    check_id,
    check_message,
    check_owner,
    check_queue,
)

TASK = Task(owner="ana", id="milk", uid="u1", queue="default", status=Status.PENDING, action="inbox", message="m")


@pytest.mark.parametrize("owner", ["a", "ana", "Ana.B-c_d@example.org+x", "uid1000", "x" * 64])
def test_an_owner_is_a_login_or_an_address(owner: str) -> None:
    assert check_owner(owner) == owner


@pytest.mark.parametrize("owner", ["", "x" * 65, "a/b", "a b", "ana\n", "ü", "a:b", "a\0", "{0}", "*"])
def test_another_owner_is_refused(owner: str) -> None:
    with pytest.raises(InvalidTask, match=r"cannot be an owner: use 1 to 64 of A-Z a-z 0-9 \. _ @ \+ -$"):
        check_owner(owner)


@pytest.mark.parametrize("task_id", ["a", "need_some_help_email_42", "2026-11-25T10:14", "A.b_c:d-e", "x" * 200])
def test_an_id_is_chosen_by_the_client(task_id: str) -> None:
    assert check_id(task_id) == task_id


@pytest.mark.parametrize("task_id", ["", "x" * 201, "a/b", "a b", "milk\n", "ü", "a@b", "../x", "{x}", "a\0"])
def test_another_id_is_refused(task_id: str) -> None:
    with pytest.raises(InvalidTask, match=r"cannot be an id: use 1 to 200 of A-Z a-z 0-9 \. _ : -$"):
        check_id(task_id)


@pytest.mark.parametrize("queue", ["default", "reports.2026", "x" * 64])
def test_a_queue_is_a_name(queue: str) -> None:
    assert check_queue(queue) == queue


@pytest.mark.parametrize("queue", ["", "x" * 65, "a/b", "a:b", "a b", "default\n"])
def test_another_queue_is_refused(queue: str) -> None:
    with pytest.raises(InvalidTask, match="cannot be a queue"):
        check_queue(queue)


def test_a_refusal_shows_no_more_than_its_beginning() -> None:
    for check in (check_owner, check_id, check_queue):
        with pytest.raises(InvalidTask) as refusal:
            check("/" * 1_000_000)
        assert len(refusal.value.message) < 200


@pytest.mark.parametrize(
    "message", ["", "👩‍👩‍👧‍👦", "a\nb\r\n\tc", "\"'\\", "é" * (MESSAGE_BYTES // 2), "\x01\x7f\ufeff"]
)
def test_a_message_is_any_text(message: str) -> None:
    assert check_message(message) is message


def test_a_message_is_bounded_in_bytes() -> None:
    with pytest.raises(InvalidTask) as refusal:
        check_message("é" * (MESSAGE_BYTES // 2) + "x")
    assert refusal.value.message == "the text has 65,537 bytes; at most 65,536 are kept, so shorten it"


@pytest.mark.parametrize(
    ("message", "reason"),
    [("a\0b", "a NUL character"), ("\ud800", "not valid Unicode"), ("a\udcff", "not valid Unicode")],
)
def test_what_no_channel_can_carry_is_refused(message: str, reason: str) -> None:
    with pytest.raises(InvalidTask, match=reason):
        check_message(message)


def test_live_and_past_are_all_there_is() -> None:
    assert {*LIVE, *PAST} == set(Status)
    assert not {*LIVE} & {*PAST}


def test_its_name_splits_one_way_only() -> None:
    assert TASK.name == "ana/milk"
    assert TASK.name.partition("/")[::2] == (TASK.owner, TASK.id)


def test_the_delivery_id_is_of_the_occurrence_and_not_of_the_attempt() -> None:
    assert TASK.delivery_id == "u1.1"
    assert replace(TASK, attempts=3, crashes=2, claim=7, due=9).delivery_id == TASK.delivery_id
    assert len({TASK.delivery_id, replace(TASK, occurrence=2).delivery_id, replace(TASK, uid="u2").delivery_id}) == 3


def test_the_spec_is_what_was_asked_for() -> None:
    said = {"action": "email", "message": "m", "to": "a@b", "payload": {"text": "x"}, "options": {}, "zone": "UTC"}
    spec = Spec(**said, rule="in 3d")
    assert {field.name for field in fields(Spec)} <= {field.name for field in fields(Task)}
    assert replace(TASK, **said, rule="in 3d").spec == spec
    assert replace(TASK, due=1, nominal=1, attempts=1).spec == TASK.spec


def test_a_task_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        TASK.message = "other"  # type: ignore[misc]
