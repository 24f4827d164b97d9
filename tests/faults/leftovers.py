"""What the server holds when all is at rest: which tasks live, and which keys and entries nobody should have left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from tests.faults.nemesis import STRAYS

ROOT = "later:{0}:"
STATES = {"created": "created", "due:default": "pending", "running:default": "running", "failed": "failed"}
FOR_GOOD = {"later:meta", f"{ROOT}claims", f"{ROOT}outbox", f"{ROOT}quarantine"}
LISTS = re.compile(re.escape(ROOT) + r"(task|user):.+")


class Leftovers:
    """Reads a dump: hashes and sorted sets are mappings, a stream is its length."""

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self._keys = {key: value for key, value in keys.items() if not key.startswith(f"{ROOT}task:{STRAYS}")}
        self._records = {
            key.removeprefix(f"{ROOT}task:"): value
            for key, value in self._keys.items()
            if key.startswith(f"{ROOT}task:")
        }

    @property
    def outbox(self) -> int:
        return int(self._keys.get(f"{ROOT}outbox", 0))

    @cached_property
    def live(self) -> dict[str, str]:
        """Delivery → state, of every task with a record."""
        return {
            f"{record['uid']}.{record.get('occurrence', 1)}": (self._states(name) or ["nowhere"])[0]
            for name, record in self._records.items()
            if "uid" in record
        }

    @cached_property
    def orphans(self) -> list[tuple[str, str]]:
        """What breaks the rule: a record, one state, one entry in its owner's list, and no key besides."""
        found = [(key, "no such key") for key in self._keys if not self._known(key)]
        for name in self._records:
            if len(states := self._states(name)) != 1:
                found.append((name, f"in {len(states)} states: {states}"))
            owner, _, task = name.partition("/")
            if task not in self._members(f"user:{owner}"):
                found.append((name, "not in its owner's list"))
        for state in STATES:
            found += [(name, f"in {state} without a record") for name in self._members(state) - self._records.keys()]
        for key in self._keys:
            if key.startswith(f"{ROOT}user:"):
                owner = key.removeprefix(f"{ROOT}user:")
                found += [
                    (f"{owner}/{task}", "listed without a record")
                    for task in self._keys[key]
                    if f"{owner}/{task}" not in self._records
                ]
        return found + [(name, "in quarantine") for name in self._members("quarantine")]

    def _known(self, key: str) -> bool:
        return key in FOR_GOOD or key.removeprefix(ROOT) in STATES or LISTS.fullmatch(key) is not None

    def _states(self, name: str) -> list[str]:
        return [state for key, state in STATES.items() if name in self._members(key)]

    def _members(self, key: str) -> set[str]:
        return {name for name in self._keys.get(f"{ROOT}{key}", ()) if not name.startswith(STRAYS)}
