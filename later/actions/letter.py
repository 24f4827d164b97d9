"""Writes a task as a mail, and proves by reading it back that it says what was meant and nothing else."""

from __future__ import annotations

import re
from base64 import encodebytes
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.errors import MessageError
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.policy import EmailPolicy
from email.utils import format_datetime

from later.actions.base import PermanentFailure
from later.core.task import Millis, Task

SUBJECT_CHARACTERS = 68
NO_SUBJECT = "A task from Later"
CROOKED = "the mail does not read back as it was meant, so it was not sent"

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"(?=.{{3,254}}\Z)(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*")
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What goes over the wire: the envelope, and the content as it was proved."""

    sender: str
    recipient: str
    message_id: str
    content: bytes


class _AsWritten(EmailPolicy):
    """Headers leave as they were written.

    EmailPolicy would parse and fold them anew: that decodes encoded-words which a user typed (CVE-2024-6923: up to
    Python 3.11.9 a line break in one made a header of its own) and garbles some that we wrote.
    """

    def header_store_parse(self, name: str, value: str) -> tuple[str, str]:
        return name, value


AS_WRITTEN = _AsWritten(linesep="\r\n", refold_source="none")


def write(task: Task, *, sender: str, recipient: str, now: Millis) -> Letter:
    r"""The task as a mail, proved by reading it back. Raises PermanentFailure.

    The text's bytes travel in base64 just as they are kept: no line break is changed and none is added, so `\n` stays
    `\n` and `\r\n` stays `\r\n`. (RFC 2045 §6.8 would have CRLF; receivers show both alike.)
    """
    message_id = f"<{task.delivery_id}@{sender.rpartition('@')[2]}>"
    headers = {
        "From": sender,
        "To": recipient,
        "Subject": _subject(task.message),
        "Date": format_datetime(datetime.fromtimestamp(now // 1000, UTC)),
        "Message-ID": message_id,
        "Auto-Submitted": "auto-generated",
        "X-Later-Claim": str(task.claim),
        "MIME-Version": "1.0",
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Transfer-Encoding": "base64",
    }
    body = task.message.encode()
    message = EmailMessage(policy=AS_WRITTEN)
    for name, value in headers.items():
        message[name] = value if value.isascii() else Header(value, "utf-8", header_name=name).encode()
    message.set_payload(encodebytes(body).decode())
    try:
        content = message.as_bytes()
    except MessageError:  # newer Pythons see for themselves that a header holds another one
        raise PermanentFailure(CROOKED) from None
    _prove(content, headers=headers, recipient=recipient, body=body)
    return Letter(sender=sender, recipient=recipient, message_id=message_id, content=content)


def is_address(text: str) -> bool:
    """Whether this is one address and nothing else: no name, list, quotes or encoded-word, and ASCII only."""
    return _ADDRESS.fullmatch(text) is not None and "=?" not in text


def _subject(text: str) -> str:
    """The first line with something to show, shortened; an encoded-word is broken up, so that it stays text."""
    lines = (" ".join(_STEERING.sub(" ", line).split()) for line in text.splitlines())
    line = next(filter(None, lines), NO_SUBJECT).replace("=?", "= ?")
    return line if len(line) <= SUBJECT_CHARACTERS else line[: SUBJECT_CHARACTERS - 1].rstrip() + "…"


def _prove(content: bytes, *, headers: Mapping[str, str], recipient: str, body: bytes) -> None:
    """Read the mail as a receiver would: it must say what was meant, to one recipient, and nothing else."""
    read = message_from_bytes(content, policy=SMTP_POLICY)
    found = [(name, str(value)) for name, value in read.items()]
    addresses = [address.addr_spec for address in read["To"].addresses]
    if found != list(headers.items()) or addresses != [recipient] or read.get_payload(decode=True) != body:
        raise PermanentFailure(CROOKED)
