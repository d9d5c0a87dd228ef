"""The icon in the tray, kept up to date with a ``TrayView``.

Traps of the platforms that are handled here:

- ``isVisible`` is true with no tray at all: only ``isSystemTrayAvailable`` counts.
- An icon that was made before the StatusNotifier host came is stuck on the old protocol and never seen by the
  host. Hiding and showing does not help; a new icon does, made shortly after the host's name appears on the
  bus.
- Over D-Bus the menu's ids change with every rebuild, and a host that has it open would act on old ones: an
  equal menu is never rebuilt, and texts that only count time are refreshed when the menu is about to show.
- An open menu that Qt draws would be changed under the pointer: while it is open its rows stay what they are.
- Whatever the icon is given goes to the host over D-Bus, with pictures of all sizes, also if it is the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final

from PySide6.QtCore import QEvent, QObject, QRect, QSize, QTimer, Signal
from PySide6.QtGui import QAction, QColor, QCursor, QGuiApplication, QIcon
from PySide6.QtWidgets import QMenu, QSystemTrayIcon

from desktop.commands import Command
from desktop.theme.mark import Shape, tray_icon
from desktop.tray.rules import Click, TrayRules, ordered, place_beside, rules_of
from desktop.tray.view import Row, TrayView

WATCHER_NAME: Final = "org.kde.StatusNotifierWatcher"
OPEN_MS: Final = 30_000
"""Not every host tells when it has closed the menu: after this time it counts as closed."""
SETTLE_MS: Final = 200
"""After the host's name appears: so long until it takes registrations. Measured."""


class _Icon(QSystemTrayIcon):
    """The system's icon. It is told of a tooltip that is about to show where the icon is a window of ours;
    over D-Bus the host has the text already and tells nobody that it shows it."""

    hovered = Signal()

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ToolTip:
            self.hovered.emit()
        return super().event(event)


class TrayIcon(QObject):
    """The tray icon. Without any tray on this desktop ``available`` is false and nothing is shown.

    Signals:
        chosen(Command): A row of the menu was chosen.
        activated(bool): The icon was clicked, and what that opens is ours to show; True: clicked twice.
        availability_changed(bool): A tray came or went.
        opened(): The menu or the tooltip is about to be looked at.
    """

    opened = Signal()
    chosen = Signal(object)
    activated = Signal(bool)
    availability_changed = Signal(bool)

    def __init__(
        self, fresh: Callable[[], TrayView], colour: Callable[[], QColor], parent: QObject | None = None
    ) -> None:
        """``fresh`` gives the view as it is now; it is asked when the menu is about to show."""
        super().__init__(parent)
        self._fresh = fresh
        self._colour = colour
        self._icon_of: tuple[Shape, str] | None = None
        self._drawn = QIcon()
        self._view: TrayView | None = None
        self._shown: tuple[QIcon, str] | None = None
        """What the system was given; each time it is given something it passes it on to the host."""
        self._open = False
        self._menu = QMenu()
        self._menu.aboutToShow.connect(self._on_about_to_show)
        self._menu.aboutToHide.connect(self._on_about_to_hide)
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(OPEN_MS)
        self._patience.timeout.connect(self._on_about_to_hide)
        self.rules: TrayRules = rules_of(
            sys.platform, QGuiApplication.platformName(), os.environ.get("XDG_CURRENT_DESKTOP", "")
        )
        self._rows: tuple[Row, ...] = ()
        self._actions: list[QAction] = []
        # A host that comes and goes several times at once is a host that came.
        self._came = _settling(self, self._renew)
        self._went = _settling(self, self._say_availability)
        self._tray = self._make()
        self._available = QSystemTrayIcon.isSystemTrayAvailable()
        self._watcher: QObject | None = self._watch_host()

    @property
    def available(self) -> bool:
        """Whether there is a tray to be seen in."""
        return QSystemTrayIcon.isSystemTrayAvailable()

    @property
    def cut_off(self) -> bool:
        """Whether the bus that the icon was on is gone for good: Qt connects to one in a life and no more."""
        if self._watcher is None:
            return False
        from PySide6.QtDBus import QDBusConnection

        return not QDBusConnection.sessionBus().isConnected()

    def show(self, view: TrayView) -> None:
        """Show this from now on."""
        self._view = view
        self._dress()
        self._build(ordered(view.rows, self.rules))
        _show_number(view.count)
        self._tray.show()

    def repaint(self) -> None:
        """The panel's or our colours changed."""
        if self._view is not None:
            self._dress()

    def tell(self, title: str, text: str) -> None:
        """A balloon, where nothing better can be had."""
        self._tray.showMessage(title, text, self._tray.icon())

    def hide(self) -> None:
        _show_number(0)
        self._tray.hide()

    def place(self) -> Callable[[QSize], QRect] | None:
        """Where something goes that belongs beside the icon, by its size; None where nobody can tell.

        To be asked right after a click: where the host tells no geometry, the pointer is where the icon is.
        """
        if self.rules.click is not Click.PANEL:
            return None
        anchor = self._tray.geometry()
        if anchor.isEmpty():
            if not self.rules.pointer:
                return None
            anchor = QRect(QCursor.pos(), QSize(1, 1))
        screen = QGuiApplication.screenAt(anchor.center()) or QGuiApplication.primaryScreen()
        whole, free = screen.geometry(), screen.availableGeometry()
        rtl = QGuiApplication.isRightToLeft()
        return lambda wanted: place_beside(anchor, whole, free, wanted, rtl=rtl)

    # --- icon --------------------------------------------------------------------------------------

    def _make(self) -> QSystemTrayIcon:
        tray = _Icon(self)
        tray.setContextMenu(self._menu)
        tray.hovered.connect(self.opened)
        tray.activated.connect(self._on_activated)
        return tray

    def _dress(self) -> None:
        """Icon and tooltip as the view wants them, where they are others than before."""
        view = self._view
        assert view is not None
        icon = self._icon(view.shape)
        if self._shown is None or self._shown[0] is not icon:
            self._tray.setIcon(icon)
        if self._shown is None or self._shown[1] != view.tooltip:
            self._tray.setToolTip(view.tooltip)
        self._shown = (icon, view.tooltip)

    def _icon(self, shape: Shape) -> QIcon:
        colour = self._colour()
        key = (shape, colour.name())
        if key != self._icon_of:
            self._drawn = tray_icon(shape, colour)
            self._drawn.setIsMask(self.rules.template)
            self._icon_of = key
        return self._drawn

    def _on_activated(self, reason: QSystemTrayIcon.ActivationReason) -> None:
        if self.rules.click is Click.MENU:
            return  # the platform shows the menu for every click
        if reason is QSystemTrayIcon.ActivationReason.Trigger:
            self.activated.emit(False)
        elif reason is QSystemTrayIcon.ActivationReason.DoubleClick:
            self.activated.emit(True)

    def _watch_host(self) -> QObject | None:
        if not sys.platform.startswith("linux"):
            return None
        from PySide6.QtDBus import QDBusConnection, QDBusServiceWatcher

        bus = QDBusConnection.sessionBus()
        if not bus.isConnected():
            return None
        watcher = QDBusServiceWatcher(
            WATCHER_NAME, bus, QDBusServiceWatcher.WatchModeFlag.WatchForOwnerChange, self
        )
        watcher.serviceRegistered.connect(self._on_host_came)
        watcher.serviceUnregistered.connect(self._on_host_changed)
        return watcher

    def _on_host_came(self, _name: str) -> None:
        self._came.start()

    def _on_host_changed(self, _name: str) -> None:
        self._went.start()

    def _renew(self) -> None:
        """A new icon in the place of one that the host does not know."""
        old, self._tray = self._tray, self._make()
        self._shown = None
        if self._view is not None:
            self._dress()
            self._tray.show()
        old.hide()
        old.deleteLater()
        self._say_availability()

    def _say_availability(self) -> None:
        available = self.available
        if available != self._available:
            self._available = available
            self.availability_changed.emit(available)

    # --- menu --------------------------------------------------------------------------------------

    def _on_about_to_show(self) -> None:
        self._open = False
        self._build(ordered(self._fresh().rows, self.rules))
        self._open = True
        self._patience.start()
        self.opened.emit()

    def _on_about_to_hide(self) -> None:
        """Closed, or open for so long that its host has most likely not told of its end."""
        self._patience.stop()
        if self._open:
            self._open = False
            self._build(ordered(self._fresh().rows, self.rules))

    def _build(self, rows: tuple[Row, ...]) -> None:
        if rows == self._rows:
            return
        if self._open and [row.command for row in _flat(rows)] != [row.command for row in _flat(self._rows)]:
            return  # no row becomes another one under the pointer
        if _same_shape(rows, self._rows):
            self._retext(rows)
        else:
            self._menu.clear()
            self._actions = []
            self._fill(self._menu, rows)
        self._rows = rows

    def _fill(self, menu: QMenu, rows: tuple[Row, ...]) -> None:
        for row in rows:
            if row.kind == "separator":
                menu.addSeparator()
                continue
            if row.kind == "menu":
                inner = menu.addMenu(_plain(row.text))
                action = inner.menuAction()
                self._actions.append(action)
                self._fill(inner, row.rows)
            else:
                action = menu.addAction(_plain(row.text))
                action.setEnabled(row.kind == "action")
                action.setData(row.command)
                action.triggered.connect(self._on_triggered)
                self._actions.append(action)
            if row.bold:
                font = action.font()
                font.setBold(True)
                action.setFont(font)

    def _retext(self, rows: tuple[Row, ...]) -> None:
        for action, row in zip(self._actions, _flat(rows), strict=True):
            if action.text() != _plain(row.text):
                action.setText(_plain(row.text))
            if row.kind != "menu":
                action.setData(row.command)

    def _on_triggered(self) -> None:
        action = self.sender()
        command = action.data() if isinstance(action, QAction) else None
        if isinstance(command, Command):
            self.chosen.emit(command)


def _settling(parent: QObject, slot: Callable[[], None]) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(SETTLE_MS)
    timer.timeout.connect(slot)
    return timer


def _show_number(count: int) -> None:
    """At the program's icon where the platform shows one: docks over D-Bus and on macOS, the task bar of
    Windows. Elsewhere it does nothing."""
    app = QGuiApplication.instance()
    if isinstance(app, QGuiApplication):
        app.setBadgeNumber(count)


def _flat(rows: tuple[Row, ...]) -> list[Row]:
    """The rows that have an action, in the order in which they are made."""
    found: list[Row] = []
    for row in rows:
        if row.kind != "separator":
            found.append(row)
            found += _flat(row.rows)
    return found


def _same_shape(first: tuple[Row, ...], second: tuple[Row, ...]) -> bool:
    """Whether only texts and commands differ."""
    return len(first) == len(second) and all(
        (a.kind, a.bold) == (b.kind, b.bold) and _same_shape(a.rows, b.rows)
        for a, b in zip(first, second, strict=True)
    )


def _plain(text: str) -> str:
    """Menus take a single ampersand for a keyboard mark."""
    return text.replace("&", "&&")
