"""A task comes out of its line as it went in, and a line that nobody here wrote is refused in one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from later.api.lines import LINE_BYTES, KeptTask, line_of, read_line
from later.api.schemas import TaskOut
from later.archive.rows import Past
from later.core.errors import InvalidTask
from later.core.task import MESSAGE_BYTES, PAYLOAD_BYTES, Failure, Status, Task, Window
from later.core.when import LATEST
from later.store.base import Standing

PROPERTY = settings(derandomize=True, deadline=None, max_examples=150)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
moments = st.integers(0, LATEST - 1)
numbers = st.integers(1, 10**6)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=5,
)
payloads = st.fixed_dictionaries({"content_type": texts, "json": values}) | st.just(
    {"text": "x", "content_type": "a/b"}
)


@st.composite
def tasks(draw: Any, *statuses: Status) -> Task:
    status = draw(st.sampled_from(statuses))
    return Task(
        owner=draw(st.from_regex(r"[A-Za-z0-9._@+-]{1,8}", fullmatch=True)),
        id=draw(st.from_regex(r"[A-Za-z0-9._:-]{1,8}", fullmatch=True)),
        uid=draw(st.from_regex(r"[a-z2-7]{16}", fullmatch=True)),
        queue=draw(st.sampled_from(["default", "slow", "pulled"])),
        status=status,
        action=draw(st.sampled_from(["inbox", "email", "no-such-action"])),
        message=draw(texts),
        to=draw(st.none() | texts.filter(bool)),
        payload=draw(st.none() | payloads),
        options=draw(st.none() | st.dictionaries(texts, values, max_size=3)),
        zone=draw(st.none() | st.just("Europe/Lisbon")),
        rule=draw(st.none() | st.just("within 3d after 1d")),
        window=draw(st.none() | st.builds(Window, since=moments, until=moments)),
        due=draw(moments if status is Status.PENDING else st.none() | moments),
        nominal=draw(st.none() | moments),
        occurrence=draw(numbers),
        version=draw(numbers),
        created=draw(moments),
        updated=draw(moments),
        attempts=draw(numbers),
        crashes=draw(numbers),
        failures=draw(st.lists(st.builds(Failure, at=moments, reason=texts), max_size=3).map(tuple)),
    )


@st.composite
def lives(draw: Any) -> Standing:
    task = draw(tasks(Status.CREATED, Status.PENDING, Status.FAILED))
    return Standing(task=replace(task, cancel=draw(st.booleans()), blamed=draw(numbers)), since=draw(moments))


@st.composite
def pasts(draw: Any) -> Past:
    task = draw(tasks(Status.COMPLETED, Status.FAILED, Status.CANCELLED))
    return Past(
        partition=draw(st.integers(0, 100)),
        key=f"{draw(numbers)}-{draw(numbers)}",
        task=task,
        at=task.updated,
        started=draw(st.none() | moments),
        receipt=draw(st.none() | st.dictionaries(texts, values, max_size=3)),
        unread=draw(st.booleans()),
    )


def written(one: Standing | Past | dict[str, Any]) -> bytes:
    """As the command line writes it."""
    said = one if isinstance(one, dict) else line_of(one)
    return json.dumps(said, ensure_ascii=False).encode(errors="backslashreplace")


@PROPERTY
@given(lives() | pasts())
def test_a_task_comes_out_of_its_line_as_it_went_in(one: Standing | Past) -> None:
    assert read_line(written(one)) == one


def test_a_line_has_every_field_of_a_task() -> None:
    assert set(KeptTask.model_fields) == set(TaskOut.model_fields)


def test_half_a_character_in_a_servers_words_is_spelled_out() -> None:
    one = read_line(written(live(failures=(Failure(at=1, reason="said \udc80"),))))
    assert one.task.failures == (Failure(at=1, reason="said \\udc80"),)


def test_the_largest_task_fits_into_a_line_however_it_is_escaped() -> None:
    failures = tuple(Failure(at=1, reason="\x01" * 500) for _ in range(10))
    one = live(
        message="\x01" * MESSAGE_BYTES,
        payload={"content_type": "text/plain", "text": "\x01" * PAYLOAD_BYTES},
        options={"x": "a" * 16_000},
        to="\x01" * 1024,
        failures=failures,
    )
    line = json.dumps(line_of(one)).encode()
    assert len(line) < LINE_BYTES / 2
    assert read_line(line) == one


def live(**said: Any) -> Standing:
    task = Task(owner="ana", id="milk", uid="u1", queue="default", status=Status.PENDING, action="inbox", due=5)
    return Standing(task=replace(task, **said), since=7)


def past(**said: Any) -> Past:
    task = replace(live(status=Status.COMPLETED, updated=9).task, **said)
    return Past(partition=0, key="9-0", task=task, at=9, unread=True)


BAD_TASKS = {
    "owner": ["", "a/b", "a" * 65, 7, None],
    "id": ["", "a b", "x" * 201, "a/b"],
    "queue": ["", "a/b", "q" * 65],
    "status": ["running", "completed", "lost", None],
    "action": [7, "a" * 201],
    "message": ["a\0b", "é" * (MESSAGE_BYTES // 2 + 1), None, 3],
    "to": ["a" * 1025],
    "payload": [
        {},
        {"text": "a", "json": 1},
        {"base64": "?"},
        {"text": "a" * (PAYLOAD_BYTES + 1)},
        {"text": "a", "x": 1},
    ],
    "options": [[], {"x": "a" * 17_000}],
    "due": [None, 5, "soon", "2102-01-01T00:00:00.000Z", "1969-12-31T23:59:59.000Z"],
    "window": [{"from": "1970-01-01T00:00:00.000Z"}, {"from": 1, "until": 2}, []],
    "occurrence": [0, 2, -1, 2**31, "1", True, 1.5],
    "delivery_id": ["u1.2", "u1", "a b.1", "u1\r\nBcc: x.1", "u1.1\n", "a" * 65 + ".1"],
    "attempts": [-1, 2**31, 1e300],
    "version": [0],
    "failures": [None, [{"at": 1, "reason": "x"}], [{"at": "1970-01-01T00:00:00.000Z"}], [{}] * 101],
    "created_at": [None, "9999999999-01-01T00:00:00Z"],
    "surprise": [1],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, bad in BAD_TASKS.items() for value in bad])
def test_a_field_that_cannot_be_is_refused_by_its_name(field: str, value: object) -> None:
    line = line_of(live())
    line["task"][field] = value
    with pytest.raises(InvalidTask) as refusal:
        read_line(written(line))
    assert field in refusal.value.message or (field == "occurrence" and "delivery_id" in refusal.value.message)
    assert "\n" not in refusal.value.message
    assert len(refusal.value.message) < 300


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("live", {"kind": "dead"}),
        ("live", {"kind": "past"}),
        ("live", {"since": None}),
        ("live", {"cancel": 1}),
        ("live", {"blamed": -1}),
        ("live", {"holder": "me"}),
        ("past", {"key": "9"}),
        ("past", {"key": "-1-1"}),
        ("past", {"partition": -1}),
        ("past", {"unread": None}),
        ("past", {"kind": "live"}),
    ],
)
def test_what_is_said_around_a_task_is_looked_at_too(kind: str, change: dict[str, object]) -> None:
    with pytest.raises(InvalidTask):
        read_line(written(line_of(live() if kind == "live" else past()) | change))


@pytest.mark.parametrize(
    "change", [{"status": "pending"}, {"finished_at": None}, {"finished_at": "1970-01-01T00:00:00.001Z"}]
)
def test_a_past_task_has_ended(change: dict[str, object]) -> None:
    line = line_of(past())
    line["task"] |= change
    with pytest.raises(InvalidTask):
        read_line(written(line))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"7", b'"live"', b"{}", b"\xff\xfe", b'{"kind":"live","task":' + b"[" * 100_000],
    ids=range(9),
)
def test_what_is_no_line_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidTask):
        read_line(text)


def test_a_line_longer_than_any_task_is_not_even_parsed() -> None:
    with pytest.raises(InvalidTask, match="no task has more than 4,194,304"):
        read_line(b" " * (LINE_BYTES + 1))


def test_nan_and_deep_nests_do_not_come_in_with_a_receipt() -> None:
    for receipt in ('{"x": NaN}', '{"x": 1e999}', '{"x": ' + "[" * 150 + "]" * 150 + "}"):
        line = written(line_of(past())).replace(b'"receipt": null', f'"receipt": {receipt}'.encode())
        assert b'"receipt": {' in line
        with pytest.raises(InvalidTask):
            read_line(line)
