"""The real desktop on a Wayland compositor without a screen: icon and menu over D-Bus, windows where the
compositor wants them. Only where weston is installed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.desktop.host import PATIENCE_S, Host
from tests.desktop.screen import desktop, said
from tests.end_to_end.home import OstlerHome, wait_until

DISPLAY = "wayland-tests"
WINDOW = 'set_title("Ostler")'


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    found = OstlerHome(tmp_path, claude=False)
    yield found
    found.close()


@contextmanager
def compositor(home: OstlerHome) -> Iterator[str]:
    """Gives the directory that its socket is in."""
    place = home.root / "wayland"
    place.mkdir(mode=0o700)
    with open(home.root / "weston.out", "wb") as log:
        weston = subprocess.Popen(
            ["weston", "--backend=headless-backend.so", f"--socket={DISPLAY}", "--idle-time=0"],
            env={**home.environ, "XDG_RUNTIME_DIR": str(place)}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_until((place / DISPLAY).exists, "the compositor")
        yield str(place)
    finally:
        weston.terminate()
        weston.wait(20)


@pytest.mark.skipif(not shutil.which("weston"), reason="no compositor to try it on")
async def test_icon_menu_and_windows_without_x(home: OstlerHome, address: str, host: Host) -> None:
    home.start()
    home.directories.config_file.write_text('[desktop]\nglobal_shortcut = "Ctrl+Alt+O"\n')
    home.call("POST", "/v1/settings/reload")
    with (
        compositor(home) as place,
        desktop(
            home,
            background=True,
            QT_QPA_PLATFORM="wayland",
            DBUS_SESSION_BUS_ADDRESS=address,
            WAYLAND_DEBUG="1",
            WAYLAND_DISPLAY=DISPLAY,
            XDG_RUNTIME_DIR=place,
        ) as process,
    ):
        await asyncio.wait_for(host.watcher.came.wait(), PATIENCE_S)
        await host.until_row("Nothing is running")
        # Nobody can say where the icon is: a click opens the window, and the compositor places it.
        await host.call("/StatusNotifierItem", "org.kde.StatusNotifierItem", "Activate", "ii", 600, 20)
        await asyncio.to_thread(wait_until, lambda: WINDOW in said(home), "the window")
        # No portal is on this bus: the shortcut is not to be had, and nothing else is different.
        log = home.directories.desktop_log_file
        await asyncio.to_thread(wait_until, lambda: "Ctrl+Alt+O is not" in log.read_text(), "the refusal")
        await host.click("Quit…")
        await asyncio.to_thread(wait_until, lambda: said(home).count(WINDOW) == 2, "the question")
        assert process.poll() is None
    assert process.returncode == 0
    assert "Traceback" not in said(home)
