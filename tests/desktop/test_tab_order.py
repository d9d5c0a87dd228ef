"""Tab goes through a page as one reads it, and everything on it is reached."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from desktop.windows.jobs import JobsPage
from desktop.windows.main import MainWindow
from desktop.windows.task import TaskPage
from tests.desktop import canned
from tests.desktop.conftest import Desk

pytestmark = [
    pytest.mark.qt_log_level_fail("WARNING"),
    pytest.mark.qt_log_ignore("This plugin does not support"),
]


@pytest.fixture
def window(qtbot: QtBot, desk: Desk) -> MainWindow:
    made = MainWindow(desk.context, desk.settings)
    qtbot.addWidget(made)
    made.show()
    made.activateWindow()
    qtbot.waitActive(made)
    return made


def walk(window: QWidget, first: QWidget, steps: int) -> list[str]:
    """The names of what Tab comes to, from ``first`` on."""
    first.setFocus()
    names = []
    for _step in range(steps):
        focused = QApplication.focusWidget()
        assert focused is not None
        assert window.isAncestorOf(focused)
        assert focused.isVisible()
        text = getattr(focused, "text", None)
        names.append(focused.accessibleName() or (text() if callable(text) else ""))
        QTest.keyClick(focused, Qt.Key.Key_Tab)
    return names


def test_what_a_task_asks_comes_before_what_it_said(qtbot: QtBot, desk: Desk, window: MainWindow) -> None:
    desk.link.tell(**canned.connected(*canned.busy_rows()))
    window.open_task("a1")
    page = window.page("task")
    assert isinstance(page, TaskPage)
    page.show_task(canned.asking_view(canned.permission()))
    qtbot.waitUntil(lambda: page.requests.isVisible(), timeout=5_000)
    names = walk(window, page._cancel, 9)
    assert names[:4] == ["Cancel", "Allow once", "For this task", "Deny"]
    assert names.index("Parts of the task") < names.index("Transcript")
    assert names[-1] == "Reply, and it goes on in the same conversation"


def test_every_button_of_the_jobs_is_reached(qtbot: QtBot, desk: Desk, window: MainWindow) -> None:
    desk.link.tell(**canned.connected(jobs=canned.jobs(), residents=canned.residents()))
    window.open_page("jobs")
    page = window.page("jobs")
    assert isinstance(page, JobsPage)
    page.choose("resident mail")
    qtbot.waitUntil(lambda: page.resident.isVisible(), timeout=5_000)
    names = walk(window, page.list, 9)
    assert names[0] == "Jobs and residents"
    assert {"New job…", "Start again", "Stop", "Output"} <= set(names)
