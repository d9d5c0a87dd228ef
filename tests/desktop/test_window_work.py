"""The box for a new task, what goes on beside a task, what it uses and costs; also with a real daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QPushButton
from pytestqt.qtbot import QtBot

from daemon_core.control.model_views import ModelView
from daemon_core.control.stats_views import StatsFrame, StatView
from daemon_core.control.views import DaemonStatus, SpendView
from desktop import places
from desktop.commands import Command
from desktop.daemon.http import Unreachable
from desktop.daemon.stats import StatsFeed
from desktop.models import drafts, templates
from desktop.models.state import LinkPhase
from desktop.models.templates import Field, Template
from desktop.theme.palette import Theme
from desktop.windows.main import MainWindow
from desktop.windows.new_task import NewTaskBox, place_sentence
from desktop.windows.now import NowPage
from desktop.windows.opening import Windows
from desktop.windows.spend_strip import spend_sentence
from desktop.windows.task import ABOUT, TaskPage
from desktop.windows.wording import cost_text
from desktop.words import condition_action, condition_text, status_sentence
from tests.desktop import canned
from tests.desktop.conftest import Desk
from tests.desktop.hands import click, press
from tests.desktop.test_window_daemon import WAIT_MS, LiveDesk, live_at
from tests.end_to_end.home import OstlerHome
from tests.support.scripted_agent import script

pytestmark = [
    pytest.mark.qt_log_level_fail("WARNING"),
    pytest.mark.qt_log_ignore("This plugin does not support"),  # the offscreen platform has no window manager
    pytest.mark.skipif(sys.platform == "win32", reason="the control API is a unix socket here"),
]
CTRL = Qt.KeyboardModifier.ControlModifier


@pytest.fixture
def window(qtbot: QtBot, desk: Desk) -> MainWindow:
    made = MainWindow(desk.context, desk.settings)
    qtbot.addWidget(made)
    desk.link.tell(**canned.connected(*canned.busy_rows()))
    made.open_page("now")
    made.show()
    qtbot.waitExposed(made)
    return made


@pytest.fixture
def now(window: MainWindow) -> NowPage:
    page = window.page("now")
    assert isinstance(page, NowPage)
    return page


@pytest.fixture
def box(now: NowPage) -> NewTaskBox:
    return now.new_task


# --- the box ----------------------------------------------------------------------------------------


def test_fields_of_a_saved_prompt_are_asked_for(box: NewTaskBox) -> None:
    box.use_template(Template("x", "Translate {{file}} into {{language: which}}. Keep {{file}}."))
    assert list(box.fields.edits) == ["file", "language"]
    assert box.fields.edits["language"].placeholderText() == "which"
    assert not box.button.isEnabled()
    box.fields.edits["file"].setText("a.md")
    assert not box.button.isEnabled()
    box.fields.edits["language"].setText("Czech")
    assert box.button.isEnabled()
    filled = templates.filled(box.prompt.toPlainText(), box.fields.values)
    assert filled == "Translate a.md into Czech. Keep a.md."
    box.prompt.setPlainText("No fields at all")
    assert not box.fields.edits
    assert not box.fields.isVisible()
    assert box.button.isEnabled()


def test_prompts_are_saved_offered_and_removed(desk: Desk, box: NewTaskBox) -> None:
    place = desk.link.directories.config / "templates"
    told: list[str] = []
    box.templates.told.connect(told.append)
    box.prompt.setPlainText("Look for {{what}}")
    box.templates.save("Search: a/b")
    assert [path.name for path in place.iterdir()] == ["Search ab.md"]
    box.templates.save("  ...  ")
    assert told == ["This name cannot be that of a file."]
    (place / "large.md").write_text("x" * (templates.SIZE_LIMIT_BYTES + 1))
    (place / "other.txt").write_text("x")
    (place / "latin.md").write_bytes(b"\xff")
    menu = box.templates.make_menu()
    names = [action.text() for action in menu.actions() if action.text()]
    assert names == ["Search ab", "Save this prompt…", "Remove", "Open their directory"]
    box.prompt.clear()
    menu.actions()[0].trigger()
    assert box.prompt.toPlainText() == "Look for {{what}}"
    assert box.fields.isVisible()
    assert templates.load(place)[0].fields == (Field("what"),)
    box.templates._remove("Search ab")
    assert templates.load(place) == []


def test_the_levels_are_those_of_the_model(box: NewTaskBox) -> None:
    box._fill_models(
        (
            ModelView(id="big", default=True, thinking_levels=("low", "high"), default_level="low"),
            ModelView(id="small"),
            ModelView(id="other", thinking_levels=("high", "max")),
        )
    )
    assert [box.thinking.itemData(row) for row in range(box.thinking.count())] == ["", "low", "high"]
    assert box.thinking.itemText(0) == "Usual: low"
    box.thinking.setCurrentIndex(2)
    box.model.setCurrentIndex(box.model.findData("other"))
    box._fill_thinking()
    assert box.thinking.currentData() == "high"  # what both have stays
    box.model.setCurrentIndex(box.model.findData("small"))
    box._fill_thinking()
    assert not box.thinking.isVisible()
    assert box.thinking.currentData() == ""


def drop(box: NewTaskBox, data: QMimeData) -> None:
    event = QDropEvent(
        QPointF(9, 9),
        Qt.DropAction.CopyAction,
        data,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    box.dropEvent(event)
    assert event.isAccepted()


def test_what_is_dropped_has_a_place(box: NewTaskBox, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    box.prompt.setPlainText("Look at this:")
    box.prompt.moveCursor(box.prompt.textCursor().MoveOperation.End)
    text = QMimeData()
    text.setText("an error\nin two lines")
    drop(box, text)
    assert box.prompt.toPlainText() == "Look at this:\nan error\nin two lines"
    urls = QMimeData()
    urls.setUrls([QUrl.fromLocalFile(str(tmp_path)), QUrl.fromLocalFile(str(tmp_path / "a.txt"))])
    drop(box, urls)
    assert box.directory == str(tmp_path)
    assert box.prompt.toPlainText().endswith(f"\n{tmp_path / 'a.txt'}")
    assert box.folder.findData(str(tmp_path)) > 0


def test_a_repository_needs_its_address(box: NewTaskBox) -> None:
    box.prompt.setPlainText("Do it")
    assert box.button.isEnabled()
    assert not box.repo.isVisible()
    box.folder.setCurrentIndex(box.folder.findText("From a repository…"))
    box._on_folder()
    assert box.repo.isVisible()
    assert not box.button.isEnabled()
    assert box.directory == ""
    box.repo.setText("https://git.example.org/a.git")
    assert box.button.isEnabled()


def test_a_directory_with_changes_is_said(qtbot: QtBot, box: NewTaskBox, desk: Desk, tmp_path: Path) -> None:
    place = tmp_path / "repo"
    environ = {**os.environ, "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "-q", str(place)], check=True, env=environ)
    (place / "new.txt").write_text("x")
    # A repository names programs; looking at it runs none of them.
    subprocess.run(
        ["git", "-C", str(place), "config", "core.fsmonitor", f"touch {tmp_path}/ran; false"],
        check=True, env=environ,
    )  # fmt: skip
    box.choose_directory(str(place))
    qtbot.waitUntil(box._place.isVisible, timeout=WAIT_MS)
    assert box._place_text.text() == "1 file there has changes that are not committed."
    assert not (tmp_path / "ran").exists()
    desk.link.tell(tasks={"t": canned.row("t", "Another", directory=str(place))})
    assert box._place_text.text().startswith("“Another” works in this directory")
    box.folder.setCurrentIndex(0)
    box._on_folder()
    assert not box._place.isVisible()
    plain = tmp_path / "plain"
    plain.mkdir()
    with qtbot.waitSignal(box._look.known, timeout=WAIT_MS) as looked:
        box.choose_directory(str(plain))
    assert looked.args == [str(plain), -1]
    assert place_sentence(str(plain), (str(plain), -1), desk.link.state.__class__()) == ""


def test_a_draft_stays(qtbot: QtBot, desk: Desk, window: MainWindow, box: NewTaskBox) -> None:
    box.prompt.setPlainText("Half a thought")
    window.open_page("history")
    again = MainWindow(desk.context, desk.settings)
    qtbot.addWidget(again)
    page = again.page("now")
    assert isinstance(page, NowPage)
    assert page.new_task.prompt.toPlainText() == "Half a thought"


def test_what_is_written_and_chosen_outlives_another_language(
    qtbot: QtBot, desk: Desk, theme: Theme, tmp_path: Path
) -> None:
    place = tmp_path / "shop"
    place.mkdir()
    windows = Windows(desk.link, theme, desk.link.directories, desk.asked.append)
    desk.link.tell(**canned.connected(*canned.busy_rows()))
    windows.do(Command("open", "now"))
    page = windows.main.page("now")
    assert isinstance(page, NowPage)
    box = page.new_task
    box.choose_directory(str(place))
    box.agent.setCurrentIndex(box.agent.findData("runtime codex"))
    box._on_agent()
    box._fill_models((ModelView(id="gpt", thinking_levels=("low", "high")),))
    box.model.setCurrentIndex(1)
    box._on_model()
    box.thinking.setCurrentIndex(2)
    box._on_thinking()
    box.use_template(Template("x", "Look into {{what}}"))
    box.fields.edits["what"].setText("the import")
    windows.do(Command("open_task", "b1"))
    task = windows.main.page("task")
    assert isinstance(task, TaskPage)
    task.reply.setPlainText("And then")
    windows.do(Command("open_task", "b2"))
    assert task.reply.toPlainText() == ""
    task.reply.setPlainText("Another thing")
    windows.make_anew()
    anew = windows.main.page("task")
    assert isinstance(anew, TaskPage)
    assert anew is not task
    assert windows.main.page_name == "task"
    assert (anew.task_id, anew.reply.toPlainText()) == ("b2", "Another thing")
    windows.do(Command("open_task", "b1"))
    assert anew.reply.toPlainText() == "And then"
    page = windows.main.page("now")
    assert isinstance(page, NowPage)
    box = page.new_task
    assert box.prompt.toPlainText() == "Look into {{what}}"
    assert box.fields.values == {"what": "the import"}
    assert box.directory == str(place)
    chosen = (box.agent.currentData(), box.model.currentData(), box.thinking.currentData())
    assert chosen == ("runtime codex", "gpt", "high")
    windows.close()


def test_what_is_being_written_outlives_a_crash(
    qtbot: QtBot, desk: Desk, theme: Theme, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "SOON_MS", 0)
    kept = desk.link.directories.state / "desktop-drafts.json"
    desk.link.tell(**canned.connected(*canned.busy_rows()))

    def life() -> tuple[NewTaskBox, TaskPage, Windows]:
        windows = Windows(desk.link, theme, desk.link.directories, desk.asked.append)
        page = windows.main.page("now")
        assert isinstance(page, NowPage)
        windows.do(Command("open_task", "b1"))
        task = windows.main.page("task")
        assert isinstance(task, TaskPage)
        return page.new_task, task, windows

    box, task, crashes = life()
    box.prompt.setPlainText("Half a thought")
    task.reply.setPlainText("And then")
    qtbot.waitUntil(lambda: kept.exists() and b"And then" in kept.read_bytes())
    assert kept.stat().st_mode & 0o777 == 0o600
    box, task, windows = life()
    assert (box.prompt.toPlainText(), task.reply.toPlainText()) == ("Half a thought", "And then")
    box.prompt.clear()
    task.reply.clear()
    for each in (crashes, windows):
        each.close()
    assert drafts.Drafts(kept).get("new_task", "") == ""
    kept.write_text("{half")
    assert dict(drafts.Drafts(kept)) == {}
    many = drafts.Drafts()
    many.update({str(number): "x" for number in range(drafts.MOST + 5)})
    assert len(many) == drafts.MOST
    assert "0" not in many


def test_other_agents_that_come_and_go_change_no_choice(desk: Desk, box: NewTaskBox) -> None:
    box.agent.setCurrentIndex(box.agent.findData("runtime codex"))
    box._on_agent()
    box._fill_models((ModelView(id="gpt", default=True), ModelView(id="mini")))
    box.model.setCurrentIndex(box.model.findData("mini"))
    box._on_model()
    known = dict(desk.link.state.runtimes)
    gone = next(ident for ident, each in known.items() if each.provider == "claude")
    del known[gone]
    desk.link.tell(runtimes=known)
    assert (box.agent.currentData(), box.model.currentData()) == ("runtime codex", "mini")


# --- what it costs and uses -------------------------------------------------------------------------


def test_costs_are_as_exact_as_they_are_known() -> None:
    assert [cost_text(cost, how) for cost, how in (
        (1.839, "stated"), (0.5, "priced"), (2.0, "partial"), (None, "unknown"), (None, ""), (0.001, "stated")
    )] == ["$1.84", "about $0.50", "at least $2.00", "cost not known", "", "under $0.01"]  # fmt: skip
    assert spend_sentence(SpendView()) == ""
    assert spend_sentence(SpendView(spent=2.0)) == "$2.00 spent today"
    assert (
        spend_sentence(SpendView(spent=2.0, limit=10.0, warn_at=8.0, unknown_tasks=2))
        == "at least $2.00 of $10.00 spent today · the cost of 2 tasks is not known"
    )
    assert spend_sentence(SpendView(spent=12.0, limit=10.0, allowed=True)).endswith("you let today go on")


def test_the_limit_is_said_with_its_one_action(desk: Desk, now: NowPage) -> None:
    assert not now.spend.isVisible()
    status = desk.link.state.status
    assert isinstance(status, DaemonStatus)
    held = msgspec.structs.replace(canned.spent(status), conditions=[canned.spend_condition()])
    desk.link.tell(status=held, tasks={})
    assert now.spend.isVisible()
    assert "$10.00" in now.spend._text.text()
    click(now.spend.go_on)
    assert desk.asked[-1] == Command("spend_continue")
    condition = canned.spend_condition()
    assert condition_text(condition).startswith("The limit of $10.00 for today is reached")
    assert condition_action(condition) == ("Go on for today", Command("spend_continue"))
    assert status_sentence(desk.link.state) == "Today's spend limit is reached"


def test_figures_are_shown_while_somebody_looks(desk: Desk, window: MainWindow, now: NowPage) -> None:
    stats = StatsFeed.of(desk.link)
    assert stats is StatsFeed.of(desk.link)
    stats.take(
        StatsFrame(number=1, at="", stats=[StatView(kind="task", id="b1", memory=214_000_000, cpu=42.0)])
    )
    line = now.active.lines["b1"].line
    assert line.isVisible()
    assert line.accessibleName() == "42 % of a processor, 214 MB"
    assert not now.active.lines["b2"].line.isVisible()
    stats.take(StatsFrame(number=2, at="", stats=[]))
    assert not line.isVisible()
    window.open_page("history")
    assert not stats._watchers


# --- terminals and editors --------------------------------------------------------------------------


def test_what_opens_a_directory() -> None:
    here = {"x-terminal-emulator", "konsole", "code"}
    which = lambda name: f"/usr/bin/{name}" if name in here else None  # noqa: E731
    linux = places.plan_terminal("/p", platform="linux", environ={}, which=which)
    assert linux == places.Start("/usr/bin/x-terminal-emulator", (), "/p")
    wished = places.plan_terminal("/p", platform="linux", environ={"TERMINAL": "konsole"}, which=which)
    assert wished is not None
    assert wished.program == "/usr/bin/konsole"
    none = places.plan_terminal("/p", platform="linux", environ={}, which=lambda _name: None)
    assert none is None
    own = places.plan_terminal("/p q", "kitty --directory {directory} -1", platform="linux", which=which)
    assert own == places.Start("kitty", ("--directory", "/p q", "-1"), "/p q")
    assert places.plan_terminal("/p", platform="darwin") == places.Start(
        "/usr/bin/open", ("-a", "Terminal", "/p"), "/p"
    )
    assert places.plan_terminal("/p", platform="win32", which=lambda name: name) == places.Start(
        "wt.exe", ("-d", "/p"), "/p"
    )
    assert places.plan_editor("/p", platform="linux", which=which) == places.Start(
        "/usr/bin/code", ("/p",), "/p"
    )
    assert places.plan_editor("/p", "nano-gui -w", which=which).arguments == ("-w", "/p")
    assert places.plan_editor("/p", which=lambda _name: None) == places.Start(directory="/p")


# --- against a real daemon --------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    opened = OstlerHome(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def live(qtbot: QtBot, home: OstlerHome, theme: Theme) -> Iterator[LiveDesk]:
    with live_at(qtbot, home, theme, "now") as opened:
        yield opened


def test_a_task_with_its_figures_jobs_and_turns(
    qtbot: QtBot, live: LiveDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "project"
    place.mkdir()
    gate = tmp_path / "gate"
    counts = {"inputTokens": 1000, "outputTokens": 100, "cacheReadInputTokens": 0,
              "cacheCreationInputTokens": 0, "costUSD": 1.25}  # fmt: skip
    box = live.now.new_task
    qtbot.waitUntil(lambda: box.agent.count() > 0, timeout=WAIT_MS)
    box.agent.setCurrentIndex(box.agent.findData("runtime claude"))
    box.choose_directory(str(place))
    box.prompt.setPlainText(
        script({"text": "I begin."}, {"wait_for": str(gate)},
               {"result": {"modelUsage": {"claude-opus-4-5": counts}, "result": "Done."}})
    )  # fmt: skip
    press(box.prompt, Qt.Key.Key_Return, CTRL)
    qtbot.waitUntil(lambda: live.windows.main.page_name == "task", timeout=WAIT_MS)
    first = live.task.task_id
    assert live.home.task(first)["directory"] == str(place)
    qtbot.waitUntil(live.task.line.isVisible, timeout=WAIT_MS)
    live.windows.main.open_page("now")
    qtbot.waitUntil(lambda: live.now.active.lines[first].line.isVisible(), timeout=WAIT_MS)
    live.windows.do(Command("open_task", first))
    opened = tmp_path / "opened"
    terminal = tmp_path / "terminal"
    terminal.write_text(f"#!/bin/sh\npwd > {opened}.new; mv {opened}.new {opened}\n")
    terminal.chmod(0o700)
    monkeypatch.setenv("TERMINAL", str(terminal))
    live.task._do("open_terminal")
    qtbot.waitUntil(opened.exists, timeout=WAIT_MS)
    assert opened.read_text().strip() == str(place)
    gate.touch()
    qtbot.waitUntil(lambda: "$1.25" in live.task._facts.text, timeout=WAIT_MS)
    assert not live.task.line.isVisible()
    live.task.reply.setPlainText("And now?")
    click(live.task.send)
    qtbot.waitUntil(lambda: live.task.task_id not in ("", first), timeout=WAIT_MS)
    live.task.tabs.setCurrentIndex(ABOUT)
    qtbot.waitUntil(lambda: len(live.task.about._turns) == 2, timeout=WAIT_MS)
    assert [turn.id for turn in live.task.about._turns] == [first, live.task.task_id]
    assert (live.task.about._turns[0].cost, live.task.about._turns[0].cost_how) == (1.25, "stated")
    earlier = next(
        each for each in live.task.about.findChildren(QPushButton) if each.text().startswith("1. ")
    )
    click(earlier)
    qtbot.waitUntil(lambda: live.task.task_id == first, timeout=WAIT_MS)


def test_figures_are_looked_at_only_while_asked(live: LiveDesk, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    task = live.home.add(script({"text": "I wait."}, {"wait_for": str(gate)}))
    live.home.wait(task, "running")
    frame = live.home.call("GET", "/v1/stats")
    again = live.home.call("GET", f"/v1/stats?after={frame['number']}")
    assert again["number"] == frame["number"] + 1
    (found,) = [stat for stat in again["stats"] if stat["id"] == task]
    assert found["kind"] == "task"
    assert found["memory"] > 1_000_000
    assert found["processes"] >= 1
    gate.touch()
    live.home.wait(task, "completed")
    later = live.home.call("GET", f"/v1/stats?after={again['number']}")
    assert later["stats"] == []


def test_one_press_is_one_task_whatever_happens_meanwhile(
    box: NewTaskBox, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(desk.link, "call", lambda *_given, **more: asked.append(more))
    box.prompt.setPlainText("Do it")
    asked.clear()  # the models were asked for
    box.start()
    desk.link.tell(tasks={"other": canned.row("other", "Another")})
    assert not box.button.isEnabled()
    box.start()
    assert len(asked) == 1
    asked[0]["failed"](Unreachable("timeout"))
    assert box.button.isEnabled(), "what was not taken can be tried again"


def test_what_is_being_written_goes_on_while_the_daemon_restarts(box: NewTaskBox, desk: Desk) -> None:
    box.prompt.setPlainText("Half a")
    box.prompt.setFocus()
    desk.link.tell(link=LinkPhase.ABSENT)
    assert box.prompt.hasFocus()
    assert box.prompt.isEnabled()
    assert not box.button.isEnabled()
    desk.link.tell(link=LinkPhase.CONNECTED)
    assert box.button.isEnabled()
