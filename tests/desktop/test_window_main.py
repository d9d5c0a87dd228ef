"""The window: pages when they are wanted, keys, names for those who do not see it, and the page "Now"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from PySide6.QtCore import QCoreApplication, QEvent, QObject, QPoint, QRect, Qt
from PySide6.QtGui import QFontMetrics, QGuiApplication, QPalette
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QApplication,
    QComboBox,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QWidget,
)
from pytestqt.qtbot import QtBot

from daemon_core.control.views import ChangeNote, Condition
from desktop.autostart import XdgAutostart
from desktop.commands import Command
from desktop.models.diff import rows_of
from desktop.models.requests import decode_answer, encode_answer
from desktop.models.settings import SettingsStore
from desktop.models.state import LinkPhase, Supervision
from desktop.text import LANGUAGES, choose_language
from desktop.theme import tokens
from desktop.theme.palette import Theme, body_font, sized
from desktop.windows.bits import GlyphLabel
from desktop.windows.changes import ChangesPane
from desktop.windows.diff_view import DiffView
from desktop.windows.history import HistoryPage
from desktop.windows.jobs import JobsPage
from desktop.windows.main import PAGES, MainWindow
from desktop.windows.now import NowPage
from desktop.windows.opening import Windows
from desktop.windows.panel import Panel
from desktop.windows.rail import AFTER, BEFORE
from desktop.windows.rail import NARROW as NARROW_RAIL
from desktop.windows.requests import RequestRow
from desktop.windows.settings_sections import SECTIONS
from desktop.windows.task import CHANGES, TRANSCRIPT, TaskPage
from tests.desktop import canned, canned_settings
from tests.desktop.conftest import Desk
from tests.desktop.hands import click, press

pytestmark = [
    pytest.mark.qt_log_level_fail("WARNING"),
    pytest.mark.qt_log_ignore("This plugin does not support"),  # the offscreen platform has no window manager
]
CTRL = Qt.KeyboardModifier.ControlModifier


@pytest.fixture
def window(qtbot: QtBot, desk: Desk) -> MainWindow:
    made = MainWindow(desk.context, desk.settings)
    qtbot.addWidget(made)
    made.open_page("now")
    made.show()
    qtbot.waitExposed(made)
    return made


def now_page(window: MainWindow) -> NowPage:
    page = window.page("now")
    assert isinstance(page, NowPage)
    return page


class Windowed(QObject):
    """What comes up as a window of its own."""

    def __init__(self, app: QApplication) -> None:
        super().__init__(app)
        self.seen: list[str] = []
        app.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() == QEvent.Type.Show and isinstance(watched, QWidget) and watched.isWindow():
            self.seen.append(type(watched).__name__)
        return False


def test_nothing_comes_up_for_a_moment_before_it_has_its_place(
    qapp: QApplication, desk: Desk, theme: Theme, tmp_path: Path
) -> None:
    """What is shown before a layout has it is a window for that moment, with a place in the task bar."""
    store = SettingsStore(desk.link)
    windows = Windows(desk.link, theme, desk.link.directories, desk.asked.append, store=store)
    windows.autostart = lambda: XdgAutostart(tmp_path / "autostart", [], [], "ostler", ["true"])
    store.tell(canned_settings.settings(tmp_path))
    low = Condition(code="disk_low", params={"path": "/home"}, since=canned.ago(60))
    desk.link.tell(**canned.connected(*canned.busy_rows(), conditions=(low,)))
    windowed = Windowed(qapp)
    try:
        for page in PAGES:
            windows.do(Command("open", page.name))
            QCoreApplication.processEvents()
        for section in SECTIONS:
            windows.do(Command("open", "settings", section.name))
            QCoreApplication.processEvents()
        windows.do(Command("open_task", "b1"))
        windows.do(Command("first_run"))
        QCoreApplication.processEvents()
        desk.link.tell(link=LinkPhase.HUNG)
        QCoreApplication.processEvents()
        assert windowed.seen == ["MainWindow", "FirstRunWindow"]
    finally:
        qapp.removeEventFilter(windowed)
        windows.close()


def test_pages_are_made_when_they_are_first_shown(qtbot: QtBot, window: MainWindow) -> None:
    assert list(window._pages) == ["now"]
    for number, page in enumerate(PAGES, 1):
        press(window, Qt.Key(int(Qt.Key.Key_0) + number), CTRL)
        assert window.page_name == page.name
        assert window.rail.buttons[page.name].isChecked()
    assert set(window._pages) == {page.name for page in PAGES}
    press(window, Qt.Key.Key_Escape)
    assert window.page_name == "now"


def test_ctrl_n_is_ready_to_be_told(qtbot: QtBot, window: MainWindow) -> None:
    window.open_page("history")
    press(window, Qt.Key.Key_N, CTRL)
    assert window.page_name == "now"
    assert window.focusWidget() is now_page(window).new_task.prompt


def test_a_narrow_window_shows_glyphs_alone(window: MainWindow) -> None:
    window.resize(730, 500)
    assert window.rail.width() == NARROW_RAIL
    window.resize(960, 640)
    assert window.rail.width() > NARROW_RAIL


def test_its_place_is_remembered(qtbot: QtBot, desk: Desk, window: MainWindow) -> None:
    window.resize(750, 520)
    window.close()
    again = MainWindow(desk.context, desk.settings)
    qtbot.addWidget(again)
    assert (again.width(), again.height()) == (750, 520)


def test_everything_that_can_be_focused_has_a_name(desk: Desk, window: MainWindow) -> None:
    desk.link.tell(**canned.connected(*canned.busy_rows()))
    now_page(window).needing.show_requests(canned.asking_view(canned.permission(), canned.question()))
    for page in PAGES:
        window.open_page(page.name)
    window.open_task("a1")
    kinds = (QAbstractButton, QLineEdit, QPlainTextEdit, QComboBox, QAbstractItemView)
    nameless = [
        found
        for kind in kinds
        for found in window.findChildren(kind)
        if found.focusPolicy() != Qt.FocusPolicy.NoFocus
        and not found.isHidden()
        and not found.accessibleName()
        and not (isinstance(found, QAbstractButton) and found.text())
        and found.objectName() not in ("qt_spinbox_lineedit", "ScrollLeftButton", "ScrollRightButton")
        and not isinstance(found.parent(), QLineEdit | QComboBox)
        and not (isinstance(found, QAbstractItemView) and type(found.parent()).__name__ != "QWidget")
    ]
    assert not nameless


def test_an_answer_is_one_click(qtbot: QtBot, desk: Desk, window: MainWindow) -> None:
    desk.link.tell(**canned.connected(*canned.busy_rows()))
    page = now_page(window)
    page.needing.show_requests(canned.asking_view(canned.permission(), canned.question()))
    permission, question = page.needing.findChildren(RequestRow)
    buttons = {button.text(): button for button in permission.findChildren(QPushButton)}
    assert list(buttons) == ["Allow once", "For this task", "Deny"]
    click(buttons["For this task"])
    assert desk.asked[-1] == Command("answer", "a1", "q1", "allow-task")
    assert not buttons["Deny"].isEnabled()  # an answer is given once
    option = question.findChildren(QPushButton)[1]
    click(option)
    assert decode_answer(desk.asked[-1].choice) == ("allow", "Postgres in a container")
    page.needing.show_requests(canned.asking_view())
    assert not page.needing._requests["a1"].isVisible()


def test_an_answer_in_words_travels_whole() -> None:
    for words in ("", 'yes, but\n only "here"', "é 中"):
        assert decode_answer(encode_answer("allow", words)) == ("allow", words)


def test_rows_are_changed_and_not_made_anew(desk: Desk, window: MainWindow) -> None:
    rows = canned.busy_rows()
    desk.link.tell(**canned.connected(*rows))
    page = now_page(window)
    assert list(page.active.lines) == ["b3", "b1", "b2"]
    line = page.active.lines["b1"]
    rows[1] = msgspec.structs.replace(rows[1], last_action="Edit", tool_calls=24)
    desk.link.tell(tasks={row.id: row for row in rows})
    assert page.active.lines["b1"] is line
    assert "Edit · 24 steps" in line._detail.text
    rows[1] = msgspec.structs.replace(rows[1], status="completed", ended_at=canned.ago(1))
    desk.link.tell(tasks={row.id: row for row in rows})
    assert "b1" not in page.active.lines
    assert page.ended._order[0] == "b1"


def test_a_row_is_opened_and_cancelled_by_keys(qtbot: QtBot, desk: Desk, window: MainWindow) -> None:
    desk.link.tell(**canned.connected(*canned.busy_rows()))
    line = now_page(window).active.lines["b1"]
    press(line, Qt.Key.Key_Return)
    press(line, Qt.Key.Key_Delete)
    assert desk.asked == [Command("open_task", "b1"), Command("cancel_task", "b1")]


def test_nothing_ticks_while_hidden_or_idle(desk: Desk, window: MainWindow) -> None:
    page = now_page(window)
    assert not page._tick.isActive()
    desk.link.tell(**canned.connected(*canned.busy_rows()))
    assert page._tick.isActive()
    window.open_page("history")
    assert not page._tick.isActive()
    window.open_page("now")
    assert page._tick.isActive()
    window.hide()
    assert not page._tick.isActive()


DOWN: list[tuple[dict[str, Any], str, Command | None]] = [
    ({"link": LinkPhase.CONNECTING}, "", None),
    ({"link": LinkPhase.ABSENT}, "Ostler's daemon is not running.", Command("start_daemon")),
    ({"link": LinkPhase.ABSENT, "supervision": Supervision.STARTING}, "Ostler is starting.", None),
    (
        {"link": LinkPhase.ABSENT, "supervision": Supervision.GAVE_UP, "said": "no room"},
        "Ostler's daemon stopped several times in a row.",
        Command("start_daemon"),
    ),
    ({"link": LinkPhase.HUNG}, "Ostler's daemon does not answer.", Command("restart_daemon")),
    (
        {"link": LinkPhase.FOREIGN},
        "Another program answers in the daemon's place.",
        Command("reconnect"),
    ),
]


@pytest.mark.parametrize(("told", "sentence", "action"), DOWN, ids=[case[1] or "calm" for case in DOWN])
def test_a_daemon_that_is_away_has_a_reason_and_one_action(
    qtbot: QtBot, desk: Desk, window: MainWindow, told: dict[str, Any], sentence: str, action: Command | None
) -> None:
    desk.link.tell(**told)
    strip = window.trouble
    assert strip.isVisible() == bool(sentence)
    if sentence:
        assert strip._sentence.text() == sentence
        assert strip.act.isVisible() == (action is not None)
    if action is not None:
        click(strip.act)
        assert desk.asked == [action]
    desk.link.tell(**canned.connected(supervision=Supervision.NONE))
    assert not strip.isVisible()


def test_health_says_what_is_wrong_and_what_to_do(desk: Desk, window: MainWindow) -> None:
    window.open_page("health")
    page = window.page("health")
    desk.link.tell(**canned.connected())
    assert page._sentence.text == "All is well"  # type: ignore[attr-defined]
    desk.link.tell(**canned.connected(conditions=(Condition(code="signed_out", params={"server": "x"}),)))
    assert window.rail.buttons["health"]._count == 1
    button = next(each for each in page.findChildren(QPushButton) if each.text() == "Sign in")
    button.click()
    assert desk.asked == [Command("sign_in", "x")]


def test_history_holds_to_the_rules_of_models(
    qtbot: QtBot, qtmodeltester: Any, desk: Desk, window: MainWindow
) -> None:
    window.open_page("history")
    page = window.page("history")
    assert isinstance(page, HistoryPage)
    qtmodeltester.check(page.model)
    rows = [canned.row(str(number), f"Task {number}", "completed") for number in range(300)]
    with qtbot.waitSignal(page.model.settled):
        page.model.show_tasks(rows)
    newest = canned.row("new", "The newest", created_at=canned.ago(0))
    page.model.update_task(newest)
    page.model.update_task(msgspec.structs.replace(rows[1], title="Another title"))
    assert page.model.tasks[0] is newest
    assert page.model.tasks[2].title == "Another title"
    qtmodeltester.check(page.model)
    page.model.show_tasks([])
    assert page.empty.isVisible()


def test_fifty_thousand_tasks_scroll(qtbot: QtBot, desk: Desk, window: MainWindow) -> None:
    window.open_page("history")
    page = window.page("history")
    assert isinstance(page, HistoryPage)
    page.model.show_tasks([canned.row(str(number), f"Task {number}", "failed") for number in range(50_000)])
    bar = page.list.verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() > 2_000_000)
    for place in range(0, bar.maximum(), bar.maximum() // 20):
        bar.setValue(place)
        page.list.viewport().grab()


def test_changes_are_a_list_and_a_diff(qtbot: QtBot, qtmodeltester: Any, desk: Desk) -> None:
    pane = ChangesPane(desk.context.colours)
    qtbot.addWidget(pane)
    pane.resize(800, 400)
    pane.show()
    pane.show_changes(canned.changes())
    qtmodeltester.check(pane.model)
    assert pane._sentence.text.startswith("5 files · +61")
    assert pane.diff._rows
    pane.files.setCurrentIndex(pane.model.index(4))
    assert "not text" in pane.diff._message
    pane.show_changes(canned.changes())  # the chosen file stays chosen
    assert pane.files.currentIndex().row() == 4
    pane.grab()


def test_a_task_shows_what_it_asks_and_goes_back(qtbot: QtBot, desk: Desk, window: MainWindow) -> None:
    desk.link.tell(**canned.connected(*canned.busy_rows(), link=LinkPhase.CONNECTING))
    window.open_page("history")
    window.open_task("a1")
    page = window.page("task")
    assert isinstance(page, TaskPage)
    page.show_task(canned.asking_view(canned.permission()))
    assert page.requests.isVisible()
    assert window.windowTitle() == "Fix login redirect · Ostler"
    assert "1 of 3 steps" in page.beside.text()
    page.beside.click()
    steps = [mark for mark in page.about.findChildren(GlyphLabel) if mark.accessibleName()]
    assert [mark.accessibleName() for mark in steps][:3] == ["done", "in progress", "to do"]
    page.tabs.setCurrentIndex(CHANGES)
    press(window, Qt.Key.Key_F, CTRL)
    assert page.tabs.currentIndex() == TRANSCRIPT
    assert window.focusWidget() is page.search.field
    press(page.search.field, Qt.Key.Key_Escape)
    assert not page.search.isVisible()
    press(page.transcript, Qt.Key.Key_Escape)
    assert window.page_name == "history"


def test_the_look_changes_live(desk: Desk, window: MainWindow) -> None:
    desk.link.tell(**canned.connected(*canned.busy_rows()))
    for page in PAGES:
        window.open_page(page.name)
    window.open_task("a1")
    try:
        desk.context.theme.choose("dark")
        window.open_page("now")
        dark = window.grab().toImage().pixelColor(400, 300).lightness()
    finally:
        desk.context.theme.choose("light")
    assert dark < 80
    assert window.grab().toImage().pixelColor(400, 300).lightness() > 180


def test_a_diff_is_copied_as_a_diff(qtbot: QtBot, desk: Desk) -> None:
    view = DiffView(desk.context.colours)
    qtbot.addWidget(view)
    view.resize(700, 500)
    view.show()
    view.show_rows(rows_of(canned.DIFF), "", "redirect.ts", canned.DIFF)
    press(view, Qt.Key.Key_C, CTRL)
    assert QGuiApplication.clipboard().text() == canned.DIFF
    line = view._line
    QTest.mousePress(view.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(200, 3 * line + 2))
    QTest.mouseMove(view.viewport(), QPoint(200, 4 * line + 2))
    QTest.mouseRelease(view.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(200, 4 * line + 2))
    press(view, Qt.Key.Key_C, CTRL)
    removed, added = QGuiApplication.clipboard().text().split("\n")
    assert removed == '-    return redirect("/sign-in");'
    assert added.startswith("+")
    press(view, Qt.Key.Key_End)
    assert view.verticalScrollBar().value() == view.verticalScrollBar().maximum()


def test_commits_and_what_is_not_shown_are_said(qtbot: QtBot, desk: Desk) -> None:
    pane = ChangesPane(desk.context.colours)
    qtbot.addWidget(pane)
    changes = msgspec.structs.replace(
        canned.changes(), notes=[ChangeNote(code="files_cut", params={"total": 900}), ChangeNote(code="new")]
    )
    pane.show_changes(changes)
    assert changes.commits[0].subject in pane._more.text()
    assert pane._more.text().endswith("900 files were changed; the first ones are shown.")


def test_a_key_begins_a_new_job_also_before_the_first(window: MainWindow) -> None:
    window._context.link.tell(**canned.connected())
    window.open_page("jobs")
    page = window.page("jobs")
    assert isinstance(page, JobsPage)
    press(page, Qt.Key.Key_N, CTRL | Qt.KeyboardModifier.ShiftModifier)
    assert page.detail.currentWidget() is page.new_job


def test_a_colour_given_before_a_page_has_its_place_stays(window: MainWindow, desk: Desk) -> None:
    desk.link.tell(**canned.connected())
    window.open_page("jobs")
    page = window.page("jobs")
    assert isinstance(page, JobsPage)
    found = page._empty_jobs.palette().color(QPalette.ColorRole.WindowText).name()
    assert found == desk.context.colours.muted.lower()


@pytest.mark.parametrize("wanted", LANGUAGES)
def test_words_of_every_language_have_room(qtbot: QtBot, desk: Desk, wanted: str) -> None:
    choose_language([wanted])
    try:
        window = MainWindow(desk.context, desk.settings)
        panel = Panel(desk.context, desk.settings)
        for widget in (window, panel):
            qtbot.addWidget(widget)
        desk.link.tell(**canned.connected(*canned.busy_rows()))
        panel.come_up(lambda size: QRect(QPoint(0, 0), size))
        panel.needing.show_requests(canned.asking_view(canned.permission()))
        metrics = QFontMetrics(sized(body_font(), tokens.BODY, strong=True))
        for button in window.rail.buttons.values():
            room = window.rail.width() - 2 * tokens.GRID - BEFORE - AFTER
            assert metrics.horizontalAdvance(button.text()) <= room
        qtbot.waitUntil(lambda: panel._inner.width() > 0)
        assert panel._inner.minimumSizeHint().width() <= panel._area.viewport().width()
        answers = [each for each in panel.needing.findChildren(QPushButton) if each.isVisible()]
        assert len(answers) == 3
        for each in answers:
            assert each.mapTo(panel, each.rect().topRight()).x() < panel.width()
    finally:
        choose_language(["en"])
