# mypy: disable-error-code="name-defined,valid-type,syntax,no-untyped-def,no-untyped-call,return-value"
"""A notification server of the tests, in a thread of its own: records everything and presses any button.

Its annotations are D-Bus signatures: they have to be as they are.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dbus_fast import BusType, PropertyAccess
from dbus_fast.aio import MessageBus
from dbus_fast.service import ServiceInterface, dbus_property, method
from dbus_fast.service import signal as dbus_signal

# ruff: noqa: F722, F821, N802

T = TypeVar("T")
EVERYTHING = ("body", "body-markup", "actions", "inline-reply", "persistence", "sound")
PATIENCE_S = 30.0


@dataclass
class Notice:
    """What ``Notify`` was called with."""

    number: int
    replaces: int
    icon: str
    title: str
    text: str
    actions: list[str]
    hints: dict[str, Any]
    time_ms: int

    @property
    def buttons(self) -> dict[str, str]:
        """Text of each button with its key."""
        return {
            text: key
            for key, text in zip(self.actions[::2], self.actions[1::2], strict=True)
            if key != "default"
        }


@dataclass
class Record:
    """What a server has seen; written by its thread, read by the test's."""

    notices: list[Notice] = field(default_factory=list)
    shown: dict[int, Notice] = field(default_factory=dict)
    withdrawn: list[int] = field(default_factory=list)


class _Interface(ServiceInterface):
    def __init__(self, record: Record, capabilities: tuple[str, ...]) -> None:
        super().__init__("org.freedesktop.Notifications")
        self.record = record
        self.capabilities = capabilities
        self.answers = asyncio.Event()
        self.answers.set()
        self.inhibited = False
        self.number = 0

    @method()
    async def GetCapabilities(self) -> "as":
        await self.answers.wait()
        return list(self.capabilities)

    @method()
    async def GetServerInformation(self) -> "ssss":
        return ["tests", "Ostler", "1", "1.2"]

    @method()
    async def Notify(
        self, app: "s", replaces: "u", icon: "s", title: "s", text: "s", actions: "as", hints: "a{sv}",
        time_ms: "i",
    ) -> "u":  # fmt: skip
        await self.answers.wait()
        if not replaces:
            self.number += 1
        number = replaces or self.number
        plain = {name: variant.value for name, variant in hints.items()}
        notice = Notice(number, replaces, icon, title, text, actions, plain, time_ms)
        self.record.notices.append(notice)
        self.record.shown[number] = notice
        return number

    @method()
    async def CloseNotification(self, number: "u") -> None:
        self.record.withdrawn.append(number)
        if self.record.shown.pop(number, None) is not None:
            self.NotificationClosed(number, 3)

    @dbus_property(access=PropertyAccess.READ)
    def Inhibited(self) -> "b":
        return self.inhibited

    @dbus_signal()
    def NotificationClosed(self, number, reason) -> "uu":
        return [number, reason]

    @dbus_signal()
    def ActionInvoked(self, number, key) -> "us":
        return [number, key]

    @dbus_signal()
    def ActivationToken(self, number, token) -> "us":
        return [number, token]

    @dbus_signal()
    def NotificationReplied(self, number, text) -> "us":
        return [number, text]


class NotificationServer:
    """A server on the bus at ``address``; ``start`` and ``stop`` as often as wanted."""

    def __init__(self, address: str, capabilities: tuple[str, ...] = EVERYTHING) -> None:
        self.address = address
        self.capabilities = capabilities
        self.record = Record()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="notification server")
        self._thread.start()
        self._bus: MessageBus | None = None
        self._interface: _Interface | None = None
        self.start()

    def start(self) -> None:
        """Take the name."""

        async def begin() -> None:
            self._bus = await MessageBus(self.address, bus_type=BusType.SESSION).connect()
            self._interface = _Interface(self.record, self.capabilities)
            self._bus.export("/org/freedesktop/Notifications", self._interface)
            await self._bus.request_name("org.freedesktop.Notifications")

        self._run(begin())

    def stop(self) -> None:
        """Vanish, with everything shown."""

        async def end() -> None:
            if self._bus is not None:
                self._bus.disconnect()
                await self._bus.wait_for_disconnect()
            self._bus = None

        self._run(end())
        self.record.shown.clear()

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def hang(self, *, hangs: bool) -> None:
        """Answer nothing from now on, or everything again."""

        def change() -> None:
            assert self._interface is not None
            if hangs:
                self._interface.answers.clear()
            else:
                self._interface.answers.set()

        self._loop.call_soon_threadsafe(change)

    def inhibit(self, *, on: bool) -> None:
        """ "Do not disturb" on or off."""

        def change() -> None:
            assert self._interface is not None
            self._interface.inhibited = on
            self._interface.emit_properties_changed({"Inhibited": on})

        self._loop.call_soon_threadsafe(change)

    def press(self, number: int, key: str, token: str = "") -> None:
        """Press a button, or the whole (``default``)."""

        def do() -> None:
            assert self._interface is not None
            if token:
                self._interface.ActivationToken(number, token)
            self._interface.ActionInvoked(number, key)

        self._loop.call_soon_threadsafe(do)

    def reply(self, number: int, text: str) -> None:
        """Write an answer into the field."""

        def do() -> None:
            assert self._interface is not None
            self._interface.NotificationReplied(number, text)

        self._loop.call_soon_threadsafe(do)

    def dismiss(self, number: int) -> None:
        """A person closes it."""

        def do() -> None:
            assert self._interface is not None
            if self.record.shown.pop(number, None) is not None:
                self._interface.NotificationClosed(number, 2)

        self._loop.call_soon_threadsafe(do)

    def wait(self, what: Callable[[Record], T | None], told: str) -> T:
        """Wait until the record fits; what ``what`` finds."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = what(self.record)
            if found:
                return found
            assert time.monotonic() < deadline, f"waited for {told}; there is {self.record}"
            time.sleep(0.02)

    def wait_for(self, title: str) -> Notice:
        """Wait until something with this title is shown."""
        return self.wait(
            lambda record: next((each for each in list(record.shown.values()) if each.title == title), None),
            title,
        )

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)
