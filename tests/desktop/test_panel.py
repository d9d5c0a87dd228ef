"""The panel at the tray: where it goes, what is in it, when it leaves; and what a platform's tray allows."""

from __future__ import annotations

from typing import Any

import pytest
from PySide6.QtCore import QPoint, QRect, QSize, Qt
from PySide6.QtWidgets import QPushButton, QWidget
from pytestqt.qtbot import QtBot

from desktop.commands import Command
from desktop.models.state import LinkPhase, Supervision
from desktop.tray.rules import Click, ordered, place_beside, rules_of
from desktop.tray.view import tray_view
from desktop.windows import requests
from desktop.windows.panel import HEIGHT, WIDTH, Panel
from tests.desktop import canned
from tests.desktop.conftest import Desk
from tests.desktop.hands import click, press
from tests.desktop.test_tray_view import state
from tests.desktop.test_window_daemon import WAIT_MS

pytestmark = [
    pytest.mark.qt_log_level_fail("WARNING"),
    pytest.mark.qt_log_ignore("This plugin does not support"),  # the offscreen platform has no window manager
]
SCREEN = QRect(0, 0, 1920, 1080)
SIZE = QSize(400, 560)


def here(size: QSize) -> QRect:
    return QRect(QPoint(50, 60), size)


@pytest.fixture
def panel(qtbot: QtBot, desk: Desk) -> Panel:
    made = Panel(desk.context, desk.settings)
    qtbot.addWidget(made)
    desk.link.tell(**canned.connected(*canned.busy_rows()))
    made.come_up(here)
    qtbot.waitExposed(made)
    return made


BARS: list[tuple[str, QRect, QRect, QRect]] = [
    # name, icon, what windows may use, where it goes
    ("top, by geometry", QRect(1500, 4, 24, 24), QRect(0, 32, 1920, 1048), QRect(1311, 40, 400, 560)),
    ("top right, by pointer", QRect(1900, 10, 1, 1), QRect(0, 32, 1920, 1048), QRect(1512, 40, 400, 560)),
    ("bottom", QRect(1700, 1050, 24, 24), QRect(0, 0, 1920, 1040), QRect(1511, 472, 400, 560)),
    ("top, a host without struts", QRect(900, 0, 32, 32), SCREEN, QRect(715, 40, 400, 560)),
    ("left", QRect(4, 500, 24, 24), QRect(48, 0, 1872, 1080), QRect(56, 231, 400, 560)),
    ("right", QRect(1890, 500, 24, 24), QRect(0, 0, 1872, 1080), QRect(1464, 231, 400, 560)),
    ("nowhere near an edge", QRect(800, 500, 1, 1), QRect(0, 0, 1920, 1040), QRect(1512, 472, 400, 560)),
    ("the same below a bar", QRect(800, 500, 1, 1), QRect(0, 32, 1920, 1048), QRect(1512, 40, 400, 560)),
]


@pytest.mark.parametrize(
    ("anchor", "free", "wanted"), [bar[1:] for bar in BARS], ids=[bar[0] for bar in BARS]
)
def test_it_stands_beside_the_icon_inside_of_the_screen(anchor: QRect, free: QRect, wanted: QRect) -> None:
    found = place_beside(anchor, SCREEN, free, SIZE)
    assert found == wanted
    assert free.contains(found)


def test_a_small_screen_gets_a_smaller_panel_and_rtl_the_other_corner() -> None:
    small = QRect(0, 0, 640, 480)
    found = place_beside(QRect(600, 470, 1, 1), small, QRect(0, 0, 640, 450), SIZE)
    assert QRect(0, 0, 640, 450).contains(found)
    assert found.height() < SIZE.height()
    assert place_beside(QRect(800, 500, 1, 1), SCREEN, SCREEN, SIZE, rtl=True).left() == 8
    second = QRect(1920, 0, 1280, 1024)
    assert second.contains(place_beside(QRect(3000, 5, 20, 20), second, second, SIZE))


def test_what_each_platform_allows() -> None:
    x11 = rules_of("linux", "xcb")
    assert (x11.click, x11.pointer, x11.template) == (Click.PANEL, True, False)
    wayland = rules_of("linux", "wayland")
    assert (wayland.click, wayland.pointer) == (Click.WINDOW, False)
    mac = rules_of("darwin", "cocoa")
    assert (mac.click, mac.template) == (Click.MENU, True)
    assert (x11.dark_bar, rules_of("linux", "xcb", "ubuntu:GNOME").dark_bar) == (None, True)
    windows = rules_of("win32", "windows")
    assert (windows.click, windows.pointer, windows.open_first) == (Click.PANEL, False, True)


def test_the_menu_begins_with_open_where_a_double_click_does_that() -> None:
    rows = tray_view(state()).rows
    assert ordered(rows, rules_of("linux", "xcb")) == rows
    first, line, *rest = ordered(rows, rules_of("win32", "windows"))
    assert (first.text, first.bold, line.kind) == ("Open Ostler", True, "separator")
    assert sum(row.bold for row in rest) == 0
    assert [row.text for row in rest] == [row.text for row in rows if row.text != "Open Ostler"]


def test_answers_come_first_and_are_one_click(desk: Desk, panel: Panel) -> None:
    panel.needing.show_requests(canned.asking_view(canned.permission()))
    buttons = {each.text(): each for each in panel.needing.findChildren(QPushButton) if each.isVisible()}
    click(buttons["Allow once"])
    assert desk.asked == [Command("answer", "a1", "q1", "allow")]
    assert panel.isVisible()  # an answer is not leaving
    tops = [section.mapTo(panel, QPoint(0, 0)).y() for section in (panel.needing, panel.active, panel.ended)]
    assert tops == sorted(tops)


def test_opening_a_task_makes_room_for_the_window(desk: Desk, panel: Panel) -> None:
    press(panel.active.lines["b1"], Qt.Key.Key_Delete)
    assert panel.isVisible()
    press(panel.active.lines["b1"], Qt.Key.Key_Return)
    assert not panel.isVisible()
    assert desk.asked == [Command("cancel_task", "b1"), Command("open_task", "b1")]


def test_its_menu_opens_the_window_and_pauses(desk: Desk, panel: Panel) -> None:
    panel.menu.aboutToShow.emit()
    rows = {action.text(): action for action in panel.menu.actions() if action.text()}
    rows["Take no new tasks for an hour"].trigger()
    assert panel.isVisible()
    rows["Open the window"].trigger()
    assert not panel.isVisible()
    assert desk.asked == [Command("pause", detail="1h"), Command("open", "now")]


def test_escape_and_a_second_click_close_it(qtbot: QtBot, panel: Panel) -> None:
    assert panel.new_task.prompt.hasFocus() or panel.isAncestorOf(panel.focusWidget())
    press(panel, Qt.Key.Key_Escape)
    assert not panel.isVisible()
    panel.toggle(here)  # the click that took the focus away is not one to open it
    assert not panel.isVisible()
    qtbot.waitUntil(lambda: panel._closed_at.hasExpired(250))
    panel.toggle(here)
    assert panel.isVisible()
    panel.toggle(here)
    assert not panel.isVisible()


def test_it_is_as_high_as_what_is_in_it(qtbot: QtBot, desk: Desk, panel: Panel) -> None:
    assert (panel.width(), panel.height()) == (WIDTH, HEIGHT)
    assert panel.pos() == QPoint(50, 60)
    desk.link.tell(**canned.connected())
    qtbot.waitUntil(lambda: panel.height() < HEIGHT)
    assert panel.pos() == QPoint(50, 60)


def test_nothing_ticks_while_it_is_away(desk: Desk, panel: Panel) -> None:
    assert panel._tick.isActive()
    panel.close()
    assert not panel._tick.isActive()
    desk.link.tell(**canned.connected(*canned.busy_rows()[:2]))
    assert not panel._tick.isActive()


def test_a_daemon_that_is_away_is_said_with_one_action(desk: Desk, panel: Panel) -> None:
    desk.link.tell(link=LinkPhase.ABSENT, supervision=Supervision.GAVE_UP, said="no room")
    assert panel.act.isVisible()
    assert panel._wrong.text() == "Ostler's daemon stopped several times in a row."
    assert "no room" in panel._trouble.text()
    click(panel.act)
    assert desk.asked == [Command("start_daemon")]
    panel.new_task.prompt.setText("Written meanwhile")
    assert not panel.new_task.button.isEnabled()


def test_a_task_needs_words_and_a_daemon(desk: Desk, panel: Panel, monkeypatch: Any) -> None:
    box = panel.new_task
    assert [box.agent.itemText(at) for at in range(box.agent.count())] == ["Claude Code", "Codex"]
    assert not box.button.isEnabled()
    box.prompt.setText("Tidy up")
    assert box.button.isEnabled()
    desk.link.tell(link=LinkPhase.HUNG)
    assert not box.button.isEnabled()


def test_everything_in_it_has_a_name(panel: Panel) -> None:
    panel.needing.show_requests(canned.asking_view(canned.permission(), canned.question()))
    nameless = [
        found
        for found in panel.findChildren(QWidget)
        if found.focusPolicy() & Qt.FocusPolicy.TabFocus
        and found.isVisible()
        and not found.accessibleName()
        and not getattr(found, "text", str)()
    ]
    assert nameless == []


def test_an_answer_that_was_not_taken_can_be_given_again(
    qtbot: QtBot, desk: Desk, panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "SETTLED_MS", 50)
    panel.needing.show_requests(canned.asking_view(canned.permission()))
    (allow,) = [each for each in panel.needing.findChildren(QPushButton) if each.text() == "Allow once"]
    click(allow)
    assert not allow.isEnabled(), "one click is one answer"
    qtbot.waitUntil(allow.isEnabled, timeout=WAIT_MS)


def test_what_was_refused_is_said_in_the_panel(desk: Desk, panel: Panel) -> None:
    assert not panel._told.isVisible()
    panel.tell("The task does not allow it in its present state.")
    assert panel._told.isVisible()
    panel.close()
    panel.come_up(here)
    assert not panel._told.isVisible()
