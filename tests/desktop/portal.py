# mypy: disable-error-code="name-defined,valid-type,syntax"
"""Portals of the tests: settings and shortcuts. Annotations are D-Bus signatures: they stay as they are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.service import ServiceInterface, method, signal

# ruff: noqa: F821, N802


class LookPortal(ServiceInterface):
    """Tells what it was given, wrapped twice as the portal's first version does."""

    def __init__(self, told: dict[tuple[str, str], int]) -> None:
        super().__init__("org.freedesktop.portal.Settings")
        self.told = told

    @method()
    def Read(self, namespace: "s", key: "s") -> "v":
        return Variant("v", Variant("u", self.told.get((namespace, key), 0)))

    @signal()
    def SettingChanged(self, namespace, key, value) -> "ssv":  # type: ignore[no-untyped-def]
        return [namespace, key, value]


@asynccontextmanager
async def look_portal(address: str, told: dict[tuple[str, str], int]) -> AsyncIterator[LookPortal]:
    """A portal on a bus."""
    bus = await MessageBus(address, bus_type=BusType.SESSION).connect()
    portal = LookPortal(told)
    bus.export("/org/freedesktop/portal/desktop", portal)
    await bus.request_name("org.freedesktop.portal.Desktop")
    try:
        yield portal
    finally:
        bus.disconnect()


class ShortcutPortal:
    """Answers each request before the call that made it returns, as a quick one does.

    Attributes:
        answer: 0: what is wished for is given; else it is not.
        bound: Session and keys of each shortcut.
        closed: Sessions that were given back.
    """

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self.answer = 0
        self.bound: list[tuple[str, str]] = []
        self.closed: list[str] = []
        bus.add_message_handler(self._on_message)

    def press(self, session: str) -> None:
        """The keys of a session's shortcut."""
        self._tell(
            "/org/freedesktop/portal/desktop", "org.freedesktop.portal.GlobalShortcuts", "Activated",
            "osta{sv}", [session.replace(" ", "_"), "new-task", 1, {}],
        )  # fmt: skip

    def _on_message(self, message: Message) -> Message | None:
        if message.interface == "org.freedesktop.portal.Session":
            self.closed.append(message.path or "")
            return Message.new_method_return(message)
        if message.interface != "org.freedesktop.portal.GlobalShortcuts" or message.message_type is not (
            MessageType.METHOD_CALL
        ):
            return None
        token = message.body[-1]["handle_token"].value
        sender = (message.sender or "").removeprefix(":").replace(".", "_")
        handle = f"/org/freedesktop/portal/desktop/request/{sender}/{token}"
        results = {"session_handle": Variant("s", "/session/1")} if message.member == "CreateSession" else {}
        if message.member == "BindShortcuts":
            session, shortcuts, _window, _options = message.body
            self.bound.append((session, shortcuts[0][1]["preferred_trigger"].value))
        self._tell(handle, "org.freedesktop.portal.Request", "Response", "ua{sv}", [self.answer, results])
        return Message.new_method_return(message, "o", [handle])

    def _tell(self, path: str, interface: str, member: str, signature: str, body: list) -> None:  # type: ignore[type-arg]
        self._bus.send(Message.new_signal(path, interface, member, signature, body))


@asynccontextmanager
async def shortcut_portal(address: str) -> AsyncIterator[ShortcutPortal]:
    """One on a bus."""
    bus = await MessageBus(address, bus_type=BusType.SESSION).connect()
    portal = ShortcutPortal(bus)
    await bus.request_name("org.freedesktop.portal.Desktop")
    try:
        yield portal
    finally:
        bus.disconnect()
