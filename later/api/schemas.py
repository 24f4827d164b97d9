"""The JSON of the API, and how tasks turn into it."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from later.client import Changes, NewTask
from later.core.past import Transition
from later.core.task import ADDRESS_CHARACTERS, OPTIONS_BYTES, PAYLOAD_BYTES, Millis, Status, Task
from later.core.when import When, rfc3339

LiveStatus = Literal[Status.CREATED, Status.PENDING, Status.RUNNING, Status.FAILED]
PastStatus = Literal[Status.COMPLETED, Status.FAILED, Status.CANCELLED]
LEVELS = 100
"""How deep JSON may be nested: far from where reading it back would overflow."""

Phrase = Annotated[str, StringConstraints(max_length=1000)]
Address = Annotated[str, StringConstraints(max_length=ADDRESS_CHARACTERS)]
Name = Annotated[str, StringConstraints(max_length=200)]


class Body(BaseModel):
    """What a caller sends: unknown fields are refused, so that a slip of the pen is not silently ignored."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Payload(Body):
    """Opaque content for the receiver, in exactly one of three forms."""

    content_type: Annotated[str, StringConstraints(max_length=200)] = "application/octet-stream"
    text: str | None = None
    json_: Any = Field(None, alias="json")
    base64: str | None = None

    @model_validator(mode="after")
    def _one_form_within_bounds(self) -> Payload:
        given = self.model_fields_set & {"text", "json_", "base64"}
        if len(given) != 1:
            raise ValueError("a payload has exactly one of text, json and base64")
        if self._size() > PAYLOAD_BYTES:
            raise ValueError(f"a payload has at most {PAYLOAD_BYTES:,} bytes")
        return self

    def _size(self) -> int:
        if self.base64 is not None:
            try:
                return len(base64.b64decode(self.base64, validate=True))
            except ValueError:
                raise ValueError("base64 is not valid base64") from None
        return len(self.text.encode()) if self.text is not None else size_as_json(self.json_)


class Time(Body):
    """The forms in which a moment can be said."""

    at: Phrase | None = None
    in_: Phrase | None = Field(None, alias="in")
    within: Phrase | None = None
    after: Phrase | None = None

    def when(self, *, hold: bool = False) -> When:
        return When(at=self.at, in_=self.in_, within=self.within, after=self.after, hold=hold)


class TaskToAdd(Time):
    """A new task; without a time it is created and waits to be scheduled."""

    id: str | None = None
    message: str = ""
    action: Name | None = None
    to: Address | None = None
    payload: Payload | None = None
    options: dict[str, Any] | None = None
    zone: Name | None = None
    hold: bool = False

    @model_validator(mode="after")
    def _options_within_bounds(self) -> TaskToAdd:
        if self.options is not None and size_as_json(self.options) > OPTIONS_BYTES:
            raise ValueError(f"options have at most {OPTIONS_BYTES:,} bytes")
        return self

    def new_task(self) -> NewTask:
        payload = self.payload.model_dump(by_alias=True, exclude_unset=True) if self.payload else None
        if payload is not None and self.payload is not None:
            payload["content_type"] = self.payload.content_type
        return NewTask(
            message=self.message,
            id=self.id,
            action=self.action,
            to=self.to,
            payload=payload,
            options=self.options,
            zone=self.zone,
            when=self.when(hold=self.hold),
        )


class TaskChanges(Body):
    """What is to change of a task; the rest stays. An empty `to` means: the default one."""

    message: str | None = None
    to: Address | None = None
    action: Name | None = None

    def changes(self) -> Changes:
        return Changes(message=self.message, to=self.to, action=self.action)


class NewTime(Time):
    """Another time for a task."""

    zone: Name | None = None


class Snooze(Body):
    """How much later from now."""

    in_: Phrase = Field(alias="in")


class Read(Body):
    """Which thoughts of the inbox have been read, by delivery id."""

    delivery_ids: Annotated[list[Name], Field(max_length=1000)]


class Examination(Body):
    """Whether to mend what is wrong, and where an earlier part has ended."""

    repair: bool = False
    cursor: Annotated[str, StringConstraints(max_length=50_000)] | None = None


class WindowOut(BaseModel):
    """The interval that a random moment was drawn from."""

    model_config = ConfigDict(populate_by_name=True)

    from_: str = Field(alias="from")
    until: str


class FailureOut(BaseModel):
    """One link of the chain of causes."""

    at: str
    reason: str


class TaskOut(BaseModel):
    """A task, live or past, as it is everywhere."""

    id: str
    owner: str
    status: Status
    queue: str
    action: str
    to: str | None
    message: str
    payload: dict[str, Any] | None
    options: dict[str, Any] | None
    due: str | None
    nominal: str | None
    window: WindowOut | None
    zone: str | None
    rule: str | None
    occurrence: int
    delivery_id: str
    attempts: int
    crashes: int
    failures: list[FailureOut]
    receipt: dict[str, Any] | None
    version: int
    created_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None


class AddedTask(TaskOut):
    """What became of a new task, and where it is kept."""

    disposition: Literal["created", "kept", "replaced"]
    kept_in: str


class TaskList(BaseModel):
    """Some tasks, and where the list goes on."""

    tasks: list[TaskOut]
    next: str | None


def task_json(one: Task | Transition) -> dict[str, Any]:
    """The JSON of a live or a past task."""
    task, past = (one.task, one) if isinstance(one, Transition) else (one, None)
    return {
        "id": task.id,
        "owner": task.owner,
        "status": task.status.value,
        "queue": task.queue,
        "action": task.action,
        "to": task.to,
        "message": task.message,
        "payload": task.payload,
        "options": task.options,
        "due": _instant(task.due),
        "nominal": _instant(task.nominal),
        "window": task.window and {"from": rfc3339(task.window.since), "until": rfc3339(task.window.until)},
        "zone": task.zone,
        "rule": task.rule,
        "occurrence": task.occurrence,
        "delivery_id": task.delivery_id,
        "attempts": task.attempts,
        "crashes": task.crashes,
        "failures": [{"at": rfc3339(failure.at), "reason": failure.reason} for failure in task.failures],
        "receipt": past.receipt if past else None,
        "version": task.version,
        "created_at": rfc3339(task.created),
        "updated_at": rfc3339(task.updated),
        "started_at": _instant(past.started if past else None),
        "finished_at": _instant(past.at if past else None),
    }


def size_as_json(value: Any) -> int:
    """The bytes that it takes; raises ValueError where it is none that everybody can read."""
    _check_depth(value, LEVELS)
    try:
        return len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except UnicodeEncodeError:
        raise ValueError("a character is only half there (a lone surrogate); send it as UTF-8") from None
    except ValueError:
        raise ValueError("JSON has no NaN and no infinite number") from None


def _check_depth(value: Any, left: int) -> None:
    if not left:
        raise ValueError(f"it is nested more than {LEVELS} levels deep")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, left - 1)


def _instant(moment: Millis | None) -> str | None:
    return None if moment is None else rfc3339(moment)
