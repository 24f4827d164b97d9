"""Notifications go over a real session bus to a service that writes down what it was asked to show."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import DBusError, Message, MessageType, RequestNameReply, Variant
from dbus_fast.aio import MessageBus

from later.actions.base import Action, PermanentFailure, TemporaryFailure
from later.actions.desktop import SERVICE, DesktopAction
from later.actions.registry import Surroundings
from later.core.errors import InvalidTask
from later.core.task import Status, Task
from later.settings import Settings
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a session bus")


def a_task(message: str = "Call Anna", to: str | None = None) -> Task:
    return Task(
        owner="ada",
        id="t1",
        uid="01hv5x",
        queue="default",
        status=Status.RUNNING,
        action="desktop",
        message=message,
        to=to,
    )


@asynccontextmanager
async def an_action(timeout: float = 30.0) -> AsyncIterator[DesktopAction]:
    action = DesktopAction(Surroundings(settings=Settings(timeout_seconds=timeout), now=lambda: 0))
    yield action
    await action.close()


PATH = "/org/freedesktop/Notifications"


class Desktop:
    """A notification service: it has some capabilities, keeps what it is asked to show, and can be made to fail."""

    def __init__(self, *capabilities: str) -> None:
        self.capabilities = list(capabilities)
        self.shown: list[list[Any]] = []
        self.callers: set[str] = set()
        self.error: DBusError | None = None
        self.mute = False
        self.answer: tuple[str, list[Any]] | None = None

    @asynccontextmanager
    async def running(self, address: str) -> AsyncIterator[None]:
        bus = await MessageBus(bus_address=address).connect()
        bus.add_message_handler(self._hear)
        assert await bus.request_name(SERVICE) is RequestNameReply.PRIMARY_OWNER
        yield
        if bus.connected:
            bus.disconnect()
        with suppress(EOFError):  # the bus may have gone first
            await bus.wait_for_disconnect()

    def _hear(self, call: Message) -> Message | bool | None:
        if call.message_type is not MessageType.METHOD_CALL or call.interface != SERVICE or call.path != PATH:
            return None
        self.callers.add(call.sender or "")
        if self.mute:
            return True
        if call.member == "GetCapabilities":
            return Message.new_method_return(call, "as", [self.capabilities])
        if self.error is not None:
            return Message.new_error(call, self.error.type, self.error.text)
        if self.answer is not None:
            return Message.new_method_return(call, *self.answer)
        assert call.signature == "susssasa{sv}i"
        self.shown.append(call.body)
        return Message.new_method_return(call, "u", [len(self.shown)])


@asynccontextmanager
async def a_bus(place: Path) -> AsyncIterator[str]:
    """A dbus-daemon of our own."""
    binary = shutil.which("dbus-daemon")
    if binary is None:
        if os.environ.get("CI") == "true":
            pytest.fail("dbus-daemon is missing; install the package dbus-daemon")
        pytest.skip("dbus-daemon is not installed")
    daemon = await asyncio.create_subprocess_exec(
        binary,
        "--session",
        "--nofork",
        "--print-address",
        f"--address=unix:path={place / 'bus'}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert daemon.stdout is not None
    address = (await daemon.stdout.readline()).decode().strip()
    try:
        yield address
    finally:
        daemon.terminate()
        await daemon.wait()


@pytest.fixture
async def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    async with a_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        yield address


async def test_it_is_an_action() -> None:
    async with an_action() as action:
        assert isinstance(action, Action)


async def test_a_thought_is_shown_until_it_has_been_read(bus: str) -> None:
    desktop = Desktop("body")
    async with desktop.running(bus), an_action() as action:
        receipt = await action.perform(a_task("Call Anna\nabout the boat"))
    assert desktop.shown == [["Later", 0, "", "Call Anna", "about the boat", [], {"urgency": Variant("y", 1)}, 0]]
    assert receipt.detail == "shown on the desktop as notification 1"
    assert receipt.data == {"notification": 1}


@pytest.mark.parametrize(
    ("message", "summary", "body"),
    [
        ("one line", "one line", ""),
        ("\n one line \n", "one line", ""),
        ("x" * 71 + "\nmore", "x" * 69 + "…", "x" * 71 + "\nmore"),
        ("windows\r\nlines", "windows", "lines"),
        ("\x1b[31mred\x07\x00", "\\x1b[31mred\\x07\\x00", ""),
        ("a\u202eb\u2028c", "a\\u202eb\\u2028c", ""),
        ("👩‍👩‍👧‍👦 Grüße", "👩‍👩‍👧‍👦 Grüße", ""),
    ],
)
async def test_the_first_line_is_the_summary_and_nothing_steers(
    bus: str, message: str, summary: str, body: str
) -> None:
    desktop = Desktop("body")
    async with desktop.running(bus), an_action() as action:
        await action.perform(a_task(message))
    assert desktop.shown[0][3:5] == [summary, body]


async def test_where_no_body_is_shown_everything_is_in_the_summary(bus: str) -> None:
    desktop = Desktop("actions")
    async with desktop.running(bus), an_action() as action:
        await action.perform(a_task("Call Anna\nabout <the> boat"))
    assert desktop.shown[0][3:5] == ["Call Anna\nabout <the> boat", ""]


@pytest.mark.parametrize(
    ("capabilities", "body"),
    [
        (["body", "body-markup"], "&lt;b&gt;\"Tom\" &amp; 'Jerry'&lt;/b&gt;"),
        (["body"], "<b>\"Tom\" & 'Jerry'</b>"),
    ],
)
async def test_text_stays_text_where_markup_is_understood(bus: str, capabilities: list[str], body: str) -> None:
    desktop = Desktop(*capabilities)
    async with desktop.running(bus), an_action() as action:
        await action.perform(a_task("1 < 2\n<b>\"Tom\" & 'Jerry'</b>"))
    assert desktop.shown[0][3:5] == ["1 < 2", body]


async def test_many_notifications_share_one_connection(bus: str) -> None:
    desktop = Desktop("body")
    async with desktop.running(bus), an_action() as action:
        receipts = await asyncio.gather(*(action.perform(a_task()) for _ in range(20)))
    assert {receipt.data["notification"] for receipt in receipts} == set(range(1, 21))
    assert len(desktop.callers) == 1


async def test_a_lost_bus_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desktop = Desktop("body")
    async with an_action() as action:
        for _ in range(2):
            async with a_bus(tmp_path) as address, desktop.running(address):
                monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
                await action.perform(a_task())
        with pytest.raises(TemporaryFailure, match="the session bus is out of reach"):
            await action.perform(a_task())
    assert len(desktop.shown) == 2


async def test_a_bus_that_goes_in_the_middle_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desktop = Desktop("body")
    desktop.mute = True
    async with an_action() as action, AsyncExitStack() as service:
        async with a_bus(tmp_path) as address:
            monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
            await service.enter_async_context(desktop.running(address))
            attempt = asyncio.create_task(action.perform(a_task()))
            await wait_until(lambda: bool(desktop.callers))
        with pytest.raises(TemporaryFailure, match="the session bus hung up"):
            await attempt


async def test_a_service_that_goes_in_the_middle_is_tried_again(bus: str) -> None:
    desktop = Desktop("body")
    desktop.mute = True
    async with an_action() as action:
        async with desktop.running(bus):
            attempt = asyncio.create_task(action.perform(a_task()))
            await wait_until(lambda: bool(desktop.callers))
        with pytest.raises(TemporaryFailure, match="NoReply"):
            await attempt


async def test_without_a_notification_service_it_is_tried_again(bus: str) -> None:
    async with an_action() as action:
        with pytest.raises(TemporaryFailure, match=r"GetCapabilities: .*ServiceUnknown"):
            await action.perform(a_task())


async def test_a_silent_service_is_given_up_in_time(bus: str) -> None:
    desktop = Desktop()
    desktop.mute = True
    async with desktop.running(bus), an_action(timeout=0.4) as action:
        with pytest.raises(TemporaryFailure, match=r"the desktop did not answer within 0\.2 s"):
            await action.perform(a_task())


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ("org.freedesktop.DBus.Error.InvalidArgs", PermanentFailure),
        ("org.freedesktop.DBus.Error.UnknownMethod", TemporaryFailure),
        ("org.freedesktop.Notifications.MaxNotificationsExceeded", TemporaryFailure),
    ],
)
async def test_only_a_refused_text_is_not_tried_again(bus: str, error: str, failure: type[Exception]) -> None:
    desktop = Desktop()
    desktop.error = DBusError(error, "no\x1b")
    async with desktop.running(bus), an_action() as action:
        with pytest.raises(failure) as refused:
            await action.perform(a_task())
    assert str(refused.value) == f"{SERVICE} refused Notify: {error}: no\\x1b"


async def test_a_service_that_answers_nonsense_is_tried_again(bus: str) -> None:
    desktop = Desktop()
    desktop.answer = ("s", ["seventeen"])
    async with desktop.running(bus), an_action() as action:
        with pytest.raises(TemporaryFailure, match="answered Notify with 's' instead of 'u'"):
            await action.perform(a_task())


async def test_without_a_session_bus_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    async with an_action() as action:
        with pytest.raises(TemporaryFailure, match="there is no session bus"):
            await action.perform(a_task())


@pytest.mark.parametrize("address", ["nonsense", "autolaunch:", "unix:path=/nowhere/bus", "unix:runtime=yes"])
async def test_a_bus_out_of_reach_is_tried_again(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    async with an_action() as action:
        with pytest.raises(TemporaryFailure, match="the session bus is out of reach"):
            await action.perform(a_task())


async def test_the_bus_in_the_runtime_directory_is_used_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert not DesktopAction.available()
    desktop = Desktop("body")
    async with a_bus(tmp_path) as address, desktop.running(address), an_action() as action:
        assert DesktopAction.available()
        await action.perform(a_task())
    assert len(desktop.shown) == 1


def test_a_named_bus_is_enough_to_be_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/1000/bus")
    assert DesktopAction.available()


async def test_a_notification_needs_a_text_and_takes_no_address() -> None:
    async with an_action() as action:
        action.check(a_task())
        with pytest.raises(InvalidTask, match="a notification needs a text"):
            action.check(a_task(" \n"))
        with pytest.raises(InvalidTask, match="it takes no address; leave --to out"):
            action.check(a_task(to="ada"))


async def test_a_bus_with_somebody_who_shows_notifications_is_watched(bus: str) -> None:
    async with Desktop("body").running(bus), an_action() as action:
        assert await action.watched()


async def test_a_bus_with_nobody_who_shows_notifications_is_not_watched(bus: str) -> None:
    async with an_action() as action:
        assert not await action.watched()


async def test_without_a_bus_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    async with an_action() as action:
        assert not await action.watched()


async def test_a_bus_out_of_reach_is_not_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path / 'nowhere'}")
    async with an_action() as action:
        assert not await action.watched()
