"""Secrets stay where they were put: not in logs, not in answers, not in the store, not on a command line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult

from tests.program import Program, installed
from tests.waiting import wait_until

PASSWORD = "canary-of-the-mail-server"
TOKEN = "canary-of-the-api-0123456789"
MESSAGE = "canary-of-the-message"
RECIPIENT = "canary-of-the-address@example.org"


class Mailbox:
    """A mail server's handler that lets one user in and counts what comes."""

    def __init__(self) -> None:
        self.received = 0

    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:  # noqa: N802
        self.received += 1
        return "250 2.0.0 taken"


@contextlib.asynccontextmanager
async def a_mail_server(mailbox: Mailbox, *, accept: bool) -> AsyncIterator[int]:
    def authenticate(*_: object) -> AuthResult:
        return AuthResult(success=accept, handled=False)

    def protocol() -> SMTP:
        return SMTP(mailbox, authenticator=authenticate, auth_require_tls=False)

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def settings_for(port: int) -> dict[str, str]:
    return {
        "LATER_EMAIL__HOST": "127.0.0.1",
        "LATER_EMAIL__PORT": str(port),
        "LATER_EMAIL__SECURITY": "none",
        "LATER_EMAIL__USERNAME": "later@example.org",
        "LATER_EMAIL__PASSWORD": PASSWORD,
        "LATER_TO": RECIPIENT,
        "LATER_TOKEN": TOKEN,
        "LATER_LOG_LEVEL": "debug",
        "LATER_RETRY__ATTEMPTS": "1",
    }


def places_with(secret: str, where: Path) -> list[str]:
    return [str(path) for path in where.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def said_by(program: Program, *commands: str) -> str:
    answers = [program.run(*command.split(), check=None) for command in commands]
    return "".join(answer.stdout + answer.stderr for answer in answers)


async def test_a_delivered_mail_leaves_no_secret_behind():
    mailbox = Mailbox()
    async with a_mail_server(mailbox, accept=True) as port:
        with installed(**settings_for(port)) as program:
            await asyncio.to_thread(program.start)
            await asyncio.to_thread(program.run, "add", MESSAGE, "--in", "0s", "--id", "one")
            await wait_until(lambda: mailbox.received == 1)
            said = await asyncio.to_thread(said_by, program, "get one --json", "history --json", "stats", "doctor")
            log = (program.home / "log").read_text()
            for secret in (PASSWORD, TOKEN):
                assert places_with(secret, program.home) == []
                assert secret not in said
            assert MESSAGE not in log
            assert RECIPIENT not in log


async def test_a_refused_login_is_told_without_the_password():
    async with a_mail_server(Mailbox(), accept=False) as port:
        with installed(**settings_for(port)) as program:
            await asyncio.to_thread(program.start)
            await asyncio.to_thread(program.run, "add", MESSAGE, "--in", "0s", "--id", "one")

            def has_failed() -> bool:
                return program.json("get", "one")["status"] == "failed"

            await wait_until(lambda: asyncio.to_thread(has_failed))
            doctor = await asyncio.to_thread(program.run, "doctor", check=1)
            assert doctor.stdout.startswith("email: ")
            said = await asyncio.to_thread(said_by, program, "get one --json", "list --status failed", "doctor --json")
            assert "535" in said
            assert PASSWORD not in said
            assert places_with(PASSWORD, program.home) == []


async def test_a_command_line_shows_no_secret():
    async with a_mail_server(Mailbox(), accept=True) as port:
        with installed(**settings_for(port)) as program:
            daemon = await asyncio.to_thread(program.start)
            for pid in (daemon.pid, program.server_pid()):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                assert PASSWORD not in line
                assert TOKEN not in line
