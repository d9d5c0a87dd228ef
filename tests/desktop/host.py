"""The host's side of a tray over D-Bus: what a panel would draw and click."""

from __future__ import annotations

import asyncio
from typing import Any

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from tests.desktop.watcher import Watcher

PATIENCE_S = 30.0


class Host:
    """The host's side of one bus."""

    def __init__(self, bus: MessageBus, watcher: Watcher) -> None:
        self.bus = bus
        self.watcher = watcher
        self.badges: list[int] = []
        self.dressed: list[str] = []
        """Signals of the item: each has the host fetch icon or tooltip anew."""
        bus.add_message_handler(self._on_message)

    def _on_message(self, message: Message) -> None:
        """The number at the program's icon, as docks are told it, and what the icon tells of itself."""
        if message.interface == "org.kde.StatusNotifierItem":
            self.dressed.append(message.member or "")
        if message.interface == "com.canonical.Unity.LauncherEntry" and message.member == "Update":
            told = message.body[1].get("count")  # a badge that is hidden has none
            if told is not None:
                self.badges.append(int(told.value))

    async def call(
        self, path: str, interface: str, member: str, signature: str = "", *body: Any
    ) -> list[Any]:
        await asyncio.wait_for(self.watcher.came.wait(), PATIENCE_S)
        answer = await self.bus.call(
            Message(
                destination=self.watcher.items[-1],
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=list(body),
            )
        )
        assert answer is not None
        assert answer.message_type is MessageType.METHOD_RETURN, answer.body
        return list(answer.body)

    async def property(self, name: str) -> Any:
        (found,) = await self.call(
            "/StatusNotifierItem",
            "org.freedesktop.DBus.Properties",
            "Get",
            "ss",
            "org.kde.StatusNotifierItem",
            name,
        )
        return found.value

    async def menu(self) -> dict[str, int]:
        """Texts of all rows with their ids, as the host would draw them."""
        await self.call("/MenuBar", "com.canonical.dbusmenu", "AboutToShow", "i", 0)
        _, layout = await self.call(
            "/MenuBar", "com.canonical.dbusmenu", "GetLayout", "iias", 0, -1, ["label", "children-display"]
        )
        rows: dict[str, int] = {}

        def walk(node: list[Any]) -> None:
            ident, properties, children = node
            if "label" in properties:
                rows[properties["label"].value.replace("_", "")] = ident
            for child in children:
                walk(child.value)

        walk(layout)
        return rows

    async def until_tooltip(self, text: str) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while (found := (await self.property("ToolTip"))[2]) != text:
            assert asyncio.get_running_loop().time() < deadline, f"the tooltip is {found!r}"
            await asyncio.sleep(0.05)

    async def click(self, label: str) -> None:
        rows = await self.menu()
        await self.call(
            "/MenuBar", "com.canonical.dbusmenu", "Event", "isvu", rows[label], "clicked", Variant("s", ""), 0
        )

    async def until_row(self, start: str) -> str:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            rows = await self.menu()
            found = [label for label in rows if label.startswith(start)]
            if found:
                return found[0]
            assert asyncio.get_running_loop().time() < deadline, f"waited for {start!r} in {list(rows)}"
            await asyncio.sleep(0.05)


async def make_host(address: str) -> Host:
    bus = await MessageBus(address, bus_type=BusType.SESSION).connect()
    watcher = Watcher()
    bus.export("/StatusNotifierWatcher", watcher)
    await bus.request_name("org.kde.StatusNotifierWatcher")
    host = Host(bus, watcher)
    for interface in ("com.canonical.Unity.LauncherEntry", "org.kde.StatusNotifierItem"):
        await bus.call(
            Message(
                "org.freedesktop.DBus",
                "/org/freedesktop/DBus",
                "org.freedesktop.DBus",
                "AddMatch",
                signature="s",
                body=[f"type='signal',interface='{interface}'"],
            )
        )
    return host
