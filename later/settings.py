"""Every setting there is: its name, its default, and what it is for. `.env.example` lists them in this order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from platformdirs import user_state_path
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from later.core.errors import LaterError
from later.core.retry import RetryPolicy
from later.core.task import LONGEST_LEASE, Millis, check_owner, check_queue
from later.core.when import parse_duration, parse_zone

PREFIX = "LATER_"
TOKEN_CHARACTERS = 16
STORES = ("redis://", "rediss://", "unix://")


def _milliseconds(value: object) -> object:
    return value if isinstance(value, int) else _translated(parse_duration, str(value))


def _translated(check: Any, value: str) -> Any:
    """Later's own refusals as pydantic wants to see them."""
    try:
        return check(value)
    except LaterError as error:
        raise ValueError(error.message) from None


def _zone(name: str) -> str:
    _translated(parse_zone, name)
    return name


def _redis_url(url: SecretStr) -> SecretStr:
    """Its parts are never shown: where a password is not written as a URL wants it, any of them may be the password."""
    try:
        address = url.get_secret_value()
        usable = address.startswith(STORES) and address not in STORES and urlsplit(address).port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(
            "this is not an address such as redis://[user:password@]host:6379/0, rediss://… or unix:///path; "
            "in a password, write / ? # @ : and % as %2F %3F %23 %40 %3A and %25"
        )
    return url


def _token(token: SecretStr) -> SecretStr:
    if len(token.get_secret_value()) < TOKEN_CHARACTERS:
        raise ValueError(f"it needs at least {TOKEN_CHARACTERS} characters: openssl rand -hex 32")
    return token


Duration = Annotated[Millis, BeforeValidator(_milliseconds), Field(gt=0)]
HomePath = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)).absolute())]
Zone = Annotated[str, AfterValidator(_zone)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
Token = Annotated[SecretStr, AfterValidator(_token)]
Owner = Annotated[str, AfterValidator(lambda name: _translated(check_owner, name))]
Queues = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(lambda text: tuple(name.strip() for name in text.split(",")) if isinstance(text, str) else text),
    AfterValidator(lambda names: tuple(_translated(check_queue, name) for name in names)),
    Field(min_length=1),
]


class RetrySettings(BaseModel):
    """When a failed action is tried again: whichever budget ends first ends the trying."""

    attempts: int = Field(150, ge=1, description="performances of one occurrence")
    within: Duration = Field(259_200_000, description="time since the moment it was meant for")
    base: Duration = Field(5_000, description="longest pause after the first failure; doubles each time")
    cap: Duration = Field(3_600_000, description="longest pause of all")

    def policy(self) -> RetryPolicy:
        return RetryPolicy(attempts=self.attempts, within=self.within, base=self.base, cap=self.cap)


class EmailSettings(BaseModel):
    """The SMTP server that takes the mail."""

    host: str | None = Field(None, min_length=1, description="its name; email is off without one")
    port: int = Field(587, ge=1, le=65535)
    username: str | None = None
    password: SecretStr | None = None
    sender: str | None = Field(None, description="the From address; by default the user name, else the recipient")
    security: Literal["starttls", "tls", "none"] = "starttls"


class Settings(BaseSettings):
    """What can be set, in the order of `.env.example`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="ignore",
        env_ignore_empty=True,
        populate_by_name=True,
    )

    redis_url: RedisUrl | None = Field(
        None, description="redis://, rediss:// or unix://; without it Later runs its own"
    )
    redis_replicas: int = Field(0, ge=0, le=16, description="so many have a new task before it is acknowledged")
    state_dir: HomePath = Field(
        default_factory=lambda: user_state_path("later"), description="where everything is kept"
    )
    partitions: int = Field(1, ge=1, le=16384, description="fixed when a store is first used")
    queues: Queues = Field(
        ("default",), description="queues that this daemon performs; all others are pulled by clients"
    )

    socket: HomePath | None = Field(None, description="where the API listens; api.sock in the state directory")
    host: str = "127.0.0.1"
    port: int | None = Field(None, ge=1, le=65535, description="no port, no TCP")
    url: str | None = Field(None, description="where the command line finds a daemon over TCP")
    token: Token | None = Field(None, description="what callers over TCP must send")
    autostart: bool = Field(True, description="whether `later add` may start a daemon where there is none")

    workers: int = Field(50, ge=1, le=10_000, description="actions performed at a time")
    batch: int = Field(50, ge=1, le=1000, description="tasks claimed at a time")
    wakeup_before_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        validation_alias=AliasChoices("LATER_WAKEUP_BEFORE_SECONDS", "WAKEUP_BEFORE_SECONDS"),
        description="how long before a due time the daemon makes itself ready",
    )
    lease_seconds: float = Field(
        30.0, ge=1, le=LONGEST_LEASE / 1000, description="how soon another daemon takes over a dead one's tasks"
    )
    timeout_seconds: float = Field(60.0, gt=0, le=86_400, description="how long one attempt may take")
    grace_seconds: float = Field(
        20.0, ge=0, le=3600, description="how long a stopping daemon waits for what is running"
    )
    retry: RetrySettings = Field(default_factory=lambda: RetrySettings())

    within: Duration = Field(1_209_600_000, description="a thought without a time comes at most this much later")
    after: Annotated[Millis, BeforeValidator(_milliseconds), Field(ge=0)] = Field(
        86_400_000, description="… and at least this much"
    )
    action: str | None = Field(
        None, description="what is done by default: email, desktop or inbox, the first that works"
    )
    to: str | None = Field(None, description="to whom, where a task does not say")
    zone: Zone | None = Field(None, description="the time zone of callers who send none, else UTC")
    owner: Owner | None = Field(None, description="who callers with LATER_TOKEN are; the daemon's own user by default")

    email: EmailSettings = Field(default_factory=lambda: EmailSettings())

    log: Literal["auto", "console", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def socket_path(self) -> Path:
        return self.socket or self.state_dir / "api.sock"

    @property
    def lease(self) -> Millis:
        return int(self.lease_seconds * 1000)
