"""The real desktop with a tray: over D-Bus with a host of ours, and over XEmbed with a real one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.desktop.host import PATIENCE_S, Host, make_host
from tests.desktop.screen import desktop, said, until_running, windows_of
from tests.end_to_end.home import OstlerHome, wait_until

LOST_S = 10.0
"""A click that has shown nothing after this time was lost."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    found = OstlerHome(tmp_path, claude=False)
    (tmp_path / "daemon.out").touch()  # here the desktop starts the daemon
    yield found
    found.close()


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
        assert host.badges[-1] == 1
        host.dressed.clear()
        further = await asyncio.to_thread(home.add, "sleep 1000", "shell", title="Another")
        await host.until_tooltip("Ostler: 2 tasks are running.")
        await asyncio.to_thread(home.call, "POST", f"/v1/tasks/{further}/cancel")
        await host.until_tooltip("Ostler: 1 task is running.")
        assert "NewIcon" not in host.dressed  # it is the same one, and comes with pictures of all sizes
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
                """In sight: the window of an icon is there before any tray has taken it."""
                found = subprocess.run(
                    ["xdotool", "search", "--onlyvisible", "--class", "ostler"],
                    env={**os.environ, "DISPLAY": display},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                return bool(found.stdout.strip())

            wait_until(embedded, f"the icon in the tray: {said(home)}")

            def panel() -> list[str]:
                # A second click closes what the first one has opened late: not before that one is lost.
                if found := windows_of(display, "^Ostler$"):
                    return found
                icon = ["search", "--onlyvisible", "--class", "ostler"]
                place = ["xdotool", *icon, "mousemove", "--window", "%1", "8", "8"]
                subprocess.run([*place, "click", "1"], env={**os.environ, "DISPLAY": display}, check=False)
                deadline = time.monotonic() + LOST_S
                while not (found := windows_of(display, "^Ostler$")) and time.monotonic() < deadline:
                    time.sleep(0.02)
                return found

            wait_until(panel, f"the panel beside the icon: {said(home)}")
            assert process.poll() is None
    finally:
        trayer.terminate()
        trayer.wait(20)
