"""Every call to the server goes through here: one attempt, a deadline, and errors in Later's words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import redis.asyncio as redis
import structlog
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from later.clock import Clock
from later.core.errors import InvalidSetting, StoreDamaged, StoreFull, StoreUnavailable
from later.store.contact import Contact
from later.store.keys import type_of
from later.store.scripts import Argument, Call, Script

CONNECT_S = 2.0
REPLY_S = 5.0
"""The deadline of a call, with the wait for a connection and the making of one."""
AGAIN_S = 0.5
"""As long after it a call is cut off once more: in Python 3.11 asyncio.wait_for, by which redis-py writes, swallows a
cancellation that comes in the moment in which it is done."""
CONNECTIONS = 64
REPLICAS_S = 2.0
"""How long replicas may take to have a write; then its outcome counts as unknown."""

WAITING = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "MISCONF", "TRYAGAIN", "BUSY", "NOREPLICAS")
"""Error replies that name a state of the server which passes, and in which one waits."""

WRONG_TYPE = "WRONGTYPE"
TOLD_EVERY_S = 600.0

Answer = TypeVar("Answer")

log = structlog.get_logger()


def connect(url: str, **options: Any) -> redis.Redis:
    """A client that never repeats a command by itself: after a lost reply nobody knows whether it was carried out."""
    try:
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=REPLY_S,
            decode_responses=True,
            encoding_errors="surrogateescape",
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=CONNECT_S,
            socket_timeout=REPLY_S,
            **options,
        )
        return redis.Redis.from_pool(pool)
    except ValueError as error:
        raise InvalidSetting(
            f"LATER_REDIS_URL is not a usable address ({error}); use redis://, rediss:// or unix://"
        ) from None


class Calls:
    """Commands and scripts on one server."""

    def __init__(self, server: redis.Redis, contact: Contact, clock: Clock, *, replicas: int = 0) -> None:
        """`replicas`: so many must have a write that is acknowledged to somebody outside."""
        self._server = server
        self._contact = contact
        self._clock = clock
        self._replicas = replicas
        self._told: dict[str, float] = {}

    async def command(self, *words: Argument) -> Any:
        """One command on the key that is its first argument. Raises StoreUnavailable, StoreFull, StoreDamaged."""
        return await self._ask(lambda: self._server.execute_command(*words), keys=[str(word) for word in words[1:2]])

    async def allowed(self, *words: Argument) -> Any:
        """One read that the server may not know, or may not allow to this user; then None. Raises StoreUnavailable."""

        async def read() -> Any:
            try:
                return await self._server.execute_command(*words)
            except exceptions.ResponseError:
                return None

        return await self._ask(read)

    async def snapshot(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Several reads as of one moment; one that fails is answered by its error. Raises StoreUnavailable.

        Redis 7.0 refuses even reads in MULTI while it is out of memory; then they are sent without it.
        """

        async def read(transaction: bool = True) -> list[Any]:
            async with self._server.pipeline(transaction=transaction) as pipeline:
                for words in commands:
                    pipeline.execute_command(*words)
                try:
                    return await pipeline.execute(raise_on_error=False)
                except exceptions.OutOfMemoryError:
                    return await read(transaction=False)

        return await self._ask(read)

    async def figures(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """The same where no read may fail. Raises StoreDamaged too."""
        answers = await self.snapshot(commands)
        return [
            await self.command(*words) if isinstance(answer, exceptions.ResponseError) else answer
            for words, answer in zip(commands, answers, strict=True)
        ]

    async def script(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, transaction: bool = False
    ) -> Any:
        """A script's answer, without the server's time that begins each. Raises as `command` does."""
        sent = self._clock.monotonic()
        run = script.run_in_transaction if transaction else script.run
        now_us, *answer = await self._ask(lambda: run(self._server, keys, arguments), writes=True, keys=keys)
        self._contact.heard(int(now_us), sent)
        return answer

    async def acknowledged(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """The same for what somebody outside asked for: answered when enough replicas have it as well."""
        if not self._replicas:
            return await self.script(script, keys, arguments)
        [answer] = await self.acknowledged_each(script, [(keys, arguments)])
        return answer

    async def acknowledged_each(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """The answers to these calls, in one round trip; only for what is the same when it is done twice."""
        sent = self._clock.monotonic()
        within_ms = int(REPLICAS_S * 1000)
        answers, reached = await self._ask(
            lambda: script.run_each(self._server, calls, replicas=self._replicas, within_ms=within_ms),
            writes=True,
            keys=[key for names, _ in calls for key in names],
        )
        if reached < self._replicas:
            raise StoreUnavailable(
                f"only {reached} of {self._replicas} replicas have this by now (LATER_REDIS_REPLICAS); try again: the "
                "same is not done twice"
            )
        for now_us, *_ in answers:
            self._contact.heard(int(now_us), sent)
        return [answer for _, *answer in answers]

    async def _ask(
        self, ask: Callable[[], Awaitable[Answer]], *, writes: bool = False, keys: Sequence[str] = ()
    ) -> Answer:
        try:
            async with asyncio.timeout(REPLY_S + AGAIN_S), asyncio.timeout(REPLY_S):
                answer = await ask()
        except (exceptions.RedisError, OSError) as error:
            meaning = await self._meaning(error, keys)
            if meaning is None:
                raise
            raise meaning from error
        self._contact.answered(wrote=writes)
        return answer

    async def _meaning(self, error: Exception, keys: Sequence[str]) -> StoreUnavailable | None:
        """What this says of the store; None where it says that we asked for nonsense."""
        match error:
            case exceptions.OutOfMemoryError():
                return StoreFull()
            case exceptions.AuthenticationError() | exceptions.NoPermissionError():
                return self._refused(f"the store refuses this user: {error}")
            case exceptions.ResponseError() | exceptions.BusyLoadingError():
                said = _said(error)
                if said.startswith(WAITING):
                    return self._refused(f"the store cannot serve now: {said}")
                return await self._damaged(keys) if said.startswith(WRONG_TYPE) else None
            case _ if isinstance(error.__cause__, exceptions.AuthenticationError):
                return self._refused(f"the store refuses this user: {error}")
            case _ if isinstance(error.__cause__, exceptions.ResponseError):  # while it was connected, to SELECT say
                return self._refused(f"the store refuses what its address says: {error}")
            case _:
                self._contact.missed(str(error) or f"no answer within {REPLY_S:g} s")
                return StoreUnavailable()

    async def _damaged(self, keys: Sequence[str]) -> StoreDamaged:
        """Which of the keys it is, told once in a while: whoever waits for it asks again and again."""
        found = [(key, await self.allowed("TYPE", key)) for key in keys if type_of(key)]
        wrong = [(key, f"a {kind}") for key, kind in found if kind not in (type_of(key), "none", None)]
        key, what = wrong[0] if wrong else (f"a key beside {', '.join(keys)}", "of a wrong type")
        now = self._clock.monotonic()
        if now - self._told.get(key, -TOLD_EVERY_S) >= TOLD_EVERY_S:
            self._told[key] = now
            log.error("store_damaged", key=key, found=what, mend="later fsck --repair")
        return StoreDamaged(f"{key} in the store is {what} and cannot be used; `later fsck --repair` mends it")

    def _refused(self, reason: str) -> StoreUnavailable:
        self._contact.missed(reason, refused=True)
        return StoreUnavailable(reason)


def _said(error: exceptions.ResponseError | exceptions.BusyLoadingError) -> str:
    """The server's own words: redis-py cuts off the codes it knows, and in a transaction puts the command before."""
    words = str(error).rpartition(" of pipeline caused error: (")[2].strip("'\",)")
    return f"{error.status_code} {words}" if error.status_code else words
