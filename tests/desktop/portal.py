# mypy: disable-error-code="name-defined,valid-type,syntax"
"""A settings portal of the tests. Its annotations are D-Bus signatures: they have to be as they are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbus_fast import BusType, Variant
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
