"""A task as a line of an export, and what is believed of a line that comes in: nothing that was not looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

import pydantic_core
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from later.api.schemas import Address, Body, Name, PastStatus, Payload, Phrase, size_as_json, task_json
from later.archive.rows import Past
from later.core.errors import InvalidTask
from later.core.task import (
    OPTIONS_BYTES,
    PAYLOAD_BYTES,
    Failure,
    Millis,
    Status,
    Task,
    Window,
    check_id,
    check_message,
    check_owner,
    check_queue,
)
from later.core.when import parse_instant, rfc3339
from later.store.base import Standing

LINE_BYTES = 4 * 1024 * 1024
"""More than a task within its bounds takes where each of its characters is escaped."""

RECEIPT_BYTES = 1024 * 1024
FAILURES = 100
FIELDS = 32
"""More than anything in a line has; each unknown one would cost a complaint of its own."""
BRACKETS = 500_000
"""More than the texts and receipts of a task have; making a million lists takes a while."""
REASON_CHARACTERS = 300
ROUGH_BYTES = {"payload": 8 * PAYLOAD_BYTES, "options": 2 * OPTIONS_BYTES, "receipt": 2 * RECEIPT_BYTES}
"""More than each takes however it is escaped: what is beyond is not looked at any closer."""

Value = TypeVar("Value")


def line_of(one: Standing | Past) -> dict[str, Any]:
    """The line of a task. Raises ValueError or OverflowError where a time of it is in no calendar."""
    if isinstance(one, Past):
        own = {"kind": "past", "partition": one.partition, "key": one.key, "unread": one.unread}
        return {**own, "task": _sound(task_json(one))}
    own = {"kind": "live", "since": rfc3339(one.since), "cancel": one.task.cancel, "blamed": one.task.blamed}
    return {**own, "task": _sound(task_json(one.task))}


def read_line(text: bytes) -> Standing | Past:
    """The task of a line; raises InvalidTask with what is wrong with it."""
    if len(text) > LINE_BYTES:
        raise InvalidTask(f"it has {len(text):,} bytes; no task has more than {LINE_BYTES:,}")
    if text.count(b"[") + text.count(b"{") > BRACKETS:
        raise InvalidTask(f"it has more than {BRACKETS:,} lists and objects; no task has")
    try:
        said = pydantic_core.from_json(text)
        _check_shape(said)
        # Written anew, as a name that is repeated in the text would be complained about each time.
        return _LINE.validate_json(pydantic_core.to_json(said)).read()
    except ValidationError as refusal:
        first = refusal.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"][1:]))
        what = first["msg"].removeprefix("Value error, ")
        raise InvalidTask((f"{where}: {what}" if where else what)[:REASON_CHARACTERS]) from None
    except ValueError as error:
        raise InvalidTask(str(error)[:REASON_CHARACTERS]) from None


def _check_shape(said: Any) -> None:
    """Refuse what would take long to validate. Raises ValueError."""
    task = said.get("task") if isinstance(said, dict) else None
    if not isinstance(task, dict):
        task = {}
    failures = task.get("failures")
    if isinstance(failures, list) and len(failures) > FAILURES:
        raise ValueError(f"task.failures: {len(failures):,} are too many; a task keeps at most {FAILURES}")
    for one in (said, task, task.get("window"), task.get("payload"), *(failures if isinstance(failures, list) else ())):
        if isinstance(one, dict) and len(one) > FIELDS:
            raise ValueError(f"something in it has {len(one):,} fields; no part of a task has more than {FIELDS}")
    for name, limit in ROUGH_BYTES.items():
        if len(pydantic_core.to_json(task.get(name))) > limit:
            raise ValueError(f"task.{name}: it is larger than any")


def _sound(task: dict[str, Any]) -> dict[str, Any]:
    """The words of a broken server may have half a surrogate pair, which no file of UTF-8 has."""
    for failure in task["failures"]:
        failure["reason"] = failure["reason"].encode(errors="backslashreplace").decode()
    return task


def _moment(value: object) -> Millis:
    if not isinstance(value, str) or len(value) > 100:
        raise ValueError("a time is text, as in 2026-11-25T10:14:00.000Z")
    moment = _believed(parse_instant, value)
    if moment < 0:
        raise ValueError(f"{value!r} is before 1970")
    return moment


def _believed(check: Callable[[str], Value], value: str) -> Value:
    try:
        return check(value)
    except InvalidTask as refusal:
        raise ValueError(refusal.message) from None


def _within(limit: int) -> AfterValidator:
    def check(value: Any) -> Any:
        if size_as_json(value) > limit:
            raise ValueError(f"it has more than {limit:,} bytes")
        return value

    return AfterValidator(check)


def _by(check: Callable[[str], str]) -> AfterValidator:
    return AfterValidator(lambda value: _believed(check, value))


Moment: TypeAlias = Annotated[int, BeforeValidator(_moment)]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]
Number: TypeAlias = Annotated[int, Field(ge=1, lt=2**31)]
DeliveryId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}\.[1-9][0-9]{0,9}$")]


class _Strict(Body):
    """What a program wrote: numbers are numbers and text is text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class KeptWindow(_Strict):
    from_: Moment = Field(alias="from")
    until: Moment


class KeptFailure(_Strict):
    at: Moment
    reason: Annotated[str, StringConstraints(max_length=10_000)]


class KeptTask(_Strict):
    """The fields of a task as it is everywhere, each within its bounds; a test holds it to be all of them."""

    id: Annotated[str, _by(check_id)]
    owner: Annotated[str, _by(check_owner)]
    status: Status
    queue: Annotated[str, _by(check_queue)]
    action: Name
    to: Address | None
    message: Annotated[str, _by(check_message)]
    payload: Payload | None
    options: Annotated[dict[str, Any], _within(OPTIONS_BYTES)] | None
    due: Moment | None
    nominal: Moment | None
    window: KeptWindow | None
    zone: Name | None
    rule: Phrase | None
    occurrence: Number
    delivery_id: DeliveryId
    attempts: Count
    crashes: Count
    failures: Annotated[list[KeptFailure], Field(max_length=FAILURES, fail_fast=True)]
    receipt: Annotated[dict[str, Any], _within(RECEIPT_BYTES)] | None
    version: Number
    created_at: Moment
    updated_at: Moment
    started_at: Moment | None
    finished_at: Moment | None

    def read(self, **more: Any) -> Task:
        uid, _, occurrence = self.delivery_id.rpartition(".")
        if int(occurrence) != self.occurrence:
            raise InvalidTask(f"task.delivery_id: {self.delivery_id!r} is not of occurrence {self.occurrence}")
        return Task(
            owner=self.owner,
            id=self.id,
            uid=uid,
            queue=self.queue,
            status=self.status,
            action=self.action,
            message=self.message,
            to=self.to,
            payload=self.payload.model_dump(by_alias=True, exclude_unset=True) if self.payload else None,
            options=self.options,
            zone=self.zone,
            rule=self.rule,
            window=Window(since=self.window.from_, until=self.window.until) if self.window else None,
            due=self.due,
            nominal=self.nominal,
            occurrence=self.occurrence,
            version=self.version,
            created=self.created_at,
            updated=self.updated_at,
            attempts=self.attempts,
            crashes=self.crashes,
            failures=tuple(Failure(at=failure.at, reason=failure.reason) for failure in self.failures),
            **more,
        )


class LiveLine(_Strict):
    kind: Literal["live"]
    since: Moment
    cancel: bool
    blamed: Count
    task: KeptTask

    def read(self) -> Standing:
        status, due = self.task.status, self.task.due
        if status not in (Status.CREATED, Status.PENDING, Status.FAILED):
            raise InvalidTask(f"task.status: a live task is not {status} when it comes from elsewhere")
        if status is Status.PENDING and due is None:
            raise InvalidTask("task.due: a pending task has a time")
        return Standing(task=self.task.read(cancel=self.cancel, blamed=self.blamed), since=self.since)


class PastLine(_Strict):
    kind: Literal["past"]
    partition: Count
    key: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$")]
    unread: bool
    task: KeptTask

    def read(self) -> Past:
        task = self.task
        if task.status not in get_args(PastStatus):
            raise InvalidTask(f"task.status: a past task is not {task.status}")
        if task.finished_at is None or task.finished_at != task.updated_at:
            raise InvalidTask("task.finished_at: a past task ended when it was changed for the last time")
        return Past(
            partition=self.partition,
            key=self.key,
            task=task.read(),
            at=task.finished_at,
            started=task.started_at,
            receipt=task.receipt,
            unread=self.unread,
        )


_LINE: TypeAdapter[LiveLine | PastLine] = TypeAdapter(Annotated[LiveLine | PastLine, Field(discriminator="kind")])
