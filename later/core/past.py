"""Final transitions: what the outbox carries and the archive keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from later.core.task import Millis, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A task that came to completed, failed or cancelled.

    `partition` and `key` name it for ever: a transition that is read twice is one and the same. `started` is when the
    last attempt began (None: there was none), `receipt` what the other side answered.
    """

    partition: int
    key: str
    task: Task
    at: Millis
    started: Millis | None = None
    receipt: Mapping[str, Any] | None = None
