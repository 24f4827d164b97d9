"""The history, put in order for the questions that are asked of it."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property

from tests.faults.events import OK, Arrival, Call, History, Past
from tests.faults.leftovers import Leftovers
from tests.faults.times import ServerTime

SLACK_MS = 1_000.0
"""Bytes outlive the daemon that wrote them, and what happens in a moment takes one on a busy machine."""
SINCE_MS = 5_000.0
"""How long before its arrival an action may have begun, where its claim does not tell."""


class Case:
    """Calls by task, arrivals and rows by delivery, and what is left."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.time = ServerTime(history.steps)
        self.left = Leftovers(history.keys)
        self.calls: dict[str, list[Call]] = defaultdict(list)
        for call in sorted(history.calls, key=lambda call: call.invoked):
            self.calls[call.task].append(call)
        self.arrivals: dict[str, list[Arrival]] = defaultdict(list)
        for arrival in history.arrivals:
            self.arrivals[arrival.delivery].append(arrival)
        self.rows: dict[str, dict[tuple[str, str], Past]] = defaultdict(dict)
        for row in history.past:  # two daemons may both have kept one entry of the outbox
            self.rows[row.delivery][row.status, row.finished] = row

    @cached_property
    def acknowledged(self) -> dict[str, Call]:
        """Delivery → the call that first answered with it."""
        found: dict[str, Call] = {}
        for call in sorted(self.history.calls, key=lambda call: call.answered):
            if call.outcome == OK and call.delivery is not None:
                found.setdefault(call.delivery, call)
        return found

    def ended(self, delivery: str, *statuses: str) -> list[Past]:
        """The rows that say so, the first first."""
        rows = [row for row in self.rows.get(delivery, {}).values() if row.status in statuses]
        return sorted(rows, key=lambda row: row.finished)

    def claimed_after(self, arrival: Arrival, moment: float) -> bool:
        """Whether it surely belongs to a claim made later than our `moment`."""
        claimed = arrival.claim / 1000
        return arrival.at > moment and claimed > max(
            self.time.latest(moment, moment), self.time.doubtful_until(arrival.at) + SLACK_MS
        )

    def begun(self, arrival: Arrival) -> float:
        """Our moment before which its claim was surely not made."""
        claimed = arrival.claim / 1000
        if claimed <= self.time.doubtful_until(arrival.at) + SLACK_MS:
            return arrival.at - SINCE_MS
        ahead = self.time.latest(arrival.at, arrival.at) - arrival.at
        return min(arrival.at, claimed - ahead)
