"""Final transitions as the table holds them ↔ as the core knows them. Decides which ones are unread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row

from later.archive.schema import past
from later.core.past import Transition
from later.core.task import Failure, Status, Task, Window

INBOX = "inbox"
"""The action whose deliveries are the rows themselves."""

_KIND = {column.name: column.type.python_type for column in past.columns}
_OPTIONAL = frozenset(column.name for column in past.columns if column.nullable)


class Unkeepable(ValueError):
    """This is not a transition that the table can hold and give back unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past(Transition):
    """A transition from the archive; `unread` means that it lies in its owner's inbox and was not shown yet."""

    unread: bool


def pack(transition: Transition) -> dict[str, Any]:
    """The row of a transition; raises Unkeepable."""
    task = transition.task
    try:
        row = {
            "partition": transition.partition,
            "key": transition.key,
            "owner": task.owner,
            "id": task.id,
            "uid": task.uid,
            "occurrence": task.occurrence,
            "status": task.status.value,
            "queue": task.queue,
            "action": task.action,
            "to": task.to,
            "message": task.message,
            "payload": _dump(task.payload),
            "options": _dump(task.options),
            "zone": task.zone,
            "rule": task.rule,
            "window": _dump(None if task.window is None else asdict(task.window)),
            "due": task.due,
            "nominal": task.nominal,
            "created": task.created,
            "started": transition.started,
            "finished": transition.at,
            "attempts": task.attempts,
            "crashes": task.crashes,
            "failures": _dump([asdict(failure) for failure in task.failures]),
            "receipt": _dump(transition.receipt),
            "version": task.version,
            "unread": task.status is Status.COMPLETED and task.action == INBOX,
        }
    except (TypeError, ValueError) as error:
        raise Unkeepable(f"not JSON: {error}") from None
    for name, value in row.items():
        _check(name, value)
    return row


def unpack(row: Row[Any]) -> Past:
    """The transition of a row."""
    window = _load(row.window)
    task = Task(
        owner=row.owner,
        id=row.id,
        uid=row.uid,
        queue=row.queue,
        status=Status(row.status),
        action=row.action,
        message=row.message,
        to=row.to,
        payload=_load(row.payload),
        options=_load(row.options),
        zone=row.zone,
        rule=row.rule,
        window=window and Window(**window),
        due=row.due,
        nominal=row.nominal,
        occurrence=row.occurrence,
        version=row.version,
        created=row.created,
        updated=row.finished,
        attempts=row.attempts,
        crashes=row.crashes,
        failures=tuple(Failure(**failure) for failure in json.loads(row.failures)),
    )
    return Past(
        partition=row.partition,
        key=row.key,
        task=task,
        at=row.finished,
        started=row.started,
        receipt=_load(row.receipt),
        unread=row.unread,
    )


def _check(name: str, value: Any) -> None:
    if value is None and name in _OPTIONAL:
        return
    if not isinstance(value, _KIND[name]):
        raise Unkeepable(f"{name} is {type(value).__name__}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Unkeepable(f"{name} has more than 64 bits")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unkeepable(f"{name} is not valid Unicode") from None


def _dump(value: Mapping[str, Any] | list[Any] | None) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _load(text: str | None) -> Any:
    return None if text is None else json.loads(text)
