"""Mail is handed to real SMTP servers over sockets: well-behaved ones (aiosmtpd), and one that does as it is told."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from email import message_from_bytes
from email.policy import SMTP as POLICY
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from later.actions.base import Action, PermanentFailure, TemporaryFailure
from later.actions.email import CONNECTIONS, EmailAction
from later.actions.letter import write
from later.actions.registry import Surroundings
from later.core.errors import InvalidTask
from later.core.task import MESSAGE_BYTES, Status, Task
from later.settings import EmailSettings, Settings
from tests.waiting import wait_until

NEW_YEAR = 1_767_225_600_000
HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Later-Claim"]
MIME = ["MIME-Version", "Content-Type", "Content-Transfer-Encoding"]


def a_task(message: str = "Call Anna", to: str | None = "ada@example.org") -> Task:
    return Task(
        owner="ada",
        id="t1",
        uid="01hv5x",
        queue="default",
        status=Status.RUNNING,
        action="email",
        message=message,
        to=to,
        claim=7,
    )


def an_action(port: int = 587, *, to: str | None = None, timeout: float = 30.0, **email: object) -> EmailAction:
    mail = EmailSettings.model_validate({"host": "127.0.0.1", "port": port, "security": "none", **email})
    chosen = Settings(email=mail, to=to, timeout_seconds=timeout)
    return EmailAction(Surroundings(settings=chosen, now=lambda: NEW_YEAR))


class Postbox:
    """What an aiosmtpd server took in, and whom it let in."""

    def __init__(self) -> None:
        self.letters: list[Envelope] = []
        self.sessions: list[Session] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.letters.append(envelope)
        self.sessions.append(session)
        return "250 2.0.0 queued as A1"

    def let_in(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
        self.logins.append((data.login, data.password))  # type: ignore[attr-defined]
        return AuthResult(success=data.password == b"open sesame", handled=False)  # type: ignore[attr-defined]


@asynccontextmanager
async def a_server(postbox: Postbox, *, tls: ssl.SSLContext | None = None, **options: object) -> AsyncIterator[int]:
    """An aiosmtpd server on a free port; `tls` speaks TLS from the first byte."""
    loop = asyncio.get_running_loop()
    made: list[SMTP] = []

    def factory() -> SMTP:
        made.append(SMTP(postbox, loop=loop, hostname="mail.test", **options))
        return made[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
    # After a failed handshake aiosmtpd would keep the connection for ever.
    talks = [protocol._handler_coroutine for protocol in made if protocol._handler_coroutine is not None]
    for talk in talks:
        talk.cancel()
    for transport in [way for protocol in made for way in (protocol.transport, protocol._original_transport) if way]:
        with suppress(AttributeError):  # of a TLS one that has gone already, up to Python 3.11.2
            transport.abort()
    await asyncio.gather(*talks, return_exceptions=True)


class Puppet:
    """A server that answers each command as it is told: `None` says nothing more, an empty text hangs up."""

    def __init__(self, **answers: str | None) -> None:
        self.answers: dict[str, str | None] = {
            "GREETING": "220 puppet",
            "EHLO": "250 puppet",
            "MAIL": "250 ok",
            "RCPT": "250 ok",
            "DATA": "354 go ahead",
            "DOT": "250 taken",
            "QUIT": "221 bye",
            **answers,
        }
        self.heard: list[str] = []
        self.open = 0
        self.most_open = 0
        self.gate = asyncio.Event()  # what it waits for before it takes a mail
        self.gate.set()
        self._talks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._talks.append(asyncio.create_task(self._talk(reader, writer)))

        server = await asyncio.start_server(meet, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*self._talks)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        command: str | None = "GREETING"
        while command and (answer := self.answers.get(command, "502 what?")):
            if command == "DOT":
                await self.gate.wait()
            if command == "QUIT":
                self.open -= 1  # before the answer: with that the other side may begin another talk
            writer.write(answer.encode("utf-8", "surrogateescape") + b"\r\n")
            if command == "QUIT":
                break
            command = await self._hear(reader, in_text=answer.startswith("354") and command == "DATA")
        if command and self.answers.get(command, "") is None:
            await reader.read()
        writer.close()
        self.open -= command != "QUIT"

    async def _hear(self, reader: asyncio.StreamReader, *, in_text: bool) -> str | None:
        if in_text:
            if self.answers["DOT"] == "":
                await reader.readline()
                return "DOT"
            await reader.readuntil(b"\r\n.\r\n")
            self.heard.append("DOT")
            return "DOT"
        line = (await reader.readline()).decode()
        if line:
            self.heard.append(line.rstrip())
        return line[:4].strip().upper() or None


def received(envelope: Envelope) -> tuple[list[str], str, str]:
    """The names of the headers, the subject and the text, as a receiver reads them."""
    mail = message_from_bytes(envelope.original_content, policy=POLICY)
    return mail.keys(), str(mail["Subject"]), mail.get_payload(decode=True).decode()


async def delivered(message: str) -> Envelope:
    postbox = Postbox()
    async with a_server(postbox) as port:
        await an_action(port).perform(a_task(message))
    [envelope] = postbox.letters
    return envelope


def test_it_is_an_action() -> None:
    assert isinstance(an_action(), Action)


async def test_a_mail_says_who_sent_it_when_and_which_delivery_it_is() -> None:
    postbox = Postbox()
    async with a_server(postbox) as port:
        receipt = await an_action(port, sender="later@example.net").perform(a_task())
    [envelope] = postbox.letters
    mail = message_from_bytes(envelope.original_content, policy=POLICY)
    assert (envelope.mail_from, envelope.rcpt_tos) == ("later@example.net", ["ada@example.org"])
    assert [(name, str(mail[name])) for name in HEADERS] == [
        ("From", "later@example.net"),
        ("To", "ada@example.org"),
        ("Subject", "Call Anna"),
        ("Date", "Thu, 01 Jan 2026 00:00:00 +0000"),
        ("Message-ID", "<01hv5x.1@example.net>"),
        ("Auto-Submitted", "auto-generated"),
        ("X-Later-Claim", "7"),
    ]
    assert mail.keys() == HEADERS + MIME
    assert receipt.detail == "accepted by 127.0.0.1: 250 2.0.0 queued as A1"
    assert receipt.data["message_id"] == "<01hv5x.1@example.net>"


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200))
@example("")
@example("no line break at the end")
@example("one at the end\n")
@example("unix\nwindows\r\nmac\r\n\n\r")
@example(".\n..\n.\r\n.")
@example("trailing spaces   \n \t \n")
@example("From here\n\n--boundary\n=20=\n")
@example("👩‍👩‍👧‍👦 Grüße, שלום, 你好 " * 20)
@example("x" * 5000)
@example("€" * (MESSAGE_BYTES // 3) + "\n")
@example("A subject=?UTF-8?Q?=0A?=Bcc: injected@example.org")
@example("=?UTF-8?Q?a=0D=0ABcc:_injected@example.org?=")
@example("x\r\nBcc: injected@example.org\r\n\r\nbody")
@example("a\u2028Bcc: injected@example.org\u0085Cc: b@example.org\x0bTo: c@example.org")
@example('\\B](:)<-=" é.">;%?:- >="?.-@\u200d).]_;) " ]-. 😀):-]\u200d _>@@@[;a _%<)([é\\<')
async def test_any_text_arrives_unchanged_under_exactly_the_intended_headers(text: str) -> None:
    envelope = await delivered(text)
    names, subject, body = received(envelope)
    assert body == text
    assert names == HEADERS + MIME
    assert envelope.rcpt_tos == ["ada@example.org"]
    assert 0 < len(subject) <= 68
    assert "=?" not in subject
    assert all(sign.isprintable() or sign.isspace() or ord(sign) > 0x9F for sign in subject)
    assert not set(subject) & set("\r\n\t\x0b\x85\u2028\u2029")
    assert max(map(len, (envelope.original_content or b"").split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    ("message", "subject"),
    [
        ("Call Anna\nabout the boat", "Call Anna"),
        ("\n\n  the  first line with words ", "the first line with words"),
        ("", "A task from Later"),
        (" \n\t", "A task from Later"),
        ("é" * 80, "é" * 67 + "…"),
        ("tab\there \x1b[31mred", "tab here [31mred"),
    ],
)
async def test_the_subject_is_the_first_line(message: str, subject: str) -> None:
    assert received(await delivered(message))[1] == subject


async def test_a_repeat_has_the_same_message_id_and_another_occurrence_a_new_one() -> None:
    postbox = Postbox()
    first = a_task()
    async with a_server(postbox) as port:
        action = an_action(port)
        for task in (
            first,
            replace(first, claim=8, attempts=1),
            replace(first, occurrence=2),
            replace(first, uid="02"),
        ):
            await action.perform(task)
    ids = [str(message_from_bytes(envelope.original_content)["Message-ID"]) for envelope in postbox.letters]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_mail_that_would_read_as_another_one_is_not_sent() -> None:
    crooked = replace(a_task(), uid="01>\r\nBcc: injected@example.org\r\nX-More: <02")
    with pytest.raises(PermanentFailure, match="does not read back as it was meant"):
        write(crooked, sender="later@example.net", recipient="ada@example.org", now=NEW_YEAR)


@pytest.mark.parametrize(
    "address",
    [
        "a@b.c, evil@x.y",
        "a@b.c;evil@x.y",
        "a@b.c\r\nBcc: evil@x.y",
        "a@b.c\n",
        "Ada <a@b.c>",
        "<a@b.c>",
        '"a@evil"@b.c',
        "a b@c.d",
        "a@b@c.d",
        "@b.c",
        "a@",
        "ada",
        "a..b@c.d",
        "a@-b.c",
        "a@b..c",
        "=?utf-8?q?a?=@b.c",
        "ä@b.c",
        "a@b.c\u2028",
        "a\x00@b.c",
        "a(evil@x.y)@b.c",
        "x" * 65 + "@b.c",
        "a@" + "b." * 130 + "c",
    ],
)
def test_anything_but_one_plain_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidTask, match=r"is not one plain address; write exactly one, such as ada@example\.org"):
        an_action().check(a_task(to=address))
    with pytest.raises(InvalidTask, match="set LATER_EMAIL__SENDER to one plain address"):
        an_action(sender=address).check(a_task())


@pytest.mark.parametrize("address", ["ada@example.org", "a.b+c@d-e.f", "root@localhost", "o'neil_%x@mail.example"])
def test_a_plain_address_is_taken(address: str) -> None:
    an_action().check(a_task(to=address))


def test_a_task_without_an_address_goes_to_the_one_in_the_settings() -> None:
    an_action(to="me@example.org").check(a_task(to=None))
    with pytest.raises(InvalidTask, match="set LATER_TO"):
        an_action().check(a_task(to=None))


def test_without_a_mail_server_a_task_is_refused_with_what_would_help() -> None:
    with pytest.raises(InvalidTask, match="LATER_EMAIL__HOST"):
        an_action(host=None).check(a_task())


async def test_a_task_waits_while_the_mail_server_is_missing_from_the_settings() -> None:
    with pytest.raises(TemporaryFailure, match="LATER_EMAIL__HOST"):
        await an_action(host=None).perform(a_task())


async def test_a_task_whose_address_went_bad_is_not_tried_again() -> None:
    with pytest.raises(PermanentFailure, match="not one plain address"):
        await an_action().perform(a_task(to="a@b.c, evil@x.y"))


@pytest.mark.parametrize(
    ("username", "sender"), [(None, "ada@example.org"), ("robot", "ada@example.org"), ("robot@x.org", "robot@x.org")]
)
async def test_without_a_sender_mail_comes_from_the_user_or_else_the_recipient(
    username: str | None, sender: str
) -> None:
    puppet = Puppet(EHLO="250-puppet\r\n250 AUTH PLAIN", AUTH="235 welcome")
    async with puppet.listening() as port:
        await an_action(port, username=username).perform(a_task())
    assert f"MAIL FROM:<{sender}>" in puppet.heard


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "DOT"])
@pytest.mark.parametrize(
    ("answer", "failure"),
    [("451 4.3.0 later please", TemporaryFailure), ("550 5.1.1 not here", PermanentFailure)],
)
async def test_a_4xx_is_tried_again_and_a_5xx_is_not(command: str, answer: str, failure: type[Exception]) -> None:
    puppet = Puppet(**{command: answer})
    async with puppet.listening() as port:
        with pytest.raises(failure) as refused:
            await an_action(port).perform(a_task())
    assert str(refused.value) == f"127.0.0.1:{port} refused the mail: {answer}"
    assert puppet.heard[-1] == "QUIT"


@pytest.mark.parametrize("answers", [{"GREETING": "554 no service"}, {"EHLO": "550 go away", "HELO": "550 no"}])
async def test_a_5xx_before_the_mail_is_named_is_tried_again(answers: dict[str, str]) -> None:
    async with Puppet(**answers).listening() as port:
        with pytest.raises(TemporaryFailure, match="refused us: 55"):
            await an_action(port).perform(a_task())


async def test_a_server_that_wants_a_login_first_is_tried_again() -> None:
    async with Puppet(MAIL="530 5.7.0 Authentication required").listening() as port:
        with pytest.raises(TemporaryFailure, match=r"530 5\.7\.0 Authentication required"):
            await an_action(port).perform(a_task())


@pytest.mark.parametrize("command", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
async def test_a_silent_server_is_given_up_in_time(command: str) -> None:
    puppet = Puppet(**{command: None})
    async with puppet.listening() as port:
        with pytest.raises(TemporaryFailure, match=r"no answer within 0\.2 s") as failure:
            await an_action(port, timeout=0.6).perform(a_task())
    assert ("ambiguous" in str(failure.value)) == (command in ("DATA", "DOT"))
    assert "QUIT" not in puppet.heard


@pytest.mark.parametrize("command", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
async def test_a_server_that_hangs_up_is_tried_again(command: str) -> None:
    async with Puppet(**{command: ""}).listening() as port:
        with pytest.raises(TemporaryFailure) as failure:
            await an_action(port).perform(a_task("x" * 60_000))
    assert ("ambiguous" in str(failure.value)) == (command in ("DATA", "DOT"))


@pytest.mark.parametrize("answer", ["", "500 never", "250 sure"])
async def test_an_accepted_mail_stays_accepted_whatever_comes_of_the_goodbye(answer: str) -> None:
    async with Puppet(QUIT=answer).listening() as port:
        receipt = await an_action(port).perform(a_task())
    assert receipt.detail == "accepted by 127.0.0.1: 250 taken"


async def test_a_server_that_is_not_there_is_tried_again() -> None:
    async with Puppet().listening() as port:
        pass
    with pytest.raises(TemporaryFailure, match=f"no connection to 127.0.0.1:{port}: .*Connect call failed"):
        await an_action(port).perform(a_task())


async def test_a_reason_is_one_clean_line_without_the_recipient() -> None:
    words = "550-<Ada@example.org>: no\x07 \udce4\r\n550 ada@example.org is unknown " + "x" * 400
    async with Puppet(RCPT=words).listening() as port:
        with pytest.raises(PermanentFailure) as refused:
            await an_action(port).perform(a_task())
    reason = str(refused.value)
    assert "550 <…>: no … is unknown xxx" in reason
    assert reason.isprintable()
    assert len(reason) < 400


async def test_no_more_than_eight_connections_are_open_at_a_time() -> None:
    puppet = Puppet()
    puppet.gate.clear()
    async with puppet.listening() as port:
        action = an_action(port)
        sending = asyncio.gather(*(action.perform(a_task()) for _ in range(3 * CONNECTIONS)))
        await wait_until(lambda: puppet.heard.count("DOT") == CONNECTIONS)
        puppet.gate.set()
        await sending
    assert puppet.heard.count("QUIT") == 3 * CONNECTIONS
    assert puppet.most_open == CONNECTIONS


async def test_a_mail_that_finds_no_free_connection_in_time_is_tried_again() -> None:
    async with Puppet().listening() as port, AsyncExitStack() as held:
        action = an_action(port, timeout=0.6)
        for _ in range(CONNECTIONS):
            await held.enter_async_context(action._connection())
        with pytest.raises(TemporaryFailure, match=r"all 8 connections to .* were busy"):
            await action.perform(a_task())


async def test_a_cancelled_attempt_leaves_at_once() -> None:
    puppet = Puppet(DOT=None)
    async with puppet.listening() as port:
        attempt = asyncio.create_task(an_action(port).perform(a_task()))
        await wait_until(lambda: "DOT" in puppet.heard)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
    assert puppet.heard[-1] == "DOT"


async def test_verify_knocks_and_sends_nothing() -> None:
    puppet = Puppet(EHLO="250-puppet\r\n250 AUTH PLAIN", AUTH="235 welcome")
    async with puppet.listening() as port:
        await an_action(port, username="robot", password="open sesame").verify()
    assert [line[:4] for line in puppet.heard] == ["EHLO", "AUTH", "QUIT"]


@pytest.mark.parametrize("mechanisms", ["PLAIN", "LOGIN"])
async def test_a_refused_login_is_tried_again_and_tells_no_password(mechanisms: str) -> None:
    puppet = Puppet(EHLO=f"250-puppet\r\n250 AUTH {mechanisms}", AUTH="535 bad")
    async with puppet.listening() as port:
        puppet.answers["AUTH"] = (
            "535 robot/open sesame AHJvYm90AG9wZW4gc2VzYW1l b3BlbiBzZXNhbWU= are wrong (ada@example.org)"
        )
        with pytest.raises(TemporaryFailure) as refused:
            await an_action(port, username="robot", password="open sesame").perform(a_task())
    assert "refused the login: 535 robot/… … … are wrong" in str(refused.value)
    assert "check LATER_EMAIL__USERNAME and LATER_EMAIL__PASSWORD" in str(refused.value)
    assert not any(line.startswith("MAIL") for line in puppet.heard)


class Authority:
    """A certificate authority of our own, and servers' contexts with certificates that it signed."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A test authority")])
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(self._identifier, critical=False)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = place / "authority.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, address: str = "127.0.0.1") -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.test")])
        certificate = (
            self._builder(name, key)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        path = self._place / f"{address}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    return authority


async def test_mail_goes_out_encrypted_after_starttls_and_login(trusted: Authority) -> None:
    postbox = Postbox()
    async with a_server(
        postbox,
        tls_context=trusted.server(),
        require_starttls=True,
        auth_required=True,
        authenticator=postbox.let_in,
    ) as port:
        action = an_action(port, security="starttls", username="robot", password="open sesame")
        await action.verify()
        await action.perform(a_task())
    assert len(postbox.letters) == 1
    assert postbox.sessions[0].ssl is not None
    assert set(postbox.logins) == {(b"robot", b"open sesame")}


async def test_mail_goes_out_encrypted_from_the_first_byte(trusted: Authority) -> None:
    postbox = Postbox()
    async with a_server(postbox, tls=trusted.server()) as port:
        await an_action(port, security="tls").perform(a_task())
    assert len(postbox.letters) == 1


async def test_a_wrong_password_is_tried_again(trusted: Authority) -> None:
    postbox = Postbox()
    async with a_server(postbox, tls_context=trusted.server(), authenticator=postbox.let_in) as port:
        action = an_action(port, security="starttls", username="robot", password="guess")
        with pytest.raises(TemporaryFailure, match="refused the login: 535"):
            await action.perform(a_task())
    assert postbox.letters == []


async def test_a_server_without_starttls_gets_neither_login_nor_mail() -> None:
    puppet = Puppet(EHLO="250-puppet\r\n250 AUTH PLAIN")
    async with puppet.listening() as port:
        action = an_action(port, security="starttls", username="robot", password="open sesame")
        with pytest.raises(TemporaryFailure, match="offers no STARTTLS, so nothing was sent"):
            await action.perform(a_task())
    assert [line[:4] for line in puppet.heard] == ["EHLO", "QUIT"]


async def test_a_server_that_backs_out_of_starttls_gets_nothing() -> None:
    puppet = Puppet(EHLO="250-puppet\r\n250 STARTTLS", STAR="454 TLS not available")
    async with puppet.listening() as port:
        with pytest.raises(TemporaryFailure, match="refused us: 454 TLS not available"):
            await an_action(port, security="starttls").perform(a_task())
    assert [line[:4] for line in puppet.heard] == ["EHLO", "STAR", "QUIT"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_of_an_unknown_authority_is_refused(authority: Authority, security: str) -> None:
    await _is_refused(security, authority.server(), "certificate verify failed: unable to get local issuer")


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_for_another_server_is_refused(trusted: Authority, security: str) -> None:
    await _is_refused(security, trusted.server("127.0.0.2"), "IP address mismatch")


async def _is_refused(security: str, context: ssl.SSLContext, reason: str) -> None:
    postbox = Postbox()
    options = {"tls_context": context} if security == "starttls" else {"tls": context}
    async with a_server(postbox, **options) as port:
        with pytest.raises(TemporaryFailure, match=reason):
            await an_action(port, security=security).perform(a_task())
    assert postbox.letters == []
