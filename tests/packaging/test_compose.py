"""What goes into the image, and the composition of Later with a Redis."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.packaging.conftest import ROOT
from tests.packaging.container import instructions
from tests.program import Program
from tests.servers import served


def test_the_context_is_what_the_dockerfile_copies():
    copied = {
        word.rstrip("/").partition("/")[0]
        for name, words in instructions(ROOT / "Dockerfile")
        if name == "COPY" and not words.startswith("--from")
        for word in words.split()[:-1]
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied


def test_both_stages_stand_on_the_same_glibc_image():
    bases = {words.split()[0] for name, words in instructions(ROOT / "Dockerfile") if name == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim", bases.pop())


def test_compose_demands_a_token_and_keeps_everything_in_volumes():
    services = composed()["services"]
    assert services["later"]["environment"]["LATER_TOKEN"].startswith("${LATER_TOKEN:?")
    assert services["later"]["volumes"] == ["later:/var/lib/later"]
    assert services["redis"]["volumes"] == ["redis:/data"]
    assert services["redis"]["image"].startswith("redis:7")


def test_the_doctor_finds_nothing_wrong_with_the_composed_redis(program: Program):
    name, *options = composed()["services"]["redis"]["command"]
    assert name == "redis-server"
    rules = {option.removeprefix("--"): value for option, value in zip(options[::2], options[1::2], strict=True)}
    with served("redis", **rules) as server:
        program.start(LATER_REDIS_URL=server.url)
        assert program.run("doctor").stdout == "all is well\n"


def composed() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())
