"""A body has at most 1 MiB, whether it says so beforehand or not."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx2
import pytest

from tests.program import Program

LIMIT = 1024 * 1024
SENTENCE = "the body is larger than 1,048,576 bytes; send less"


def parts(size: int) -> Iterator[bytes]:
    yield b'{"message": "'
    for _ in range(0, size, 65_536):
        yield b"a" * 65_536
    yield b'"}'


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/inbox/read", "/v1/tasks/x/snooze"])
def test_one_that_is_announced_as_too_large_is_not_even_read(me: httpx2.Client, path: str) -> None:
    answer = me.post(path, content=b" " * (LIMIT + 1), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (413, SENTENCE)
    assert answer.headers["content-type"] == "application/problem+json"


def test_one_that_grows_too_large_is_refused(me: httpx2.Client) -> None:
    answer = me.post("/v1/tasks", content=parts(2 * LIMIT), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (413, SENTENCE)


def test_one_that_fits_is_read(me: httpx2.Client) -> None:
    body = b'{"message": "x"}'.ljust(LIMIT)
    assert me.post("/v1/tasks", content=body, headers={"content-type": "application/json"}).status_code == 201


def test_the_daemon_goes_on_when_a_caller_hangs_up(program: Program, me: httpx2.Client) -> None:
    for words in (b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", b"GET / HT", b"\0" * 100):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(program.state / "api.sock"))
            caller.sendall(words)
    assert me.get("/health").status_code == 200
    assert not program.events("request_broke")
