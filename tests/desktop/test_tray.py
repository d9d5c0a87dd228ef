"""The real desktop with a tray: over D-Bus with a host of ours, and over XEmbed with a real one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from tests.desktop.screen import desktop, said, session_bus, until_running, x_server
from tests.desktop.watcher import Watcher
from tests.end_to_end.home import OstlerHome, wait_until

PATIENCE_S = 30.0


class Host:
    """The host's side of one bus."""

    def __init__(self, bus: MessageBus, watcher: Watcher) -> None:
        self.bus = bus
        self.watcher = watcher

    async def call(
        self, path: str, interface: str, member: str, signature: str = "", *body: Any
    ) -> list[Any]:
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


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    found = OstlerHome(tmp_path, claude=False)
    (tmp_path / "daemon.out").touch()  # here the desktop starts the daemon
    yield found
    found.close()


@pytest.fixture
def display() -> Iterator[str]:
    with x_server() as name:
        yield name


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with session_bus(tmp_path) as found:
        yield found


async def make_host(address: str) -> Host:
    bus = await MessageBus(address, bus_type=BusType.SESSION).connect()
    watcher = Watcher()
    bus.export("/StatusNotifierWatcher", watcher)
    await bus.request_name("org.kde.StatusNotifierWatcher")
    return Host(bus, watcher)


@pytest.fixture
async def host(address: str) -> AsyncIterator[Host]:
    found = await make_host(address)
    yield found
    found.bus.disconnect()


async def test_menu_follows_the_tasks_and_its_rows_do_what_they_say(
    home: OstlerHome, display: str, address: str, host: Host
) -> None:
    with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address):
        await asyncio.wait_for(host.watcher.came.wait(), PATIENCE_S)
        await asyncio.to_thread(until_running, home)  # it has started one by itself
        await host.until_row("Nothing is running")
        task = await asyncio.to_thread(home.add, "sleep 1000", "shell", title="Upgrade to Postgres 17")
        await host.until_row("Upgrade to Postgres 17")
        await host.until_row("1 task is running")
        await host.until_tooltip("Ostler: 1 task is running.")
        await host.click("Cancel the task")
        await asyncio.to_thread(home.wait, task, "cancelled")
        await host.until_row("Nothing is running")
        await host.click("Until I resume")
        await host.until_row("Paused")
        assert home.status()["barrier"]["reason"] == "user"
        await host.click("Take tasks again")
        await host.until_row("Nothing is running")
    assert home.status()["status"] == "running"  # the tray is gone, the daemon is not


async def test_an_icon_is_made_anew_for_a_host_that_comes_later(
    home: OstlerHome, display: str, address: str
) -> None:
    home.start()
    with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address) as process:
        # The desktop is up when it has taken its place as the only one.
        wait_until((home.directories.checked_socket().with_name("desktop.sock")).exists, "the desktop")
        host = await make_host(address)
        try:
            await asyncio.wait_for(host.watcher.came.wait(), PATIENCE_S)
            await host.until_row("Nothing is running")
        finally:
            host.bus.disconnect()
        assert process.poll() is None


async def test_a_killed_daemon_is_started_again(
    home: OstlerHome, display: str, address: str, host: Host
) -> None:
    with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address):
        await asyncio.wait_for(host.watcher.came.wait(), PATIENCE_S)
        await asyncio.to_thread(until_running, home)
        task = await asyncio.to_thread(home.add, "sleep 1000", "shell")
        await host.until_row("1 task is running")
        first = home.status()["pid"]
        os.kill(first, signal.SIGKILL)

        def another() -> bool:
            try:
                return bool(home.status().get("pid") not in (None, first))
            except Exception:  # noqa: BLE001 - not there yet
                return False

        await asyncio.to_thread(wait_until, another, "another daemon")
        await host.until_row("1 task is running")
        assert home.task(task)["status"] == "running"


def test_a_second_desktop_hands_over_and_ends(home: OstlerHome, display: str) -> None:
    home.start()
    with desktop(home, DISPLAY=display) as first:
        wait_until((home.directories.checked_socket().with_name("desktop.sock")).exists, "the desktop")
        with desktop(home, DISPLAY=display) as second:
            assert second.wait(20) == 0
        assert first.poll() is None


def test_a_real_tray_without_a_bus(home: OstlerHome, display: str) -> None:
    home.start()
    trayer = subprocess.Popen(
        ["trayer", "--edge", "top", "--height", "32"],
        env={**os.environ, "DISPLAY": display},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with desktop(home, DISPLAY=display) as process:

            def embedded() -> bool:
                found = subprocess.run(
                    ["xdotool", "search", "--class", "ostler"],
                    env={**os.environ, "DISPLAY": display},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                return bool(found.stdout.strip())

            wait_until(embedded, f"the icon in the tray: {said(home)}")
            assert process.poll() is None
    finally:
        trayer.terminate()
        trayer.wait(20)
