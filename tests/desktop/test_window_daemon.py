"""The windows against a real daemon with real tasks: started, watched, answered, continued, found again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtWidgets import QPushButton
from pytestqt.qtbot import QtBot

from daemon_core.control.errors import ControlError
from desktop.commands import Command
from desktop.daemon.link import Link
from desktop.models.transcript import Kind
from desktop.theme.palette import Theme
from desktop.windows.history import HistoryPage
from desktop.windows.now import NowPage
from desktop.windows.opening import Windows
from desktop.windows.requests import RequestRow
from desktop.windows.task import CHANGES, TaskPage
from tests.desktop.hands import click, press
from tests.end_to_end.home import OstlerHome
from tests.support.scripted_agent import script

pytestmark = [
    pytest.mark.qt_log_level_fail("WARNING"),
    pytest.mark.qt_log_ignore("This plugin does not support"),  # the offscreen platform has no window manager
    pytest.mark.skipif(sys.platform == "win32", reason="the control API is a unix socket here"),
]
WAIT_MS = 40_000


class LiveDesk:
    """The windows of a desktop, over the daemon of a home."""

    def __init__(self, home: OstlerHome, theme: Theme) -> None:
        self.home = home
        self.link = Link(home.directories)
        self.other: list[Command] = []
        self.windows = Windows(self.link, theme, home.directories, self.do)

    def do(self, command: Command) -> None:
        if command.name in ("cancel_task",):
            self.other.append(command)
            self.link.call(object, "POST", f"/v1/tasks/{command.subject}/cancel")
        elif command.name in ("runtime_on", "runtime_off"):
            what = command.name.removeprefix("runtime_")
            self.link.call(object, "POST", f"/v1/runtimes/{command.subject}/{what}")
        else:
            self.windows.do(command)

    @property
    def now(self) -> NowPage:
        page = self.windows.main.page("now")
        assert isinstance(page, NowPage)
        return page

    @property
    def task(self) -> TaskPage:
        page = self.windows.main.page("task")
        assert isinstance(page, TaskPage)
        return page

    @property
    def history(self) -> HistoryPage:
        page = self.windows.main.page("history")
        assert isinstance(page, HistoryPage)
        return page

    def said(self) -> str:
        return "\n".join(text for item in self.task.transcript.transcript.items for text in item.plain())


@contextmanager
def live_at(qtbot: QtBot, home: OstlerHome, theme: Theme, page: str) -> Iterator[LiveDesk]:
    """The daemon of a home started, and a desktop over it at a page."""
    home.start()
    made = LiveDesk(home, theme)
    made.link.start()
    qtbot.waitUntil(lambda: made.link.state.connected, timeout=WAIT_MS)
    made.windows.do(Command("open", page))
    qtbot.addWidget(made.windows.main)
    yield made
    made.windows.close()
    made.link.stop()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    made = OstlerHome(tmp_path, environ={"OSTLER_PERMISSIONS_DEFAULT": "ask"})
    yield made
    made.close()


@pytest.fixture
def live(qtbot: QtBot, home: OstlerHome, theme: Theme) -> Iterator[LiveDesk]:
    with live_at(qtbot, home, theme, "now") as opened:
        yield opened


def test_a_task_from_the_box_to_its_end(qtbot: QtBot, live: LiveDesk, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    prompt = script(
        {"thinking": "Where to begin?"},
        {"text": "I begin."},
        {"tool": {"name": "Bash", "input": {"command": "ls"}, "output": "a\nb", "id": "t1"}},
        {"wait_for": str(gate)},
        {"text": "It is done."},
    )
    box = live.now.new_task
    qtbot.waitUntil(lambda: box.agent.count() > 0, timeout=WAIT_MS)
    box.agent.setCurrentIndex(box.agent.findData("runtime claude"))
    box.prompt.setPlainText(prompt)
    press(box.prompt, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: live.windows.main.page_name == "task", timeout=WAIT_MS)
    qtbot.waitUntil(lambda: "a\nb" in live.said(), timeout=WAIT_MS)
    assert box.prompt.toPlainText() == ""
    kinds = [item.kind for item in live.task.transcript.transcript.items]
    assert kinds == [Kind.SAID, Kind.THINKING, Kind.TEXT, Kind.STEPS]
    gate.touch()
    qtbot.waitUntil(lambda: live.task.feed.complete, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: live.task._retry.isVisible(), timeout=WAIT_MS)
    assert "It is done." in live.said()
    # the conversation goes on in a task of its own
    before = live.task.task_id
    live.task.reply.setPlainText("And now?")
    click(live.task.send)
    qtbot.waitUntil(lambda: live.task.task_id != before, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: "You said: And now?" in live.said(), timeout=WAIT_MS)
    live.windows.main.open_page("now")
    qtbot.waitUntil(lambda: before in live.now.ended.lines, timeout=WAIT_MS)


def test_a_question_is_answered_on_the_page(qtbot: QtBot, live: LiveDesk) -> None:
    task = live.home.add(script({"ask": {"tool": "Bash", "input": {"command": "rm -rf build"}}}))
    qtbot.waitUntil(lambda: bool(live.now.needing.findChildren(RequestRow)), timeout=WAIT_MS)
    row = live.now.needing.findChildren(RequestRow)[0]
    button = next(each for each in row.findChildren(QPushButton) if each.text() == "Allow once")
    click(button)
    qtbot.waitUntil(lambda: task in live.now.ended.lines, timeout=WAIT_MS)
    assert live.home.task(task)["status"] == "completed"
    assert "allow" in live.home.text(task)


def test_a_transcript_goes_on_over_the_death_of_the_daemon(
    qtbot: QtBot, live: LiveDesk, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    task = live.home.add(
        script({"lines": 6000, "text": "before {n}"}, {"wait_for": str(gate)}, {"text": "after"})
    )
    live.home.wait(task, "running")
    qtbot.waitUntil(lambda: live.home.task(task)["messages"] >= 6000, timeout=WAIT_MS)
    live.windows.do(Command("open_task", task))
    qtbot.waitUntil(lambda: "before 6000" in live.said(), timeout=WAIT_MS)
    live.home.kill()
    qtbot.waitUntil(lambda: not live.link.state.connected, timeout=WAIT_MS)
    assert live.windows.main.trouble.isVisible()
    live.home.start()
    qtbot.waitUntil(lambda: live.link.state.connected, timeout=WAIT_MS)
    gate.touch()
    qtbot.waitUntil(lambda: live.task.feed.complete, timeout=WAIT_MS)
    lines = [line for line in live.said().split() if line.isdigit()]
    assert lines == [str(number) for number in range(1, 6001)]
    assert "after" in live.said()


def test_what_a_task_changed_is_shown(qtbot: QtBot, live: LiveDesk, tmp_path: Path) -> None:
    place = tmp_path / "project"
    place.mkdir()
    (place / "a.txt").write_text("one\ntwo\n")
    task = live.home.add(
        script({"append": {"path": str(place / "a.txt"), "text": "three\n"}}), directory=str(place)
    )
    live.home.wait(task)
    live.windows.do(Command("open_task", task))
    qtbot.waitUntil(lambda: live.task.feed.complete, timeout=WAIT_MS)
    live.task.tabs.setCurrentIndex(CHANGES)
    qtbot.waitUntil(lambda: bool(live.task.changes.diff._rows), timeout=WAIT_MS)
    assert [row.text for row in live.task.changes.diff._rows if row.kind == "added"] == ["three"]
    assert live.link.state.tasks[task].changed_files == 1
    live.windows.do(Command("open", "history"))
    qtbot.waitUntil(lambda: bool(live.history.model.tasks), timeout=WAIT_MS)
    assert [each.changed_files for each in live.history.model.tasks] == [1]


def test_history_is_paged_searched_and_filtered(qtbot: QtBot, live: LiveDesk) -> None:
    home = live.home
    tasks = [home.add(f"number {number}", title=f"Task {number} of_all") for number in range(7)]
    for task in tasks:
        home.wait(task, "completed")
    failing = home.add(script({"exit": 3}), title="The 100% failing one")
    home.wait(failing, "failed")

    def page(query: str) -> tuple[list[str], str]:
        found: dict[str, Any] = home.call("GET", f"/v1/history?{query}")
        return [task["id"] for task in found["tasks"]], found.get("next", "")

    walked, cursor = page("limit=3")
    while cursor:
        more, cursor = page(f"limit=3&before={cursor}")
        walked += more
    assert walked == [failing, *reversed(tasks)]
    assert page("q=TASK%204")[0] == [tasks[4]]
    assert page("q=100%25%20f")[0] == [failing]
    assert page("q=of_all&limit=2")[0] == [tasks[6], tasks[5]]
    assert page("q=of%25all")[0] == []
    assert page("status=failed,cancelled")[0] == [failing]
    for wrong in ("before=x", "before=1.x", "status=strange"):
        with pytest.raises(ControlError) as refused:
            page(wrong)
        assert refused.value.code == "invalid_input"

    live.windows.do(Command("open", "history"))
    qtbot.waitUntil(lambda: len(live.history.model.tasks) == 8, timeout=WAIT_MS)
    live.history.field.setText("Task 4")
    qtbot.waitUntil(lambda: [each.id for each in live.history.model.tasks] == [tasks[4]], timeout=WAIT_MS)
    live.history.field.setText("no such task")
    qtbot.waitUntil(lambda: live.history.empty.isVisible(), timeout=WAIT_MS)
    live.history.field.setText("")
    qtbot.waitUntil(lambda: len(live.history.model.tasks) == 8, timeout=WAIT_MS)
    index = live.history.model.index(0)
    live.history.list.setCurrentIndex(index)
    press(live.history.list, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: live.windows.main.page_name == "task", timeout=WAIT_MS)
    assert live.task.task_id == failing


def test_a_refusal_is_said(qtbot: QtBot, live: LiveDesk) -> None:
    live.windows.do(Command("extend_task", "0000-not-there"))
    told = live.windows.main._told
    qtbot.waitUntil(told.isVisible, timeout=WAIT_MS)
    assert told.text()
    settings = QSettings(str(live.home.directories.state / "desktop.ini"), QSettings.Format.IniFormat)
    live.windows.close()
    assert settings.contains("window/geometry")
