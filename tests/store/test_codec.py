"""Records and tasks: each comes back from the other unchanged, and garbage is called unreadable and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from later.core.lifecycle import Receipt, Settlement
from later.core.task import Failure, Spec, Status, Task, Window
from later.store import codec
from later.store.base import Movement
from later.store.codec import Unreadable

PROPERTY = settings(derandomize=True, deadline=None, max_examples=60)

texts = st.text(max_size=20)
any_text = st.text(st.characters(exclude_categories=()), max_size=20)  # halves of surrogate pairs too
moments = st.integers(-(10**12), 10**14)
numbers = st.integers(0, 10**6)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(allow_nan=False) | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=5,
)
objects = st.dictionaries(texts, values, max_size=3)
failures = st.lists(st.builds(Failure, at=moments, reason=any_text), max_size=4).map(tuple)
specs = st.builds(
    Spec,
    action=st.text(min_size=1, max_size=20),
    message=any_text,
    to=st.none() | st.text(min_size=1, max_size=20),
    payload=st.none() | objects,
    options=st.none() | objects,
    zone=st.none() | st.just("Europe/Lisbon"),
    rule=st.none() | st.just("within 3d after 1d"),
)


@st.composite
def tasks(draw: Any) -> Task:
    """New tasks, as a store is given them."""
    due = draw(st.none() | moments)
    created = draw(moments)
    spec = draw(specs)
    return Task(
        owner=draw(st.from_regex(r"[A-Za-z0-9._@+-]{1,8}", fullmatch=True)),
        id=draw(st.from_regex(r"[A-Za-z0-9._:-]{1,8}", fullmatch=True)),
        uid=draw(st.from_regex(r"[a-z2-7]{16}", fullmatch=True)),
        queue=draw(st.sampled_from(["default", "slow"])),
        status=Status.CREATED if due is None else Status.PENDING,
        due=due,
        nominal=draw(st.none() | moments),
        window=draw(st.none() | st.builds(Window, since=moments, until=moments)),
        occurrence=draw(st.integers(1, 10**6)),
        created=created,
        updated=created,
        **{field: getattr(spec, field) for field in Spec.__slots__},
    )


@st.composite
def settlements(draw: Any) -> Settlement:
    return Settlement(
        task=draw(tasks()),
        status=draw(st.sampled_from([Status.COMPLETED, Status.FAILED, Status.CANCELLED])),
        due=None,
        attempts=draw(numbers),
        crashes=draw(numbers),
        blamed=draw(numbers),
        failures=draw(failures),
        started=draw(st.none() | moments),
        receipt=draw(st.none() | st.builds(Receipt, detail=any_text, data=objects)),
    )


def on_the_wire(words: list[str]) -> dict[str, str]:
    """Packed words as the server gives them back; raises where they could not be sent."""
    return codec.pairs([word.encode("utf-8").decode("utf-8") for word in words])


@PROPERTY
@given(tasks())
def test_a_task_comes_back_from_its_record(task: Task) -> None:
    fields = on_the_wire(codec.pack(task, lane=task.queue))
    assert codec.unpack(task.name, fields, status=task.status, due=task.due) == task


@PROPERTY
@given(tasks())
def test_a_record_has_only_fields_that_are_known(task: Task) -> None:
    fields = on_the_wire(codec.pack(task, lane=f"{task.owner}/{task.queue}"))
    known = {"uid", "queue", "spec", "created", "format", "nominal", "window", "occurrence"}
    assert {"uid", "queue", "spec", "created", "format"} <= set(fields) <= known
    assert codec.unpack(task.name, fields, status=task.status, due=task.due).queue == task.queue


@PROPERTY
@given(specs, specs)
def test_equal_specs_have_equal_text_and_only_they(one: Spec, other: Spec) -> None:
    assert codec.pack_spec(one) == codec.pack_spec(replace(one))
    if json.dumps([getattr(one, field) for field in Spec.__slots__], sort_keys=True) != json.dumps(
        [getattr(other, field) for field in Spec.__slots__], sort_keys=True
    ):
        assert codec.pack_spec(one) != codec.pack_spec(other)


def test_the_order_of_a_payload_does_not_matter() -> None:
    one = Spec(action="inbox", payload={"b": {"y": 1, "x": 2}, "a": [1, 2]})
    other = Spec(action="inbox", payload={"a": [1, 2], "b": {"x": 2, "y": 1}})
    assert codec.pack_spec(one) == codec.pack_spec(other)


@PROPERTY
@given(settlements())
def test_what_a_settlement_changes_comes_back(settlement: Settlement) -> None:
    task = settlement.task
    fields = on_the_wire(codec.pack(task, lane=task.queue))
    changes = codec.pack_changes(settlement).encode("utf-8").decode("utf-8")
    fields |= codec.pairs(json.loads(changes))
    settled = codec.unpack(task.name, fields, status=Status.FAILED, due=task.due)
    assert settled == replace(
        task,
        status=Status.FAILED,
        attempts=settlement.attempts,
        crashes=settlement.crashes,
        blamed=settlement.blamed,
        failures=settlement.failures,
    )


@PROPERTY
@given(settlements(), st.integers(0, 10**14))
def test_a_transition_comes_back_from_the_outbox(settlement: Settlement, at: int) -> None:
    task = settlement.task
    fields = on_the_wire(codec.pack(task, lane=task.queue))
    fields |= {"name": task.name, "status": str(settlement.status), "at": str(at)}
    fields["entry"] = codec.pack_entry(settlement).encode("utf-8").decode("utf-8")
    past = codec.unpack_transition(3, "1-0", fields)
    assert (past.partition, past.key, past.at, past.started) == (3, "1-0", at, settlement.started)
    assert past.task == replace(
        task,
        status=settlement.status,
        updated=at,
        attempts=settlement.attempts,
        failures=settlement.failures,
    )
    if settlement.receipt is None:
        assert past.receipt is None
    else:
        assert past.receipt == {"detail": settlement.receipt.detail, **settlement.receipt.data}


def test_a_receipt_that_is_not_json_is_kept_as_far_as_it_is() -> None:
    task = Task(owner="a", id="b", uid="u", queue="q", status=Status.RUNNING, action="x")
    receipt = Receipt(detail="ok", data={"at": object, ("a", "key"): 1, 2: "two"})
    settlement = Settlement(
        task=task, status=Status.COMPLETED, due=None, attempts=1, crashes=0, blamed=0, failures=(), receipt=receipt
    )
    entry = json.loads(codec.pack_entry(settlement))
    assert entry["receipt"] == {"detail": "ok", "at": "<class 'object'>", "2": "two"}


@pytest.mark.parametrize(
    ("movement", "changes", "drop"),
    [
        (Movement(states=frozenset()), "", ""),
        (Movement(states=frozenset(), due=5, to=Status.PENDING), "", ""),
        (Movement(states=frozenset(), afresh=True), "", '["attempts","crashes","blamed","failures"]'),
        (Movement(states=frozenset(), due=5, nominal=5), '["nominal","5"]', '["window"]'),
        (
            Movement(states=frozenset(), nominal=5, window=Window(since=1, until=9)),
            '["nominal","5","window","1 9"]',
            "",
        ),
        (Movement(states=frozenset(), spec=Spec(action="x")), '["spec","{\\"action\\":\\"x\\"}"]', ""),
    ],
)
def test_a_movement_names_what_it_changes_and_what_it_drops(movement: Movement, changes: str, drop: str) -> None:
    assert codec.pack_movement(movement) == (changes, drop)


@pytest.mark.parametrize(
    ("score", "moment"),
    [(None, None), ("", None), ("inf", None), ("0", 0), ("1795335240123", 1_795_335_240_123), (5.0, 5)],
)
def test_a_score_is_a_moment(score: str | float | None, moment: int | None) -> None:
    assert codec.score(score) == moment


FIELDS = [
    "uid",
    "queue",
    "spec",
    "created",
    "updated",
    "version",
    "occurrence",
    "attempts",
    "crashes",
    "blamed",
    "claim",
]
FIELDS += ["holder", "cancel", "nominal", "window", "failures", "format", "entry", "name", "status", "at"]
scraps = st.one_of(
    any_text,
    values.map(json.dumps),
    st.sampled_from(
        ["", "0", "-1", "1e9", "null", "[]", "{}", "[[1]]", '{"action":"x"}', '{"action":[]}', "1 2", "completed"]
    ),
)


@PROPERTY
@given(st.dictionaries(st.sampled_from(FIELDS) | texts, scraps), any_text)
def test_garbage_is_read_or_unreadable_and_nothing_else(fields: dict[str, str], name: str) -> None:
    for read in (
        lambda: codec.unpack(name, fields, status=Status.PENDING, due=None),
        lambda: codec.unpack_transition(0, "1-0", fields),
    ):
        with suppress(Unreadable):
            read()


def test_half_a_list_is_no_record() -> None:
    with pytest.raises(ValueError, match="zip"):
        codec.pairs(["a", "b", "c"])
