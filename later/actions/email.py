"""Sends the thought as a mail: one connection a message, encrypted and verified as the settings demand, never less."""

from __future__ import annotations

import asyncio
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiosmtplib import SMTP, SMTPAuthenticationError, SMTPException, SMTPResponse, SMTPResponseException

from later.actions.base import PermanentFailure, Receipt, TemporaryFailure
from later.actions.letter import Letter, is_address, write
from later.actions.registry import Surroundings
from later.core.errors import InvalidTask
from later.core.task import Task

CONNECTIONS = 8
PATIENCE_S = 20.0
GOODBYE_S = 1.0
REPLY_CHARACTERS = 300
NO_HOST = "no mail server is known to this daemon; set LATER_EMAIL__HOST, or choose another action"

# RFC 4954 §6, RFC 3207 §4: "authenticate first" and "issue STARTTLS first" are about the settings, not the mail.
LOGIN_WANTED = 530


class EmailAction:
    """A receiver sees the delivery id as Message-ID and the claim as X-Later-Claim, so it can tell repeats apart."""

    name = "email"

    def __init__(self, surroundings: Surroundings) -> None:
        self._mail = surroundings.settings.email
        self._to = surroundings.settings.to
        self._now = surroundings.now
        self._where = f"{self._mail.host}:{self._mail.port}"
        self._password = self._mail.password.get_secret_value() if self._mail.password else ""
        # Waiting for a place and sending may each take a third of what the worker allows, so it need not cut in.
        self._patience = min(PATIENCE_S, surroundings.settings.timeout_seconds / 3)
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._tls: ssl.SSLContext | None = None

    def check(self, task: Task) -> None:
        if self._mail.host is None:
            raise InvalidTask(NO_HOST)
        self._envelope(task)

    async def perform(self, task: Task) -> Receipt:
        letter = self._letter(task)
        async with self._connection() as (server, until):
            reply = await self._hand_over(letter, server, until)
        return Receipt(
            detail=f"accepted by {self._mail.host}: {reply}",
            data={"message_id": letter.message_id, "server": self._where, "reply": reply},
        )

    async def verify(self) -> None:
        """Connect, encrypt and log in as `perform` would, and send nothing. Raises TemporaryFailure."""
        async with self._connection():
            pass

    def _letter(self, task: Task) -> Letter:
        try:
            sender, recipient = self._envelope(task)
        except InvalidTask as error:
            raise PermanentFailure(error.message) from None
        return write(task, sender=sender, recipient=recipient, now=self._now())

    def _envelope(self, task: Task) -> tuple[str, str]:
        """From whom and to whom; raises InvalidTask."""
        recipient = task.to or self._to
        if not recipient:
            raise InvalidTask("the mail has no recipient; give one address with --to, or set LATER_TO")
        if not is_address(recipient):
            raise InvalidTask(
                f"{recipient[:80]!r} is not one plain address; write exactly one, such as ada@example.org"
            )
        username = self._mail.username or ""
        sender = self._mail.sender or (username if "@" in username else recipient)
        if not is_address(sender):
            raise InvalidTask(
                f"no mail can be sent from {sender[:80]!r}; "
                "set LATER_EMAIL__SENDER to one plain address, such as later@example.org"
            )
        return sender, recipient

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[SMTP, float]]:
        """A server that knows us, and when our patience with it ends; no more than CONNECTIONS at a time."""
        if self._mail.host is None:
            raise TemporaryFailure(NO_HOST)
        async with self._place():
            until = asyncio.get_running_loop().time() + self._patience
            server = SMTP(
                hostname=self._mail.host,
                port=self._mail.port,
                # An address literal is valid everywhere, gives nothing away and needs no look-up of our own name.
                local_hostname="[127.0.0.1]",
                timeout=None,
                use_tls=self._mail.security == "tls",
                start_tls=False,
                tls_context=await self._verifying(),
            )
            try:
                await self._enter(server, until)
                yield server, until
            except asyncio.CancelledError:
                server.close()
                raise
            finally:
                await _leave(server)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            raise TemporaryFailure(f"all {CONNECTIONS} connections to {self._where} were busy") from None
        try:
            yield
        finally:
            self._places.release()

    async def _verifying(self) -> ssl.SSLContext:
        """Made once and in a thread: it takes 20 ms to read whom this machine (or SSL_CERT_FILE) trusts."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        return self._tls

    async def _enter(self, server: SMTP, until: float) -> None:
        """Whatever goes wrong before a mail is named is not the mail's fault, so it is always tried again.

        That includes a refused login (535) and a greeting of 554: a person mends those, and until then no thought is
        lost, nor need it be retried by hand afterwards.
        """
        try:
            async with asyncio.timeout_at(until):
                await server.connect()
                await server.ehlo()
                if self._mail.security == "starttls":
                    await self._encrypt(server)
                if self._mail.username is not None:
                    await server.login(self._mail.username, self._password)
        except SMTPAuthenticationError as error:
            raise TemporaryFailure(
                f"{self._where} refused the login: {self._said(error)}; "
                "check LATER_EMAIL__USERNAME and LATER_EMAIL__PASSWORD"
            ) from None
        except SMTPResponseException as error:
            raise TemporaryFailure(f"{self._where} refused us: {self._said(error)}") from None
        except (SMTPException, OSError, ValueError) as error:
            server.close()
            raise TemporaryFailure(f"no connection to {self._where}: {self._trouble(error)}") from None

    async def _encrypt(self, server: SMTP) -> None:
        if not server.supports_extension("starttls"):
            raise TemporaryFailure(
                f"{self._where} offers no STARTTLS, so nothing was sent; "
                "LATER_EMAIL__SECURITY is tls for port 465, or none inside a network that you trust"
            )
        await server.starttls()

    async def _hand_over(self, letter: Letter, server: SMTP, until: float) -> str:
        """The server's words on accepting the letter. Command by command: so nothing is refused only in part."""
        ambiguous = ""
        try:
            async with asyncio.timeout_at(until):
                await server.mail(letter.sender)
                await server.rcpt(letter.recipient)
                ambiguous = "; the mail may have arrived (ambiguous), a repeat has the same Message-ID"
                return self._said(await server.data(letter.content), letter.recipient)
        except SMTPResponseException as error:
            reason = f"{self._where} refused the mail: {self._said(error, letter.recipient)}"
            if 500 <= error.code < 600 and error.code != LOGIN_WANTED:
                raise PermanentFailure(reason) from None
            raise TemporaryFailure(reason) from None
        except (SMTPException, OSError) as error:
            server.close()
            raise TemporaryFailure(f"{self._where} was lost: {self._trouble(error)}{ambiguous}") from None

    def _said(self, answer: SMTPResponse | SMTPResponseException, *private: str) -> str:
        """The server's code and words, without what is private: some servers repeat what they were told."""
        words = answer.message
        for secret in (*_spellings(self._mail.username, self._password), *private):
            words = re.sub(re.escape(secret), "…", words, flags=re.IGNORECASE)
        return f"{answer.code} {_line(words)}"

    def _trouble(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self._patience:g} s"
        return _line(str(error.__cause__ or error)) or type(error).__name__


async def _leave(server: SMTP) -> None:
    """Say goodbye to a server that still listens; what it has accepted stays so, whatever it answers."""
    if server.is_connected:
        with suppress(SMTPException, OSError):
            await server.quit(timeout=GOODBYE_S)
    server.close()


def _spellings(username: str | None, password: str) -> list[str]:
    """The password as it may show: plain, and as AUTH LOGIN and AUTH PLAIN send it."""
    login = (password, f"\0{username}\0{password}") if password else ()
    return [*login[:1], *(b64encode(secret.encode()).decode() for secret in login)]


def _line(words: str) -> str:
    """Somebody else's words on one line, fit to be kept and shown."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in words).split())[:REPLY_CHARACTERS]
