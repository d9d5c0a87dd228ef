"""What this platform has for notifications: who shows them, and who says that the moment is a bad one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject

from desktop.notifications.disturbance import Disturbance
from desktop.notifications.service import Balloon, Chain, Service

if TYPE_CHECKING:
    from desktop.notifications.bus import SessionBus

ICON_NAME = "ostler"
ICON_PIXELS = 64


@dataclass(frozen=True, slots=True)
class Platform:
    """Closed in the order of ``close``: what is shown is taken back while there still is a way to."""

    service: Service
    disturbance: Disturbance
    close: Callable[[], None]
    bus: SessionBus | None = None


def platform(
    tell: Callable[[str, str], None], icon_directory: Path, parent: QObject, shown: Path | None = None
) -> Platform:
    """Everything of this platform.

    Args:
        tell: The tray's balloon.
        icon_directory: Where the icon is drawn to if the system's theme has none of ours.
        shown: The file that says what is shown, where the platform forgets nothing that a crash leaves.
    """
    balloon = Balloon(tell, parent)
    if sys.platform in ("win32", "darwin"):
        from desktop.notifications.disturbance import WindowsDisturbance
        from desktop.notifications.library import LibraryService

        library = Chain([LibraryService(parent), balloon], parent)
        watched = WindowsDisturbance(parent) if sys.platform == "win32" else Disturbance(parent)

        def close_library() -> None:
            watched.close()
            library.close()

        return Platform(library, watched, close_library)
    from desktop.notifications.bus import SessionBus
    from desktop.notifications.disturbance import FreedesktopDisturbance
    from desktop.notifications.freedesktop import Freedesktop

    bus = SessionBus(parent=parent)
    server = Freedesktop(bus, parent, icon=lambda: icon(icon_directory), kept=shown)
    service = Chain([server, balloon], parent)
    disturbance = FreedesktopDisturbance(bus, parent)

    def close_bus() -> None:
        service.close()
        bus.close()

    return Platform(service, disturbance, close_bus, bus)


def icon(directory: Path) -> str:
    """Our icon as a notification server takes it: its name in the theme, or the address of a file."""
    from PySide6.QtGui import QColor, QIcon

    if QIcon.hasThemeIcon(ICON_NAME):
        return ICON_NAME
    from desktop.theme import mark, tokens

    path = directory / "notification.png"
    directory.mkdir(parents=True, exist_ok=True)
    drawn = mark.pixmap(ICON_PIXELS, mark.Shape.IDLE, QColor(tokens.LIGHT.accent))
    return path.as_uri() if drawn.save(str(path)) else ""
