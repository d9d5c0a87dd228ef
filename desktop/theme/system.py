"""What the desktop asks for: dark or light, more contrast, less motion; and that it has changed its mind.

Qt knows on Windows, on macOS and where it has a plug-in for the desktop. On other X11 desktops it knows
nothing, so the settings portal is asked too, once, and tells of changes by itself. Where several tell, the
portal wins: it is what the user's settings dialog writes.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Final

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QAccessibilityHints, QGuiApplication, QStyleHints

APPEARANCE: Final = "org.freedesktop.appearance"
GNOME: Final = "org.gnome.desktop.interface"
DARK, LIGHT = 1, 2
_CONTRAST_NAMES: Final = ("highcontrast", "high-contrast")


@functools.cache
def _hints() -> tuple[QStyleHints, QAccessibilityHints]:
    # WORKAROUND for PySide 6.11: the second wrapper is good for nothing once the first one is collected.
    hints = QGuiApplication.styleHints()
    return hints, hints.accessibility()


class SystemLook(QObject):
    """What the system asks for now.

    Signals:
        changed(): Some of it is another now.
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._told: dict[tuple[str, str], int] = {}
        hints, access = _hints()
        hints.colorSchemeChanged.connect(self._on_hint)
        access.contrastPreferenceChanged.connect(self._on_hint)
        if sys.platform.startswith("linux"):
            from desktop.theme.portal import SettingsPortal

            self._portal = SettingsPortal(self)
            self._portal.told.connect(self._on_told)
            self._portal.ask()

    @property
    def dark(self) -> bool:
        """Whether a dark look is wanted."""
        told = self._told.get((APPEARANCE, "color-scheme"), 0)
        return told == DARK if told in (DARK, LIGHT) else _hints()[0].colorScheme() is Qt.ColorScheme.Dark

    @property
    def contrast(self) -> bool:
        """Whether more contrast is wanted."""
        if self._told.get((APPEARANCE, "contrast"), 0) == 1:
            return True
        if _hints()[1].contrastPreference() is Qt.ContrastPreference.HighContrast:
            return True
        theme = os.environ.get("GTK_THEME", "").lower().replace("_", "")
        return any(name in theme for name in _CONTRAST_NAMES)

    @property
    def calm(self) -> bool:
        """Whether less motion is wanted."""
        return (
            self._told.get((APPEARANCE, "reduced-motion"), 0) == 1
            or self._told.get((GNOME, "enable-animations"), 1) == 0
        )

    def _on_hint(self) -> None:
        self.changed.emit()

    def _on_told(self, namespace: str, key: str, value: int) -> None:
        if self._told.get((namespace, key)) != value:
            self._told[namespace, key] = value
            self.changed.emit()
