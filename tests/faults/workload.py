"""Owners: each adds a task, asks again where no answer came, and changes its mind as its seed says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2

from tests.faults import sinks
from tests.faults.events import OK, REFUSED, UNKNOWN, Call, Journal, now

PATIENCE_S = 4.0
"""How long an owner waits for an answer; a stopped daemon may carry the request out much later all the same."""
OVERTIME_S = 15.0
"""How long after the last task was added an owner goes on asking for an answer."""
WISHES = {
    "none": 0.5,
    "add again": 0.1,
    "add another": 0.06,
    "delete": 0.2,
    "snooze": 0.06,
    "schedule": 0.05,
    "execute": 0.03,
}
"""How often an owner wants what of a task that is kept."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """What the tasks are like: how many a second, how many seconds ahead and how long they may be.

    `mix`: how many take a moment, a while, and about as long as a lease or longer.
    """

    rate: float = 30.0
    ahead: int = 5
    longest: float = 3.0
    mix: tuple[float, float, float] = (0.6, 0.25, 0.15)


class Workload:
    """Asks at any daemon; every request is noted with what came of it."""

    def __init__(self, sockets: Sequence[Path], journal: Journal[Call], style: Style, *, seed: int) -> None:
        # Certificates would take 30 ms to load, for a socket that has none.
        self._doors = [
            httpx2.AsyncClient(
                transport=httpx2.AsyncHTTPTransport(uds=str(path), verify=False, limits=httpx2.Limits()),
                base_url="http://later",
                timeout=PATIENCE_S,
            )
            for path in sockets
        ]
        self._journal = journal
        self._style = style
        self._seed = seed
        self._born = 0
        self._until = 0.0

    async def close(self) -> None:
        for door in self._doors:
            await door.aclose()

    async def run(self, seconds: float) -> None:
        """Let tasks be added for so long; returns when the last owner has no wish any more."""
        loop = asyncio.get_running_loop()
        began, first = loop.time(), self._born
        self._until = began + seconds + OVERTIME_S
        async with asyncio.TaskGroup() as owners:
            while (age := loop.time() - began) < seconds:
                while self._born - first < age * self._style.rate:
                    owners.create_task(self._live(self._born))
                    self._born += 1
                await asyncio.sleep(0.02)

    async def _live(self, number: int) -> None:
        rng = random.Random(f"{self._seed} {number}")
        owner = _Owner(self, f"t{number}", rng, self._style)
        await owner.add()
        await asyncio.sleep(rng.uniform(0, owner.ahead + 0.5 + owner.take))
        [wish] = rng.choices(list(WISHES), WISHES.values())
        await owner.wish(wish)
        if owner.refuse:
            await owner.retry()

    @property
    def over(self) -> bool:
        """Whether an owner without an answer should stop asking for one."""
        return asyncio.get_running_loop().time() > self._until

    async def call(
        self, rng: random.Random, task: str, verb: str, *, word: str = "", body: Mapping[str, Any] | None = None
    ) -> Call | None:
        """One request at some daemon; None where there is none, so that nothing was asked."""
        method, path = _ROUTES[verb]
        said: dict[str, Any] = {"task": task, "verb": verb, "word": word, "delay": _delay(verb, body), "invoked": now()}
        try:
            answer = await rng.choice(self._doors).request(method, path.format(task), json=body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            return None
        except httpx2.HTTPError:
            call = Call(**said, outcome=UNKNOWN)
        else:
            call = Call(**said, answered=now(), status=answer.status_code, **_came_of(answer))
        self._journal.note(call)
        return call


class _Owner:
    """One task's owner."""

    def __init__(self, workload: Workload, task: str, rng: random.Random, style: Style) -> None:
        self._workload = workload
        self._task = task
        self._rng = rng
        self.ahead = rng.randint(0, style.ahead)
        self.refuse = int(rng.random() < 0.06)
        self._busy = rng.randint(1, 3) if rng.random() < 0.1 else 0
        self.take = rng.choices(
            (rng.uniform(0, 0.05), rng.uniform(0.1, 0.6), rng.uniform(0.5, 1) * style.longest), style.mix
        )[0]
        # Only so many mails go out at a time, so that a long one would keep others waiting.
        self._action = "email" if self.take < 0.1 and rng.random() < 0.4 else "post"
        self._hold = rng.random() < 0.05

    async def add(self, content: int = 0) -> None:
        """Until it is acknowledged or refused; without an answer the same task is sent again, perhaps elsewhere."""
        word = f"{self._task}.{content}"
        body: dict[str, Any] = {
            "id": self._task,
            "action": self._action,
            "message": sinks.text(word, take=self.take, busy=self._busy, refuse=self.refuse),
            **({"hold": True} if self._hold and not content else {"in": f"{self.ahead}s"}),
        }
        pause = 0.1
        while not self._workload.over:
            call = await self._workload.call(self._rng, self._task, "add", word=word, body=body)
            if call is not None and call.outcome != UNKNOWN:
                return
            await asyncio.sleep(self._rng.uniform(pause / 2, pause))
            pause = min(2 * pause, 2.0)

    async def wish(self, wish: str) -> None:
        match wish:
            case "add again":
                await self.add()
            case "add another":
                await self.add(content=1)
            case "delete" | "execute":
                await self._ask(wish)
            case "snooze" | "schedule":
                await self._ask(wish, {"in": f"{self._rng.randint(1, max(1, self.ahead))}s"})

    async def retry(self) -> None:
        """Once it should have failed; a few times, as it may not have yet."""
        for _ in range(3):
            await asyncio.sleep(1.0)
            call = await self._ask("retry")
            if call is not None and call.outcome == OK:
                return

    async def _ask(self, verb: str, body: Mapping[str, Any] | None = None) -> Call | None:
        return await self._workload.call(self._rng, self._task, verb, body=body)


_ROUTES = {
    "add": ("POST", "/v1/tasks"),
    "delete": ("DELETE", "/v1/tasks/{}"),
    "snooze": ("POST", "/v1/tasks/{}/snooze"),
    "schedule": ("POST", "/v1/tasks/{}/schedule"),
    "execute": ("POST", "/v1/tasks/{}/execute"),
    "retry": ("POST", "/v1/tasks/{}/retry"),
}


def _delay(verb: str, body: Mapping[str, Any] | None) -> float | None:
    if verb in ("execute", "retry"):
        return 0.0
    return float(str(body["in"]).removesuffix("s")) * 1000 if body and "in" in body else None


def _came_of(answer: httpx2.Response) -> dict[str, Any]:
    if answer.status_code >= 500:
        return {"outcome": UNKNOWN}  # a full server refuses and a lost one does not know; both say 503
    if not answer.is_success:
        return {"outcome": REFUSED}
    if not answer.content:
        return {"outcome": OK}
    body = answer.json()
    nominal = body["nominal"] and datetime.fromisoformat(body["nominal"]).timestamp() * 1000
    return {"outcome": OK, "delivery": body["delivery_id"], "nominal": nominal}
