"""Holds the shortcut that the settings name, by whatever the platform has for it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from PySide6.QtCore import QObject, Signal

from desktop.shortcuts.keys import Keys, parse

if TYPE_CHECKING:
    from desktop.shortcuts.macos import MacShortcut
    from desktop.shortcuts.portal import PortalShortcut
    from desktop.shortcuts.windows import WindowsShortcut
    from desktop.shortcuts.x11 import X11Shortcut

log = logging.getLogger("ostler.desktop.shortcuts")

Way = Literal["x11", "portal", "windows", "macos", "none"]


def way_of(platform: str, qt_platform: str, environ: Mapping[str, str]) -> Way:
    """How a shortcut is had here."""
    if platform == "win32":
        return "windows"
    if platform == "darwin":
        return "macos"
    if qt_platform.startswith("wayland") or environ.get("WAYLAND_DISPLAY"):
        # Also under XWayland a grab would be told only of keys that are for X programs.
        return "portal"
    return "x11" if environ.get("DISPLAY") else "none"


class GlobalShortcut(QObject):
    """Signals:
    pressed(): The keys were pressed, wherever the focus was.
    refused(str, str): The keys (as text) were not to be had, and why, as a code: not_keys, not_here, taken,
        no_such_key, no_display, refused.
    """

    pressed = Signal()
    refused = Signal(str, str)

    def __init__(self, qt_platform: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._platform = qt_platform
        self._text = ""
        self._holder: X11Shortcut | PortalShortcut | WindowsShortcut | MacShortcut | None = None

    def hold(self, text: str) -> None:
        """Have these keys from now on; empty: none."""
        text = text.strip()
        if text == self._text:
            return
        self._text = text
        if self._holder is not None:
            self._holder.release()
        if not text:
            return
        keys = parse(text)
        if keys is None:
            self._refuse("not_keys")
            return
        self._grab(keys)

    def close(self) -> None:
        """Give everything back."""
        self._text = ""
        if self._holder is not None:
            self._holder.release()

    def _grab(self, keys: Keys) -> None:
        way = way_of(sys.platform, self._platform, os.environ)
        why = "not_here"
        if way == "portal":
            from desktop.shortcuts.portal import PortalShortcut

            portal = self._holder if isinstance(self._holder, PortalShortcut) else None
            if portal is None:
                portal = PortalShortcut(self)
                portal.pressed.connect(self.pressed)
                portal.refused.connect(self._refuse)
                self._holder = portal
            portal.grab(keys)
            return
        if way != "none":
            holder = self._holder or self._make(way)
            assert not hasattr(holder, "refused")
            self._holder = holder
            why = str(holder.grab(keys) or "")
        if why:
            self._refuse(why)

    def _make(self, way: Way) -> X11Shortcut | WindowsShortcut | MacShortcut:
        made: X11Shortcut | WindowsShortcut | MacShortcut
        if way == "windows":
            from desktop.shortcuts.windows import WindowsShortcut

            made = WindowsShortcut(self)
        elif way == "macos":
            from desktop.shortcuts.macos import MacShortcut

            made = MacShortcut(self)
        else:
            from desktop.shortcuts.x11 import X11Shortcut

            made = X11Shortcut(self)
        made.pressed.connect(self.pressed)
        return made

    def _refuse(self, why: str) -> None:
        log.warning("the shortcut %s is not to be had: %s", self._text, why)
        self.refused.emit(self._text, why)
