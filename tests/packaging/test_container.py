"""The image: without an engine, its Dockerfile's steps are carried out in a fresh root, and what they make is run."""

from __future__ import annotations

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.packaging.container import Container, Image

TOKEN = "open-sesame-and-a-half"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

Run = Callable[..., Container]


@pytest.fixture
def run(image: Image) -> Iterator[Run]:
    """Start a container with these variables."""
    started: list[Container] = []

    def start(**env: str) -> Container:
        started.append(Container(image, **env))
        started[-1].start()
        return started[-1]

    yield start
    for container in started:
        container.close()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def ask(port: str, method: str, path: str, body: Any = None, *, token: str = TOKEN) -> Any:
    """One request over TCP, as from another machine."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, json.dumps(body).encode() if body else None, timeout=10) as answer:
        return json.load(answer)


def test_the_image_serves_under_a_number_that_is_not_roots(image: Image):
    user, group = image.said["USER"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert image.said["STOPSIGNAL"] == "SIGTERM"
    assert image.said["VOLUME"] == image.env["LATER_STATE_DIR"] == "/var/lib/later"
    assert image.said["EXPOSE"] == image.env["LATER_PORT"] == "8080"
    assert image.env["LATER_HOST"] == "0.0.0.0"


def test_the_image_has_its_bytecode_and_nobody_may_change_it(image: Image):
    site = next(image.root.glob("opt/later/lib/python3*/site-packages"))
    for package in ("later", "fastapi", "redis"):
        sources = {path.stem for path in (site / package).glob("*.py")}
        compiled = {path.name.partition(".")[0] for path in (site / package / "__pycache__").glob("*.pyc")}
        assert sources <= compiled, f"{package} is compiled at every start"
    assert {path.stat().st_uid for path in site.rglob("*")} == {0}
    assert not [path for path in site.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]


def test_a_thought_outlives_the_container(run: Run):
    port = free_port()
    first = run(LATER_TOKEN=TOKEN, LATER_PORT=port)
    first.wait_until_healthy()
    assert ask(port, "POST", "/v1/tasks", {"id": "tea", "message": "drink tea", "in": "1h"})["owner"] == "later"
    assert first.stop() == 0, first.log()

    second = run(LATER_TOKEN=TOKEN, LATER_PORT=port)
    second.wait_until_healthy()
    assert ask(port, "GET", "/v1/tasks/tea")["message"] == "drink tea"
    assert "drink tea" in second.execute("later", "list").stdout
    assert second.stop() == 0, second.log()


def test_without_the_token_nobody_is_served(run: Run):
    port = free_port()
    run(LATER_TOKEN=TOKEN, LATER_PORT=port).wait_until_healthy()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(port, "GET", "/v1/tasks", token="another-and-a-half")


def test_without_a_token_it_says_in_one_sentence_what_is_missing(run: Run):
    container = run()
    assert container.ending() == 2
    assert re.fullmatch(r"later: LATER_PORT .* so LATER_TOKEN must be set: openssl rand -hex 32\n", container.log())


def test_without_a_port_it_serves_its_socket_alone(run: Run):
    container = run(LATER_PORT="")
    container.wait_until_healthy()
    assert "tea" in container.execute("later", "add", "tea", "--in", "1h").stdout
    assert container.stop() == 0
