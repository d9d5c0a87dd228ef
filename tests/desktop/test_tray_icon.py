"""The icon's own behaviour, on a screen that shows nothing."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import QCoreApplication, QEvent, QPoint
from PySide6.QtGui import QColor, QHelpEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from desktop.commands import Command
from desktop.theme.mark import Shape
from desktop.tray.icon import TrayIcon
from desktop.tray.view import Row, TrayView
from desktop.tray.waiting import TrayPatience


def view(*titles: str) -> TrayView:
    rows = tuple(Row("action", title, Command("open_task", title)) for title in titles)
    return TrayView(Shape.WORKING, len(titles), "Ostler: busy.", rows)


def test_an_open_menu_is_not_changed_under_the_pointer(qapp: QApplication) -> None:
    now = view("a", "b")
    tray = TrayIcon(lambda: now, lambda: QColor("black"))

    def rows() -> list[str]:
        return [action.text() for action in tray._menu.actions()]

    looked: list[None] = []
    tray.opened.connect(lambda: looked.append(None))
    tray.show(now)
    tray._menu.aboutToShow.emit()
    assert looked == [None]
    later = replace(now, rows=(replace(now.rows[0], text="a  0:32"), now.rows[1]))
    tray.show(later)
    assert rows() == ["a  0:32", "b"]  # it counts on
    now = view("b", "c")
    tray.show(now)
    assert rows() == ["a  0:32", "b"]
    now = view("c")
    tray.show(now)
    assert rows() == ["a  0:32", "b"]
    tray._menu.aboutToHide.emit()
    assert rows() == ["c"]
    now = view("d")
    tray.show(now)
    assert rows() == ["d"]
    tray.hide()


def test_a_tooltip_is_a_look(qapp: QApplication) -> None:
    """Where the icon is a window of ours, Qt hands it the event."""
    tray = TrayIcon(lambda: view("a"), lambda: QColor("black"))
    looked: list[None] = []
    tray.opened.connect(lambda: looked.append(None))
    QCoreApplication.sendEvent(tray._tray, QHelpEvent(QEvent.Type.ToolTip, QPoint(), QPoint()))
    assert looked == [None]


def test_a_tray_that_comes_late_is_waited_for(qtbot: QtBot) -> None:
    there = True
    alone: list[None] = []
    patience = TrayPatience(lambda: there, patience_ms=1)
    patience.alone.connect(lambda: alone.append(None))
    patience.begin()
    qtbot.waitUntil(lambda: not patience.waiting)
    assert alone == []
    there = False
    with qtbot.waitSignal(patience.alone):
        patience.begin()
