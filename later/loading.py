"""Where settings come from: `~/.config/later/env`, or the file that `--env-file` names, and then the environment.

Never the working directory. What is unknown or unusable is refused by name, and no value is shown: it may be secret.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream
from platformdirs import user_config_path
from pydantic import BaseModel, ValidationError

from later.core.errors import InvalidSetting
from later.settings import PREFIX, Settings

ALSO = {"WAKEUP_BEFORE_SECONDS": "LATER_WAKEUP_BEFORE_SECONDS"}
"""A name from elsewhere, and ours for the same."""
SECRET = ("PASSWORD", "TOKEN", "REDIS_URL")
SOCKET_CHARACTERS = 100
"""A unix socket's path may have 108 bytes on Linux and 104 on macOS, NUL included."""


def default_env_file() -> Path:
    """Where settings are kept for good."""
    return user_config_path("later") / "env"


def load(env_file: Path | None = None) -> Settings:
    """The settings of the file (if it is there) and then of the environment; raises InvalidSetting."""
    path = env_file or default_env_file()
    if env_file is not None and not path.is_file():
        raise InvalidSetting(f"there is no file {path}; --env-file must name one with lines such as LATER_WORKERS=50")
    kept = _read(path)
    _refuse_unknown([*kept, *os.environ])
    try:
        settings = Settings(**_by_field(kept, besides=os.environ))
    except ValidationError as error:
        raise InvalidSetting(_explain(error)) from None
    _refuse_unusable(settings)
    return settings


def names() -> list[str]:
    """Every setting's name as it stands in the environment, in order."""
    found: list[str] = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += [f"{PREFIX}{name}__{inner}".upper() for inner in kind.model_fields]
        else:
            found.append(f"{PREFIX}{name}".upper())
    return found


def _read(path: Path) -> dict[str, str]:
    """What the file says, to the letter; raises InvalidSetting if a line says nothing, or others may read a secret."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = list(parse_stream(file))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidSetting(f"{path} cannot be read: {error.strerror}; it should belong to you, mode 0600") from None
    except UnicodeDecodeError:
        raise InvalidSetting(f"{path} cannot be read: it is not UTF-8 text") from None
    for line in lines:
        if line.error or (line.key is not None and line.value is None):
            text = line.original.string
            number = line.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            raise InvalidSetting(f"{path}, line {number}: write NAME=value, or # before a remark")
    kept = {line.key: line.value for line in lines if line.key is not None and line.value is not None}
    secret = [name for name in kept if name.upper().endswith(SECRET)]
    if secret and mode & (stat.S_IRGRP | stat.S_IROTH):
        raise InvalidSetting(f"{path} holds {secret[0]} and others can read it; run: chmod 600 {path}")
    return kept


def _by_field(kept: Mapping[str, str], *, besides: Mapping[str, str]) -> dict[str, Any]:
    """What the file says and the environment does not, by field: LATER_EMAIL__PORT is the port in email."""
    said = {_canonical(name) for name, value in besides.items() if value}
    values: dict[str, Any] = {}
    for name, value in kept.items():
        known = _canonical(name)
        if value and known.startswith(PREFIX) and known not in said:
            group, _, inner = known.removeprefix(PREFIX).lower().partition("__")
            values |= {group: {**values.get(group, {}), inner: value} if inner else value}
    return values


def _canonical(name: str) -> str:
    return ALSO.get(name.upper(), name.upper())


def _refuse_unknown(given: Iterable[str]) -> None:
    known = names()
    for name in given:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            close = get_close_matches(name.upper(), known, n=1)
            meant = f"did you mean {close[0]}?" if close else "the README lists those there are"
            raise InvalidSetting(f"there is no setting {name}; {meant}")


def _refuse_unusable(settings: Settings) -> None:
    if settings.port is not None and settings.token is None:
        raise InvalidSetting(
            "LATER_PORT opens the API to the network, so LATER_TOKEN must be set: openssl rand -hex 32"
        )
    if settings.redis_replicas and settings.redis_url is None:
        raise InvalidSetting("LATER_REDIS_REPLICAS is for the Redis that LATER_REDIS_URL names; the built-in has none")
    if settings.after >= settings.within:
        raise InvalidSetting(
            "LATER_AFTER must be shorter than LATER_WITHIN: the earliest moment comes before the latest"
        )
    if len(str(settings.socket_path).encode()) > SOCKET_CHARACTERS:
        raise InvalidSetting(
            f"{settings.socket_path} is too long for a socket; set LATER_STATE_DIR or LATER_SOCKET to at most "
            f"{SOCKET_CHARACTERS} characters"
        )


def _explain(error: ValidationError) -> str:
    """The first thing that is wrong, by the setting's name and without its value, which may be secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = [str(part) for part in first["loc"]]
    name = (
        where[0]
        if where[0].isupper()
        else PREFIX + "__".join(where[:2] if where[0] in ("retry", "email") else where[:1])
    )
    return f"{name.upper()}: {first['msg'].removeprefix('Value error, ')}"
