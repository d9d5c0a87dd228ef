"""The real desktop when its window is closed: it explains itself once beside a tray, and ends without one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from desktop.windows.main import WIDTH
from tests.desktop.host import Host
from tests.desktop.notices import NotificationServer
from tests.desktop.screen import desktop, said, windows_of
from tests.end_to_end.home import OstlerHome, wait_until

TOLD = "Ostler goes on in the tray"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    found = OstlerHome(tmp_path, claude=False)
    found.start()
    yield found
    found.close()


def press(display: str, keys: str) -> None:
    """In the window that is in sight. A key that comes before it listens is lost."""
    xdotool(display, "windowfocus", "key", keys)


def xdotool(display: str, *what: str) -> None:
    subprocess.run(
        ["xdotool", "search", "--onlyvisible", "--name", "^Ostler$", *what],
        env={**os.environ, "DISPLAY": display}, check=False, timeout=30,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def close_window(display: str) -> bool:
    press(display, "ctrl+w")
    return not windows_of(display, "^Ostler$")


async def test_beside_a_tray_it_says_once_that_it_goes_on(
    home: OstlerHome, display: str, address: str, host: Host
) -> None:
    server = await asyncio.to_thread(NotificationServer, address)
    try:
        environ = {"DISPLAY": display, "DBUS_SESSION_BUS_ADDRESS": address}
        with desktop(home, background=False, **environ) as process:
            await asyncio.wait_for(host.watcher.came.wait(), 30)
            await asyncio.to_thread(wait_until, lambda: windows_of(display, "^Ostler$"), "the window")
            await asyncio.to_thread(wait_until, lambda: close_window(display), f"its end: {said(home)}")
            notice = await asyncio.to_thread(server.wait_for, TOLD)
            assert "brings the window back" in notice.text

            def kept() -> bool:
                file = home.directories.config_file
                settings = tomllib.loads(file.read_text()) if file.exists() else {}
                return settings.get("desktop") == {"explain_close": False}

            await asyncio.to_thread(wait_until, kept, "the setting")
            await host.click("Open Ostler")
            await asyncio.to_thread(wait_until, lambda: windows_of(display, "^Ostler$"), "the window")
            await asyncio.to_thread(wait_until, lambda: close_window(display), "its end")
            await host.until_row("Nothing is running")
            assert process.poll() is None
            assert [each.title for each in server.record.notices] == [TOLD]
    finally:
        await asyncio.to_thread(server.close)


def test_without_a_tray_closing_is_quitting_and_tasks_are_asked_about(home: OstlerHome, display: str) -> None:
    task = home.add("sleep 1000", "shell")
    with desktop(home, background=False, DISPLAY=display) as process:
        wait_until(lambda: windows_of(display, "^Ostler$"), "the window")
        wait_until(lambda: close_until_asked(display), "the question")
        assert process.poll() is None
        wait_until(lambda: cancel_until_back(display), "the window, after a second thought")
        home.call("POST", f"/v1/tasks/{task}/cancel")
        home.wait(task, "cancelled")

        def ended() -> bool:
            # It may not have heard yet that nothing runs any more, and ask once more.
            if process.poll() is None and cancel_until_back(display):
                press(display, "ctrl+w")
            return process.poll() is not None

        wait_until(ended, f"the end of the desktop: {said(home)}")
        assert process.poll() == 0
    assert home.status()["status"] == "running"


def sizes(display: str) -> list[tuple[int, int]]:
    """Of all windows in sight: the question is narrower than the window."""
    found = []
    for window in windows_of(display, "^Ostler$"):
        told = subprocess.run(
            ["xdotool", "getwindowgeometry", "--shell", window],
            env={**os.environ, "DISPLAY": display}, check=False, capture_output=True, text=True, timeout=30,
        ).stdout  # fmt: skip
        facts = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
        if "WIDTH" in facts:
            found.append((int(facts["WIDTH"]), int(facts["HEIGHT"])))
    return found


def close_until_asked(display: str) -> bool:
    found = sizes(display)
    if any(width >= WIDTH for width, _height in found):
        press(display, "ctrl+w")
    return bool(found) and all(width < WIDTH for width, _height in found)


def cancel_until_back(display: str) -> bool:
    """With the pointer: without a window manager the question does not always have the keys."""
    found = sizes(display)
    if len(found) == 1 and found[0][0] < WIDTH:
        # The first button, "Cancel": at the lower left.
        xdotool(display, "mousemove", "--window", "%1", "60", str(found[0][1] - 32), "click", "1")
    return any(width >= WIDTH for width, _height in found)
