# mypy: disable-error-code="name-defined,valid-type,syntax"
"""A StatusNotifier host of the tests. Its annotations are D-Bus signatures: they have to be as they are."""

import asyncio

from dbus_fast import PropertyAccess
from dbus_fast.service import ServiceInterface, dbus_property, method

# ruff: noqa: F722, F821, N802


class Watcher(ServiceInterface):
    """A StatusNotifier host, as far as an item needs one."""

    def __init__(self) -> None:
        super().__init__("org.kde.StatusNotifierWatcher")
        self.items: list[str] = []
        self.came = asyncio.Event()

    @method()
    def RegisterStatusNotifierItem(self, service: "s") -> None:
        self.items.append(service)
        self.came.set()

    @method()
    def RegisterStatusNotifierHost(self, service: "s") -> None:
        pass

    @dbus_property(access=PropertyAccess.READ)
    def RegisteredStatusNotifierItems(self) -> "as":
        return self.items

    @dbus_property(access=PropertyAccess.READ)
    def IsStatusNotifierHostRegistered(self) -> "b":
        return True

    @dbus_property(access=PropertyAccess.READ)
    def ProtocolVersion(self) -> "i":
        return 0
