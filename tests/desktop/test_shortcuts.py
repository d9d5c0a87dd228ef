"""The shortcut from anywhere: what is one, and a real grab on a real screen."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QCoreApplication
from pytestqt.qtbot import QtBot

from desktop.notifications.bus import SessionBus
from desktop.shortcuts import macos, windows
from desktop.shortcuts.keys import Keys, parse
from desktop.shortcuts.portal import PortalShortcut, trigger
from desktop.shortcuts.shortcut import GlobalShortcut, way_of
from desktop.shortcuts.x11 import X11Shortcut
from tests.desktop.portal import shortcut_portal
from tests.desktop.screen import x_server


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("Ctrl+Alt+O", "Ctrl+Alt+O"),
        ("super+space", "Meta+Space"),
        (" alt + shift + f4 ", "Alt+Shift+F4"),
        ("F9", "F9"),
        ("Ctrl+1", "Ctrl+1"),
        ("O", None),
        ("Shift+O", None),
        ("Space", None),
        ("Ctrl+", None),
        ("Ctrl+Ctrl+O", None),
        ("Hyper+O", None),
        ("Ctrl+ö", None),
        ("", None),
    ],
)
def test_what_is_a_shortcut(text: str, keys: str | None) -> None:
    found = parse(text)
    assert (str(found) if found is not None else None) == keys


def test_each_platform_has_its_way() -> None:
    assert way_of("win32", "windows", {}) == "windows"
    assert way_of("darwin", "cocoa", {}) == "macos"
    assert way_of("linux", "xcb", {"DISPLAY": ":0"}) == "x11"
    assert way_of("linux", "xcb", {"DISPLAY": ":0", "WAYLAND_DISPLAY": "wayland-0"}) == "portal"
    assert way_of("linux", "offscreen", {}) == "none"
    keys = Keys(frozenset({"ctrl", "alt"}), "O")
    assert trigger(keys) == "CTRL+ALT+o"
    assert (windows.code_of("O"), windows.mask_of(keys) & 0xFF) == (0x4F, 3)
    assert (macos.code_of("O"), macos.mask_of(keys)) == (31, 0x1800)


@pytest.mark.skipif(not shutil.which("xdotool"), reason="nobody to press a key")
def test_a_grab_is_told_of_the_keys_alone(qtbot: QtBot, tmp_path: Path) -> None:
    def press(display: str, keys: str) -> None:
        environ = {**os.environ, "DISPLAY": display}
        subprocess.run(["xdotool", "key", keys], env=environ, check=True, timeout=20)

    with x_server() as display:
        # A screen of tests begins anew when its last client goes: one stays.
        shortcut, other, stays = X11Shortcut(), X11Shortcut(), X11Shortcut()
        pressed: list[str] = []
        shortcut.pressed.connect(lambda: pressed.append("ours"))
        keys, further = parse("Ctrl+Alt+O"), parse("Ctrl+Alt+P")
        assert keys is not None
        assert further is not None
        try:
            assert shortcut.grab(keys, display) == ""
            assert other.grab(keys, display) == "taken"
            assert stays.grab(further, display) == ""
            press(display, "ctrl+o")
            press(display, "ctrl+alt+o")
            qtbot.waitUntil(lambda: pressed == ["ours"], timeout=10_000)
            shortcut.release()
            assert other.grab(keys, display) == ""  # given back
            press(display, "ctrl+alt+o")
        finally:
            shortcut.release()
            other.release()
            stays.release()
    assert pressed == ["ours"]
    assert X11Shortcut().grab(keys, ":99999") == "no_display"


def test_what_cannot_be_had_is_said(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    shortcut = GlobalShortcut("offscreen")
    told: list[tuple[str, str]] = []
    shortcut.refused.connect(lambda text, why: told.append((text, why)))
    shortcut.hold("nonsense")
    shortcut.hold("")
    shortcut.hold("Ctrl+Alt+O")
    shortcut.hold("Ctrl+Alt+O")
    assert told == [("nonsense", "not_keys"), ("Ctrl+Alt+O", "not_here")]
    shortcut.close()


async def until(qtbot: QtBot, condition: Callable[[], object]) -> None:
    """The portal answers in this thread's other loop."""
    for _step in range(400):
        QCoreApplication.processEvents()
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing came of it")


async def test_a_portal_that_answers_before_its_call_returns_is_heard(qtbot: QtBot, address: str) -> None:
    async with shortcut_portal(address) as portal:
        bus = SessionBus(address)
        shortcut = PortalShortcut(bus=bus)
        pressed: list[None] = []
        refused: list[str] = []
        shortcut.pressed.connect(lambda: pressed.append(None))
        shortcut.refused.connect(refused.append)
        keys = parse("Ctrl+Alt+O")
        assert keys is not None
        shortcut.grab(keys)
        await until(qtbot, lambda: portal.bound)
        assert portal.bound == [("/session/1", "CTRL+ALT+o")]
        portal.press("/session/1")
        portal.press("/session/of another program")
        await until(qtbot, lambda: pressed)
        before = len(bus._listeners)
        portal.answer = 1  # the user does not want it
        shortcut.grab(keys)
        await until(qtbot, lambda: refused)
        assert portal.closed == ["/session/1"]
        assert len(bus._listeners) == before  # requests are over
        assert len(pressed) == 1
        bus.close()
