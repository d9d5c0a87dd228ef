"""What a tray can do on this platform, behind one interface: what a click opens, who colours the icon, where
something can be put beside it.

X11 is tried. Wayland, Windows and macOS follow their own rules here and nobody has run them yet: a Wayland
client knows neither where the icon nor where the pointer is, so nothing is placed there; on macOS every click
on a menu-bar extra shows its menu and the icon is a template; on Windows the menu begins with what a double
click does.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

from PySide6.QtCore import QPoint, QRect, QSize

from desktop.tray.view import Row

GAP: Final = 8
"""Between the panel of the desktop, or the edge of the screen, and what is put beside the icon."""
NEAR: Final = 96
"""A pointer further than this from every edge of the screen is not at a tray."""
LEAST_HEIGHT: Final = 200


class Click(enum.Enum):
    """What a click on the icon opens."""

    PANEL = "panel"
    WINDOW = "window"
    MENU = "menu"
    """The platform shows the menu by itself."""


@dataclass(frozen=True, slots=True)
class TrayRules:
    """Attributes:
    template: The system colours the icon; it is drawn as a mask.
    pointer: Where no geometry of the icon is known, the pointer tells where it was clicked.
    open_first: The menu begins with "Open Ostler", as what a double click does.
    """

    click: Click = Click.WINDOW
    template: bool = False
    pointer: bool = False
    open_first: bool = False
    dark_bar: bool | None = None
    """Whether the bar that the icon is in is dark whatever the windows are; None: it is as they are."""


DARK_BARS: Final = frozenset({"gnome", "gnome-classic", "unity", "xfce", "pantheon", "budgie", "cinnamon"})
"""Desktops whose bar is dark by default, beside light windows too."""


def rules_of(system: str, window_system: str, desktop: str = "") -> TrayRules:
    """The rules of a platform.

    Args:
        system: As ``sys.platform`` has it.
        window_system: As Qt calls it: ``xcb``, ``wayland``, ``windows``, ``cocoa``, ``offscreen``.
        desktop: As ``XDG_CURRENT_DESKTOP`` has it.
    """
    dark = True if DARK_BARS & set(desktop.lower().split(":")) else None
    if system == "darwin":
        return TrayRules(click=Click.MENU, template=True)
    if system == "win32":
        return TrayRules(click=Click.PANEL, open_first=True)
    if window_system == "xcb":
        return TrayRules(click=Click.PANEL, pointer=True, dark_bar=dark)
    return TrayRules(dark_bar=dark)


def ordered(rows: tuple[Row, ...], rules: TrayRules) -> tuple[Row, ...]:
    """The menu's rows as the platform wants them."""
    if not rules.open_first:
        return rows
    opening = [row for row in rows if row.command is not None and row.command.name == "open"
               and row.command.subject == "now" and row.kind == "action"][-1:]  # fmt: skip
    if not opening:
        return rows
    rest = tuple(row if row is not opening[0] else None for row in rows)
    others = tuple(replace(row, bold=False) for row in rest if row is not None)
    return (replace(opening[0], bold=True), Row("separator"), *others)


def place_beside(anchor: QRect, screen: QRect, free: QRect, wanted: QSize, *, rtl: bool = False) -> QRect:
    """Where something of the wanted size goes beside a tray icon: away from the edge that the tray is at,
    centred on the icon, and inside of what windows may use. Without an edge nearby it goes into the corner
    where trays are.

    Args:
        anchor: The icon, or the point that was clicked.
        screen: The whole screen.
        free: What of it is left beside the desktop's own panels.
    """
    size = QSize(
        min(wanted.width(), free.width() - 2 * GAP),
        min(wanted.height(), max(LEAST_HEIGHT, free.height() - 2 * GAP)),
    )
    middle = anchor.center()
    away = {
        "top": middle.y() - screen.top(),
        "bottom": screen.bottom() - middle.y(),
        "left": middle.x() - screen.left(),
        "right": screen.right() - middle.x(),
    }
    # Trays are in horizontal bars nearly always: in a corner the horizontal one is meant.
    edge = min(away, key=lambda name: (away[name] > NEAR, name in ("left", "right"), away[name]))
    if away[edge] > NEAR:
        edge = "top" if free.top() > screen.top() else "bottom"
        outside = free.top() - 1 if edge == "top" else free.bottom() + 1
        middle = QPoint(free.left() if rtl else free.right(), outside)
        anchor = QRect(middle, QSize(1, 1))
    x, y = middle.x() - size.width() // 2, middle.y() - size.height() // 2
    match edge:
        case "top":
            y = max(free.top() - 1, anchor.bottom()) + 1 + GAP
        case "bottom":
            y = min(free.bottom() + 1, anchor.top()) - GAP - size.height()
        case "left":
            x = max(free.left() - 1, anchor.right()) + 1 + GAP
        case _:
            x = min(free.right() + 1, anchor.left()) - GAP - size.width()
    x = max(free.left() + GAP, min(x, free.right() + 1 - GAP - size.width()))
    y = max(free.top() + GAP, min(y, free.bottom() + 1 - GAP - size.height()))
    return QRect(QPoint(x, y), size)
