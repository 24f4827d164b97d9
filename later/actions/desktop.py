"""Shows the thought as a notification on the desktop of the person who runs the daemon.

On Linux through the session bus, as the Desktop Notifications Specification 1.2 has it. On macOS through `osascript`;
nobody has tried that one yet.
"""

from __future__ import annotations

import asyncio
import html
import os
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from later.actions.base import PermanentFailure, Receipt, TemporaryFailure
from later.actions.display import harmless
from later.actions.registry import Surroundings
from later.core.errors import InvalidTask
from later.core.task import Task

# dbus-fast is there on Linux only, so it is imported where the bus is used.
if TYPE_CHECKING:
    from dbus_fast.aio import MessageBus

ON_MAC = sys.platform == "darwin"
PATIENCE_S = 10.0
SUMMARY_CHARACTERS = 70
NEW = 0  # replaces no other notification
UNTIL_READ = 0
NORMAL_URGENCY = 1
SERVICE = "org.freedesktop.Notifications"
THE_BUS = "org.freedesktop.DBus"

# The text is an argument and never a part of the script, and the script comes from stdin, so that nothing in the text
# is taken for a command or an option.
APPLE_SCRIPT = b"""on run argv
    display notification (item 2 of argv) with title (item 1 of argv)
end run
"""


# The only refusal that is about this text. An unknown method or object may be a service that is still starting.
INVALID = "org.freedesktop.DBus.Error.InvalidArgs"


class DesktopAction:
    """The first line is the summary, what follows is the body; it stays until somebody has read it."""

    name = "desktop"

    def __init__(self, surroundings: Surroundings) -> None:
        self._bus: MessageBus | None = None
        self._connecting = asyncio.Lock()
        self._patience = min(PATIENCE_S, surroundings.settings.timeout_seconds / 2)

    @staticmethod
    def available() -> bool:
        """Whether there is a desktop to show it on: a session bus, or macOS."""
        return shutil.which("osascript") is not None if ON_MAC else _address() is not None

    async def watched(self) -> bool:
        """Whether somebody would see it: the bus of a login without a desktop has nobody who shows notifications."""
        if ON_MAC or not self.available():
            return self.available()
        with suppress(TemporaryFailure, PermanentFailure, TimeoutError):
            async with asyncio.timeout(self._patience):
                bus = await self._connected()
                [running] = await _call(bus, "NameHasOwner", "s", [SERVICE], answer="b", of=THE_BUS)
                [startable] = await _call(bus, "ListActivatableNames", answer="as", of=THE_BUS)
                return running or SERVICE in startable
        return False

    def check(self, task: Task) -> None:
        if not task.message.strip():
            raise InvalidTask("a notification needs a text")
        if task.to is not None:
            raise InvalidTask("a notification appears on your own desktop, so it takes no address; leave --to out")

    async def perform(self, task: Task) -> Receipt:
        text = harmless(task.message).strip()
        try:
            async with asyncio.timeout(self._patience):
                return await (_tell_mac(*_halves(text)) if ON_MAC else self._tell_bus(text))
        except TimeoutError:
            raise TemporaryFailure(f"the desktop did not answer within {self._patience:g} s") from None

    async def close(self) -> None:
        """Give up the bus; the next notification takes it up again."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.disconnect()
            await _buried(bus)

    async def _tell_bus(self, text: str) -> Receipt:
        bus = await self._connected()
        [capabilities] = await _call(bus, "GetCapabilities", answer="as")
        # Where bodies are not shown, all of it goes where somebody can see it.
        summary, body = _halves(text) if "body" in capabilities else (text, "")
        if "body-markup" in capabilities:
            body = html.escape(body, quote=False)
        number = await _notify(bus, summary, body)
        return Receipt(detail=f"shown on the desktop as notification {number}", data={"notification": number})

    async def _connected(self) -> MessageBus:
        """The one connection to the bus; made anew when the bus has gone since. Raises TemporaryFailure."""
        from dbus_fast import DBusFastError
        from dbus_fast.aio import MessageBus

        async with self._connecting:
            if self._bus is not None and not self._bus.connected:
                await _buried(self._bus)
                self._bus = None
            if self._bus is None:
                address = _address()
                if address is None:
                    raise TemporaryFailure("there is no session bus; log in to a desktop, or choose another action")
                try:
                    self._bus = await MessageBus(bus_address=address).connect()
                except (OSError, EOFError, DBusFastError) as error:
                    raise TemporaryFailure(f"the session bus is out of reach: {error!r}") from None
            return self._bus


def _address() -> str | None:
    """Where the session bus listens, if there is one."""
    named = os.environ.get("DBUS_SESSION_BUS_ADDRESS")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if named or not runtime or not Path(runtime, "bus").exists():
        return named or None
    return f"unix:path={quote(runtime)}/bus"


async def _notify(bus: MessageBus, summary: str, body: str) -> int:
    from dbus_fast import Variant

    hints = {"urgency": Variant("y", NORMAL_URGENCY)}
    given = ["Later", NEW, "", summary, body, [], hints, UNTIL_READ]
    [number] = await _call(bus, "Notify", "susssasa{sv}i", given, answer="u")
    return int(number)


async def _call(
    bus: MessageBus, member: str, signature: str = "", body: Sequence[Any] = (), *, answer: str, of: str = SERVICE
) -> list[Any]:
    """What the notification service, or the bus itself, answers; raises TemporaryFailure or PermanentFailure."""
    from dbus_fast import Message, MessageType

    path = "/" + of.replace(".", "/")
    call = Message(destination=of, path=path, interface=of, member=member, signature=signature, body=list(body))
    try:
        reply = await bus.call(call)
    except (OSError, EOFError) as error:
        raise TemporaryFailure(f"the session bus hung up: {error!r}") from None
    if reply.message_type is MessageType.ERROR:
        reason = harmless(f"{of} refused {member}: {reply.error_name}: {' '.join(map(str, reply.body))}")
        raise (PermanentFailure if reply.error_name == INVALID else TemporaryFailure)(reason)
    if reply.signature != answer:
        raise TemporaryFailure(f"{of} answered {member} with {reply.signature!r} instead of {answer!r}")
    return list(reply.body)


async def _buried(bus: MessageBus) -> None:
    """Hear why the bus has gone, or asyncio would complain that nobody did."""
    with suppress(OSError, EOFError):
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]


async def _tell_mac(summary: str, body: str) -> Receipt:
    script = await asyncio.create_subprocess_exec(
        "osascript", "-", summary, body, stdin=PIPE, stdout=DEVNULL, stderr=PIPE
    )
    try:
        _, complaint = await script.communicate(APPLE_SCRIPT)
    finally:
        if script.returncode is None:
            script.kill()
    if script.returncode:
        raise TemporaryFailure(f"osascript failed: {harmless(complaint.decode(errors='replace')).strip()}")
    return Receipt(detail="shown on the desktop")


def _halves(text: str) -> tuple[str, str]:
    """Summary and body: the first line and the rest, or a shortened first line and everything."""
    first, _, rest = text.partition("\n")
    if len(first) <= SUMMARY_CHARACTERS:
        return first, rest
    return first[: SUMMARY_CHARACTERS - 1].rstrip() + "…", text
