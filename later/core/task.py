"""A task: what is to be done, whose it is, and where it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from later.core.errors import InvalidTask

Millis: TypeAlias = int
"""A moment or a length of time in whole milliseconds; moments count from the Unix epoch, UTC."""

OWNER = re.compile(r"[A-Za-z0-9._@+-]{1,64}")
ID = re.compile(r"[A-Za-z0-9._:-]{1,200}")
QUEUE = re.compile(r"[A-Za-z0-9._-]{1,64}")

LONGEST_LEASE: Millis = 600_000
"""Leases are extended while their holder lives, so none needs to be long."""
NO_LEASE_MS: Millis = LONGEST_LEASE + 60_000
"""So far ahead no lease ends; a minute is for clocks that are estimated."""

MESSAGE_BYTES = 64 * 1024
PAYLOAD_BYTES = 256 * 1024
OPTIONS_BYTES = 16 * 1024
ADDRESS_CHARACTERS = 1024


class Status(StrEnum):
    """Where a task stands. The first four are live; the last two are past."""

    CREATED = "created"  # kept without a time, or paused; its owner schedules or resumes it
    PENDING = "pending"  # waits for its due time; a claim takes it
    RUNNING = "running"  # claimed under a lease; a settlement or the lease's end takes it out
    FAILED = "failed"  # out of attempts or permanently refused; its owner retries or deletes it
    COMPLETED = "completed"  # performed
    CANCELLED = "cancelled"  # deleted by its owner before it was performed


LIVE = (Status.CREATED, Status.PENDING, Status.RUNNING, Status.FAILED)
PAST = (Status.COMPLETED, Status.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The interval a random moment was drawn from: after `since`, up to and including `until`."""

    since: Millis
    until: Millis


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One link of the chain of causes."""

    at: Millis
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What was asked for; two adds of one id are the same thought when their specs and queues are equal."""

    action: str
    message: str = ""
    to: str | None = None
    payload: Mapping[str, Any] | None = None
    options: Mapping[str, Any] | None = None
    zone: str | None = None
    rule: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as it stood when it was read.

    `uid` is drawn when the task is added or replaced, so that a reused id is never mistaken for its predecessor.
    `due` is when it starts now, `nominal` when it was meant to start; only the first is moved by snoozing and retries.
    `crashes` counts leases that ended without a word, `blamed` those of them that can have had no other cause.
    """

    owner: str
    id: str
    uid: str
    queue: str
    status: Status
    action: str
    message: str = ""
    to: str | None = None
    payload: Mapping[str, Any] | None = None
    options: Mapping[str, Any] | None = None
    zone: str | None = None
    rule: str | None = None
    window: Window | None = None
    due: Millis | None = None
    nominal: Millis | None = None
    occurrence: int = 1
    version: int = 1
    created: Millis = 0
    updated: Millis = 0
    attempts: int = 0
    crashes: int = 0
    blamed: int = 0
    claim: int = 0
    holder: str = ""
    cancel: bool = False
    failures: tuple[Failure, ...] = ()
    lease_until: Millis | None = None

    @property
    def name(self) -> str:
        """What the state sets call it: `<owner>/<id>`; an owner has no slash, so it splits one way only."""
        return f"{self.owner}/{self.id}"

    @property
    def spec(self) -> Spec:
        """What was asked for."""
        return Spec(
            action=self.action,
            message=self.message,
            to=self.to,
            payload=self.payload,
            options=self.options,
            zone=self.zone,
            rule=self.rule,
        )

    @property
    def delivery_id(self) -> str:
        """What receivers see: the same for every attempt of one occurrence, different for everything else."""
        return f"{self.uid}.{self.occurrence}"


def check_owner(owner: str) -> str:
    """The owner, if it may be one; raises InvalidTask."""
    if not OWNER.fullmatch(owner):
        raise InvalidTask(f"{owner[:80]!r} cannot be an owner: use 1 to 64 of A-Z a-z 0-9 . _ @ + -")
    return owner


def check_id(task_id: str) -> str:
    """The id, if it may be one; raises InvalidTask."""
    if not ID.fullmatch(task_id):
        raise InvalidTask(f"{task_id[:80]!r} cannot be an id: use 1 to 200 of A-Z a-z 0-9 . _ : -")
    return task_id


def check_queue(queue: str) -> str:
    """The queue's name, if it may be one; raises InvalidTask."""
    if not QUEUE.fullmatch(queue):
        raise InvalidTask(f"{queue[:80]!r} cannot be a queue: use 1 to 64 of A-Z a-z 0-9 . _ -")
    return queue


def check_message(message: str) -> str:
    """The message, if every channel can carry it unchanged; raises InvalidTask."""
    if "\0" in message:
        raise InvalidTask("the text has a NUL character, which no channel can carry; leave it out")
    try:
        size = len(message.encode())
    except UnicodeEncodeError:
        raise InvalidTask("the text is not valid Unicode; send it as UTF-8") from None
    if size > MESSAGE_BYTES:
        raise InvalidTask(f"the text has {size:,} bytes; at most {MESSAGE_BYTES:,} are kept, so shorten it")
    return message
