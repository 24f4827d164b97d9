"""Records as Redis holds them ↔ tasks. Few fields that scripts read; the rest packed in one, `spec`.

A field that has its default is left out of the record: no attempts, version 1, first occurrence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from later.core.lifecycle import Settlement
from later.core.past import Transition
from later.core.task import Failure, Millis, Spec, Status, Task, Window
from later.store.base import Movement

FORMAT = "1"

FIRST_MOMENT: Millis = -62_135_596_800_000
LAST_MOMENT: Millis = 253_402_300_799_999
"""The years 1 to 9999: moments beyond cannot be shown to anybody."""

MOST_FIELDS = 64
MOST_BYTES = 4 * 1024 * 1024
"""More fields, or more bytes in one, no record has: it has some 20, and the largest is a spec whose 64 KiB of message
and 256 KiB of payload become six times as long in JSON, which is less than half of this."""

DAMAGES = (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a record that nobody here wrote may raise."""

Fields = Mapping[str, str]


class Unreadable(ValueError):
    """This is not a record that this version of Later can read."""


def pack_spec(spec: Spec) -> str:
    """The packed field: equal specs give equal text, so that scripts can compare them."""
    said = {
        "action": spec.action,
        "message": spec.message,
        "to": spec.to,
        "payload": spec.payload,
        "options": spec.options,
        "zone": spec.zone,
        "rule": spec.rule,
    }
    return _dump({key: value for key, value in said.items() if value not in (None, "")})


def pack(task: Task, *, lane: str) -> list[str]:
    """A task's record as `field, value, …`, without the claim; `lane` is the queue as keys name it."""
    record = [
        "uid",
        task.uid,
        "queue",
        lane,
        "spec",
        pack_spec(task.spec),
        "created",
        str(task.created),
        "format",
        FORMAT,
    ]
    if task.nominal is not None:
        record += ["nominal", str(task.nominal)]
    if task.window is not None:
        record += ["window", pack_window(task.window)]
    if task.occurrence != 1:
        record += ["occurrence", str(task.occurrence)]
    return record + _pack_career(task)


def _pack_career(task: Task) -> list[str]:
    """What has come of the task so far: nothing of a new one."""
    record = []
    if task.updated != task.created:
        record += ["updated", str(task.updated)]
    if task.version != 1:
        record += ["version", str(task.version)]
    if task.attempts:
        record += ["attempts", str(task.attempts)]
    if task.crashes:
        record += ["crashes", str(task.crashes)]
    if task.blamed:
        record += ["blamed", str(task.blamed)]
    if task.failures:
        record += ["failures", _pack_failures(task.failures)]
    if task.cancel:
        record += ["cancel", "1"]
    return record


def pack_window(window: Window) -> str:
    return f"{window.since} {window.until}"


def pack_changes(settlement: Settlement) -> str:
    """What a settlement changes in a record that stays, as a JSON list of `field, value, …`."""
    return _dump(
        [
            "attempts", str(settlement.attempts),
            "crashes", str(settlement.crashes),
            "blamed", str(settlement.blamed),
            "failures", _pack_failures(settlement.failures),
        ]
    )  # fmt: skip


def pack_entry(settlement: Settlement) -> str:
    """What a settlement adds to the record in the outbox; what a plug-in's receipt says beyond JSON becomes text."""
    entry: dict[str, Any] = {
        "due": settlement.task.due,
        "started": settlement.started,
        "attempts": settlement.attempts,
    }
    if settlement.failures:
        entry["failures"] = [[failure.at, failure.reason] for failure in settlement.failures]
    if settlement.receipt is not None:
        entry["receipt"] = {"detail": settlement.receipt.detail, **settlement.receipt.data}
    return _dump(entry, sort_keys=False, skipkeys=True, default=str)


def pack_movement(movement: Movement) -> tuple[str, str]:
    """What a movement changes in the record and what it drops from it, each a JSON list or empty."""
    changes: list[str] = []
    drop: list[str] = []
    if movement.spec is not None:
        changes += ["spec", pack_spec(movement.spec)]
    if movement.nominal is not None:
        changes += ["nominal", str(movement.nominal)]
        if movement.window is None:
            drop.append("window")
        else:
            changes += ["window", pack_window(movement.window)]
    if movement.afresh:
        drop += ["attempts", "crashes", "blamed", "failures"]
    return _dump(changes) if changes else "", _dump(drop) if drop else ""


def unpack(name: str, fields: Fields, *, status: Status, due: Millis | None, **known: Any) -> Task:
    """The task of a record. `known` overrides what the record says; raises Unreadable."""
    try:
        owner, _, task_id = name.partition("/")
        read: dict[str, Any] = {
            "owner": owner,
            "id": task_id,
            "uid": fields["uid"],
            "queue": fields["queue"].rpartition("/")[2],
            "status": status,
            "due": due,
            "created": _known(fields["created"]),
            "updated": _known(fields.get("updated") or fields["created"]),
            "version": int(fields.get("version", 1)),
            "occurrence": int(fields.get("occurrence", 1)),
            "attempts": int(fields.get("attempts", 0)),
            "crashes": int(fields.get("crashes", 0)),
            "blamed": int(fields.get("blamed", 0)),
            "claim": int(fields.get("claim", 0)),
            "holder": fields.get("holder", ""),
            "cancel": "cancel" in fields,
            **_unpack_spec(fields["spec"]),
        }
        if "nominal" in fields:
            read["nominal"] = _known(fields["nominal"])
        if "window" in fields:
            since, _, until = fields["window"].partition(" ")
            read["window"] = Window(since=_known(since), until=_known(until))
        if "failures" in fields:
            read["failures"] = _unpack_failures(json.loads(fields["failures"]))
        return Task(**{**read, **known})
    except DAMAGES as damage:
        raise Unreadable(f"the record of {name[:200]!r} cannot be read: {damage!r}") from damage


def unpack_transition(partition: int, key: str, fields: Fields) -> Transition:
    """An entry of the outbox; raises Unreadable."""
    try:
        entry = json.loads(fields["entry"])
        due = _moment(entry.get("due"))
        known: dict[str, Any] = {"updated": _known(fields["at"])}
        if "attempts" in entry:
            known["attempts"] = int(entry["attempts"])
        if "failures" in entry:
            known["failures"] = _unpack_failures(entry["failures"])
        task = unpack(fields["name"], fields, status=Status(fields["status"]), due=due, **known)
        return Transition(
            partition=partition,
            key=key,
            task=task,
            at=_known(fields["at"]),
            started=entry.get("started"),
            receipt=entry.get("receipt"),
        )
    except DAMAGES as damage:
        raise Unreadable(f"entry {key} of the outbox cannot be read: {damage!r}") from damage


def score(text: str | float | None) -> Millis | None:
    """A ZSET's score as a moment; None for none, for +inf (not scheduled) and for what is no moment at all."""
    return _moment(text)


def pairs(flat: Sequence[str]) -> dict[str, str]:
    """`[field, value, …]` as a dict."""
    each = iter(flat)
    return dict(zip(each, each, strict=True))


def _moment(value: str | float | None) -> Millis | None:
    if value is None or value == "":
        return None
    number = float(value)
    return int(number) if FIRST_MOMENT <= number <= LAST_MOMENT else None


def _known(text: str | int) -> Millis:
    moment = int(text)
    if not FIRST_MOMENT <= moment <= LAST_MOMENT:
        raise ValueError(f"{str(text)[:30]} is not a moment")
    return moment


def _unpack_spec(text: str) -> dict[str, Any]:
    said = json.loads(text)
    return {
        field: said[field]
        for field in ("action", "message", "to", "payload", "options", "zone", "rule")
        if field in said
    }


def _pack_failures(failures: Sequence[Failure]) -> str:
    return _dump([[failure.at, failure.reason] for failure in failures])


def _unpack_failures(links: Sequence[Sequence[Any]]) -> tuple[Failure, ...]:
    return tuple(Failure(at=_known(at), reason=str(reason)) for at, reason in links)


def _dump(value: Any, *, sort_keys: bool = True, **rules: Any) -> str:
    """JSON as UTF-8 can carry it: half a surrogate pair, as in the words of a broken server, stays escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys, **rules)
    return text.encode(errors="backslashreplace").decode()
