"""The first run: by keyboard alone, without a daemon and with one, once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPoint, QSettings, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from daemon_core.control.runtime_requests import MissingAgent
from desktop.commands import Command
from desktop.daemon.link import Link
from desktop.models.projects import LOOKED_AT, find_projects
from desktop.models.state import LinkPhase, Supervision
from desktop.notifications.messages import Messages
from desktop.theme.palette import Theme
from desktop.windows.context import Context
from desktop.windows.first_run import FirstRunWindow
from desktop.windows.first_run_agents import AgentsStep
from desktop.windows.first_run_places import PlacesStep
from desktop.windows.first_run_steps import LoginStep, NoticeStep, WhereStep
from tests.desktop import canned
from tests.desktop.conftest import Desk
from tests.desktop.hands import click, press
from tests.desktop.screen import desktop, x_server
from tests.end_to_end.home import OstlerHome, wait_until

WAIT_MS = 40_000


class AtLogin:
    """A system that starts programs at login."""

    def __init__(self) -> None:
        self.on = False

    def enabled(self) -> bool | None:
        return self.on

    def enable(self, on: bool) -> None:
        self.on = on

    def explanation(self) -> str:
        return ""


class Tour:
    """The window over a link that was told things by hand."""

    def __init__(self, link: Link, theme: Theme, settings: QSettings) -> None:
        self.asked: list[Command] = []
        self.login = AtLogin()
        self.messages = Messages()
        self.settings = settings
        context = Context(link, theme, self.asked.append, autostart=self.login, messages=self.messages)
        self.window = FirstRunWindow(context, settings)
        self.window.show()

    def focused(self) -> QWidget:
        found = self.window.focusWidget()
        assert found is not None
        return found

    def tab_to(self, wanted: QWidget) -> None:
        """Press Tab until this has the focus."""
        for _step in range(40):
            if self.focused() is wanted:
                return
            press(self.focused(), Qt.Key.Key_Tab)
        raise AssertionError(f"{wanted.accessibleName()} cannot be reached by Tab")


@pytest.fixture
def home_of_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "user"
    for name in ("code/shop-web", "code/api", "code/not-a-project", ".hidden"):
        (home / name).mkdir(parents=True)
    for name in ("code/shop-web", "code/api", ".hidden"):
        (home / name / ".git").mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def tour(qtbot: QtBot, desk: Desk, theme: Theme, home_of_user: Path) -> Iterator[Tour]:
    desk.link.tell(**canned.connected())
    made = Tour(desk.link, theme, desk.settings)
    qtbot.waitExposed(made.window)
    yield made
    made.window.abandon()


def test_it_is_gone_through_by_keyboard(qtbot: QtBot, tour: Tour, home_of_user: Path) -> None:
    window = tour.window
    where, agents, places, login, notice = window.steps
    assert isinstance(where, WhereStep)
    assert isinstance(agents, AgentsStep)
    assert isinstance(places, PlacesStep)
    assert isinstance(login, LoginStep)
    assert isinstance(notice, NoticeStep)
    assert tour.focused() is window.next
    assert window.dots.accessibleName() == "Step 1 of 5"
    tour.tab_to(where.local)
    press(where.local, Qt.Key.Key_Down)
    assert where.server.isChecked()
    tour.tab_to(where.form.token)
    press(tour.focused(), Qt.Key.Key_X)
    tour.tab_to(window.next)
    press(window.next, Qt.Key.Key_Return)
    assert window.at == 1
    assert where.form.token.text() == ""  # what was typed and not sent is not kept
    press(window.next, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: len(places.lines) == 2, timeout=WAIT_MS)
    shop = places.lines[str(home_of_user / "code" / "shop-web")]
    qtbot.waitUntil(shop.box.isVisible, timeout=WAIT_MS)
    tour.tab_to(shop.box)
    press(shop.box, Qt.Key.Key_Space)
    press(shop.box, Qt.Key.Key_Return)
    assert window.at == 3
    tour.tab_to(login.row.switch)
    press(login.row.switch, Qt.Key.Key_Space)
    assert tour.login.on
    press(login.row.switch, Qt.Key.Key_Left, Qt.KeyboardModifier.AltModifier)
    assert window.at == 2
    press(window.next, Qt.Key.Key_Right, Qt.KeyboardModifier.AltModifier)
    press(window.next, Qt.Key.Key_Return)
    assert window.next.text() == "Finish"
    assert not window.leave.isVisible()
    press(window.next, Qt.Key.Key_Return)
    assert not window.isVisible()
    assert tour.asked == [Command("new_task")]
    assert tour.settings.value("first_run/done")
    assert tour.settings.value("new_task/recent") == [str(home_of_user / "code" / "shop-web")]


def test_it_can_be_left_at_any_step(tour: Tour) -> None:
    tour.window.go_on()
    press(tour.window.next, Qt.Key.Key_Escape)
    assert not tour.window.isVisible()
    assert tour.settings.value("first_run/done")


def test_a_desktop_that_ends_meanwhile_shows_it_again(tour: Tour) -> None:
    tour.window.abandon()
    assert not tour.settings.value("first_run/done")


def test_it_has_no_dead_end_without_a_daemon(
    qtbot: QtBot, desk: Desk, theme: Theme, home_of_user: Path
) -> None:
    desk.link.tell(link=LinkPhase.ABSENT, supervision=Supervision.STARTING)
    tour = Tour(desk.link, theme, desk.settings)
    where, agents, *_rest = tour.window.steps
    assert isinstance(where, WhereStep)
    assert isinstance(agents, AgentsStep)
    where.server.setChecked(True)
    assert "as soon as it is up" in where.told.text
    assert not where.form.isEnabled()
    tour.window.go_on()
    assert "as soon as it is up" in agents.told.text
    assert not agents.again.isEnabled()
    # It comes: what was missing appears by itself.
    desk.link.tell(**canned.connected())
    assert set(agents.lines) >= {"claude", "codex"}
    assert agents.told.text == ""
    assert where.form.isEnabled() or not where.isVisible()
    for _step in range(4):
        tour.window.go_on()
    assert not tour.window.isVisible()


def test_a_test_notification_is_asked_about(tour: Tour) -> None:
    for _step in range(4):
        tour.window.go_on()
    notice = tour.window.steps[4]
    assert isinstance(notice, NoticeStep)
    shown: list[str] = []
    tour.messages.test = lambda: shown.append("shown")
    click(notice.show_one)
    assert shown == ["shown"]
    assert notice.yes.isVisible()
    tour.messages.test_came.emit("opened")
    assert notice.told.text == "Notifications work here."
    click(notice.show_one)
    tour.messages.server = lambda: "dunst"
    click(notice.no)
    assert "dunst shows notifications here" in notice.told.text
    tour.messages.silenced = lambda: True
    click(notice.show_one)
    click(notice.no)
    assert "do not disturb" in notice.told.text
    tour.messages.silenced = lambda: False
    tour.messages.server = lambda: ""
    click(notice.show_one)
    tour.messages.test_came.emit("failed")
    assert "tray icon" in notice.told.text


def test_directories_are_dropped_in(tour: Tour, tmp_path: Path) -> None:
    tour.window.go_on()
    tour.window.go_on()
    places = tour.window.steps[2]
    assert isinstance(places, PlacesStep)
    dropped = tmp_path / "dropped"
    dropped.mkdir()
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(dropped)), QUrl("https://example.org")])
    places.dropEvent(
        QDropEvent(QPoint(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton,
                   Qt.KeyboardModifier.NoModifier)
    )  # fmt: skip
    assert places.lines[str(dropped)].box.isChecked()
    tour.window.go_on()
    assert tour.settings.value("new_task/recent") == [str(dropped)]


def test_enter_in_a_field_does_not_leave_the_step(tour: Tour) -> None:
    where = tour.window.steps[0]
    assert isinstance(where, WhereStep)
    click(where.server)
    where.form.token.setFocus()
    where.form.token.setText("mul_typed")
    press(where.form.token, Qt.Key.Key_Return)
    assert tour.window.at == 0
    assert where.form.token.text() == "mul_typed"
    tour.window.next.setFocus()
    press(tour.window.next, Qt.Key.Key_Return)
    assert tour.window.at == 1


def test_agents_that_are_not_here_say_how_to_get_them(tour: Tour) -> None:
    tour.window.go_on()
    agents = tour.window.steps[1]
    assert isinstance(agents, AgentsStep)
    found = [MissingAgent(provider=f"p{number}", install=f"npm install p{number}") for number in range(9)]
    agents.show_missing([MissingAgent(provider="x"), *found])
    assert len(agents.missing.fields) == 4
    assert agents.missing.isVisible()


def test_a_home_is_not_walked(tmp_path: Path) -> None:
    for number in range(LOOKED_AT + 50):
        (tmp_path / "code" / f"p{number:04}").mkdir(parents=True)
    (tmp_path / "code" / f"p{LOOKED_AT + 40:04}" / ".git").mkdir()
    (tmp_path / "code" / "p0003" / ".git").mkdir()
    assert find_projects(tmp_path) == [str(tmp_path / "code" / "p0003")]
    assert find_projects(tmp_path / "nowhere") == []


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    made = OstlerHome(tmp_path)
    yield made
    made.close()


def test_an_agent_is_tried_with_a_real_task(
    qtbot: QtBot, qapp: QApplication, theme: Theme, home: OstlerHome, home_of_user: Path
) -> None:
    home.start()
    link = Link(home.directories)
    link.start()
    qtbot.waitUntil(lambda: link.state.connected, timeout=WAIT_MS)
    settings = QSettings(str(home.root / "desktop.ini"), QSettings.Format.IniFormat)
    tour = Tour(link, theme, settings)
    tour.window.go_on()
    agents = tour.window.steps[1]
    assert isinstance(agents, AgentsStep)
    qtbot.waitUntil(lambda: "claude" in agents.lines, timeout=WAIT_MS)
    assert "shell" not in agents.lines
    qtbot.waitUntil(lambda: bool(agents.missing.fields), timeout=WAIT_MS)
    click(agents.lines["claude"].try_it)
    qtbot.waitUntil(lambda: agents.lines["claude"].state.text().startswith("It answered"), timeout=WAIT_MS)
    click(agents.again)
    qtbot.waitUntil(lambda: agents.again.isEnabled(), timeout=WAIT_MS)
    assert agents.lines["claude"].state.text().startswith("It answered")
    tour.window.abandon()
    link.stop()


def test_the_real_program_shows_it_once(home: OstlerHome) -> None:
    home.start()

    def seen(display: str, title: str) -> list[str]:
        found = subprocess.run(
            ["xdotool", "search", "--onlyvisible", "--name", title],
            env={"DISPLAY": display, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return found.stdout.split()

    (home.directories.state / "desktop.ini").write_text("")  # else the helper says that it was shown
    with x_server() as display:
        with desktop(home, background=False, DISPLAY=display):
            wait_until(lambda: seen(display, "Welcome to Ostler"), "the first run")

            def left() -> bool:
                """A key that comes before the window listens is lost: another one, until it is gone."""
                subprocess.run(
                    ["xdotool", "search", "--onlyvisible", "--name", "Welcome to Ostler",
                     "windowfocus", "key", "Escape"],
                    env={"DISPLAY": display, "PATH": "/usr/bin:/bin"}, timeout=30, check=False,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                return not seen(display, "Welcome to Ostler")

            wait_until(left, "its end")
        with desktop(home, background=False, DISPLAY=display):
            wait_until(lambda: seen(display, "^Ostler$"), "the window")
            assert not seen(display, "Welcome to Ostler")
