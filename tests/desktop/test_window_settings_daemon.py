"""The page "Settings" against a real daemon: changed here, elsewhere and by hand; agents; servers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QPushButton
from pytestqt.qtbot import QtBot

from desktop.commands import Command
from desktop.daemon.link import Link
from desktop.language import Language
from desktop.models.settings import SettingsStore
from desktop.theme.palette import Theme
from desktop.windows.main import MainWindow
from desktop.windows.opening import Windows
from desktop.windows.settings import SettingsPage
from desktop.windows.settings_agents import AgentPolicies, AgentsPanel
from desktop.windows.settings_connections import ConnectionsPanel
from desktop.windows.settings_disk import DiskPanel
from desktop.windows.settings_editors import ChoiceEditor, CountEditor, FlagEditor
from desktop.windows.settings_row import SettingRow
from tests.desktop.hands import click, press
from tests.end_to_end.home import OstlerHome
from tests.support.fake_server import TOKEN, FakeServer

pytestmark = [
    pytest.mark.qt_log_level_fail("WARNING"),
    pytest.mark.qt_log_ignore("This plugin does not support"),
    pytest.mark.skipif(sys.platform == "win32", reason="the control API is a unix socket here"),
]
WAIT_MS = 40_000
BEFORE = "# mine\n[daemon]  # about the daemon\nslots = 3  # three\n"


class LiveSettings:
    """The page over the daemon of a home."""

    def __init__(self, home: OstlerHome, theme: Theme) -> None:
        self.home = home
        self.file = home.directories.config_file
        self.link = Link(home.directories)
        self.store = SettingsStore(self.link, home.directories.state / "desktop-settings.json")
        self.asked: list[Command] = []
        self.windows = Windows(self.link, theme, home.directories, self.do, store=self.store)

    def do(self, command: Command) -> None:
        self.asked.append(command)

    @property
    def window(self) -> MainWindow:
        return self.windows.main

    @property
    def page(self) -> SettingsPage:
        page = self.windows.main.page("settings")
        assert isinstance(page, SettingsPage)
        return page

    def row(self, key: str) -> SettingRow:
        return self.page.rows[key]

    def agents(self) -> AgentsPanel:
        panel = self.page.panel(AgentsPanel)
        assert isinstance(panel, AgentsPanel)
        return panel

    def number(self, key: str) -> int:
        editor = self.row(key).editor
        assert isinstance(editor, CountEditor)
        return editor.spin.value()

    def config(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "daemon_core.cli", "config", *arguments]
        subprocess.run(command, check=True, capture_output=True, env=self.home.environ)


@pytest.fixture
def live(qtbot: QtBot, tmp_path: Path, theme: Theme) -> Iterator[LiveSettings]:
    home = OstlerHome(tmp_path)
    home.directories.ensure()
    home.directories.config_file.write_text(BEFORE)
    home.start()
    made = LiveSettings(home, theme)
    made.link.start()
    qtbot.waitUntil(lambda: made.store.known, timeout=WAIT_MS)
    made.windows.do(Command("open", "settings", "tasks"))
    qtbot.addWidget(made.window)
    yield made
    made.windows.close()
    made.link.stop()
    home.close()


def test_changed_here_elsewhere_and_by_hand(qtbot: QtBot, live: LiveSettings) -> None:
    # here: in the file with its comments, and in force at once
    editor = live.row("daemon.slots").editor
    assert isinstance(editor, CountEditor)
    assert editor.spin.value() == 3
    editor.spin.setFocus()
    press(editor.spin, Qt.Key.Key_Up)
    press(editor.spin, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: live.store.number("daemon.slots") == 4, timeout=WAIT_MS)
    assert live.file.read_text() == BEFORE.replace("slots = 3", "slots = 4")
    assert live.home.status()["slots"] == 4
    # on the command line, with the page open
    live.config("set", "daemon.slots", "6")
    qtbot.waitUntil(lambda: live.number("daemon.slots") == 6, timeout=WAIT_MS)
    # by hand, as editors save: another file in its place; nobody tells the daemon but the page
    draft = live.file.with_name("config.toml~")
    draft.write_text(live.file.read_text().replace("slots = 6", "slots = 7") + "[retention]\ndays = 9\n")
    draft.replace(live.file)
    qtbot.waitUntil(lambda: live.number("daemon.slots") == 7, timeout=WAIT_MS)
    assert live.home.status()["slots"] == 7
    live.page.open_section("disk")
    assert live.number("retention.days") == 9
    # back to the default; what else stands there stays
    row = live.row("retention.days")
    assert row.reset.isVisible()
    click(row.reset)
    qtbot.waitUntil(lambda: live.number("retention.days") == 30 and row.reset.isHidden(), timeout=WAIT_MS)
    assert "slots = 7  # three" in live.file.read_text()
    assert "days" not in live.file.read_text()


def test_mistakes_are_said_and_nothing_is_lost(qtbot: QtBot, live: LiveSettings) -> None:
    live.page.open_section("advanced")
    row = live.row("daemon.port")
    row.set(80)
    qtbot.waitUntil(lambda: bool(row.error.text()), timeout=WAIT_MS)
    assert row.error.text().startswith("It must be 0 or from 1024 to 65535")
    assert live.file.read_text() == BEFORE
    # one that needs a restart says so
    row = live.row("daemon.name")
    row.set("attic")
    qtbot.waitUntil(row.restart.isVisible, timeout=WAIT_MS)
    assert "starts again" in row._note.text()
    click(row.restart)
    assert live.asked[-1] == Command("restart_daemon")
    # a file with a mistake: told with its line, not written into, and well again when it is mended
    good = live.file.read_text()
    bad = good + "[retention]\ndays = many\n"
    live.file.write_text(bad)
    mistake = live.page._mistake
    qtbot.waitUntil(mistake.isVisible, timeout=WAIT_MS)
    assert mistake.sentence.text().startswith(f"config.toml:{bad.count(chr(10))}: ")
    assert not live.row("daemon.name").editor.isEnabled()
    live.store.set("daemon.slots", 5)
    qtbot.waitUntil(lambda: not live.store.busy("daemon.slots"), timeout=WAIT_MS)
    assert live.file.read_text() == bad
    assert live.home.status()["slots"] == 3
    live.file.write_text(good)
    qtbot.waitUntil(mistake.isHidden, timeout=WAIT_MS)
    assert live.row("daemon.name").editor.isEnabled()


def test_look_and_language_follow(
    qtbot: QtBot, qapp: QApplication, live: LiveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.page.open_section("general")
    language = Language(qapp)
    language.choose("en")
    old = live.window
    theme = live.page._context.theme

    def follow(_keys: frozenset[str]) -> None:
        theme.choose("dark" if live.store.text("desktop.appearance") == "dark" else "light")
        if language.choose(live.store.text("desktop.language")):
            live.windows.make_anew()

    live.store.changed.connect(follow)
    try:
        row = live.row("desktop.appearance").editor
        assert isinstance(row, ChoiceEditor)
        row.choice.setFocus()
        press(row.choice, Qt.Key.Key_End)
        qtbot.waitUntil(lambda: theme.colours.dark, timeout=WAIT_MS)
        live.config("set", "desktop.language", "de")
        qtbot.waitUntil(lambda: live.store.text("desktop.language") == "de", timeout=WAIT_MS)
        if language.name == "de":
            qtbot.waitUntil(lambda: live.window is not old, timeout=WAIT_MS)
            assert live.page.section == "general"
            assert live.window.isVisible()
            qtbot.addWidget(live.window)
    finally:
        live.store.changed.disconnect(follow)
        theme.choose("light")
        language.choose("en")
    # and all of it is known before a daemon answers
    again = SettingsStore(Link(live.home.directories), live.home.directories.state / "desktop-settings.json")
    assert again.text("desktop.appearance") == "dark"


def test_agents_and_what_they_may_do(qtbot: QtBot, live: LiveSettings) -> None:
    live.page.open_section("agents")
    panel = live.agents()
    before = len(live.link.state.agents)
    click(panel.add)
    form = panel.form
    assert form is not None
    assert live.window.focusWidget() is form.name
    form.name.setText("reviewer / all")
    form.runtime.setCurrentIndex(form.runtime.findData("claude"))
    form.instructions.setPlainText("Read the diff.")
    click(form.save)
    qtbot.waitUntil(lambda: "reviewer / all" in live.link.state.agents, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: panel.form is None, timeout=WAIT_MS)
    # the same name again is refused in words, and the form stays
    panel.open_form(None)
    assert panel.form is not None
    panel.form.name.setText("reviewer / all")
    panel.form.send()
    qtbot.waitUntil(panel.form.error.isVisible, timeout=WAIT_MS)
    assert panel.form.error.text() == "There is an agent of that name already."
    panel.form.left.emit()
    # what it may do, in the other section
    live.page.open_section("permissions")
    policies = live.page.panel(AgentPolicies)
    assert isinstance(policies, AgentPolicies)
    choice = policies.choices["reviewer / all"]
    choice.setCurrentIndex(choice.findData("ask"))
    choice.activated.emit(choice.currentIndex())
    qtbot.waitUntil(lambda: live.link.state.agents["reviewer / all"].permissions == "ask", timeout=WAIT_MS)
    live.row("agents.claude.permissions").set("deny")
    qtbot.waitUntil(lambda: live.store.text("agents.claude.permissions") == "deny", timeout=WAIT_MS)
    # and away with it, after a question
    live.page.open_section("agents")
    panel = live.agents()
    agent = live.link.state.agents["reviewer / all"]
    panel._ask(agent)
    (remove,) = [each for each in panel.findChildren(QPushButton) if each.text() == "Remove"]
    click(remove)
    qtbot.waitUntil(lambda: len(live.link.state.agents) == before, timeout=WAIT_MS)
    qtbot.waitUntil(panel._empty.isVisible, timeout=WAIT_MS)


def test_disk_and_switches(qtbot: QtBot, live: LiveSettings) -> None:
    live.page.open_section("disk")
    panel = live.page.panel(DiskPanel)
    assert isinstance(panel, DiskPanel)
    qtbot.waitUntil(lambda: panel.used.text().startswith("Ostler uses"), timeout=WAIT_MS)
    click(panel.look)
    qtbot.waitUntil(panel.offer.isVisible, timeout=WAIT_MS)
    assert panel.offer.text() == "There is nothing that may go now."
    live.page.open_section("notifications")
    row = live.row("notifications.finished")
    assert isinstance(row.editor, FlagEditor)
    row.editor.switch.setFocus()
    press(row.editor.switch, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: not live.store.flag("notifications.finished"), timeout=WAIT_MS)
    assert "[notifications]\nfinished = false" in live.file.read_text()


class ServerThread:
    """A server of the protocol in a thread of its own: the Qt loop has this one."""

    def __init__(self) -> None:
        self.server: FakeServer
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._up.wait(20)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with FakeServer() as self.server:
            self.server.add_workspace("Team")
            self._up.set()
            await self._over.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)


@pytest.fixture
def server() -> Iterator[ServerThread]:
    made = ServerThread()
    yield made
    made.close()


def test_in_and_out_of_a_server(qtbot: QtBot, live: LiveSettings, server: ServerThread) -> None:
    live.windows.do(Command("sign_in"))
    panel = live.page.panel(ConnectionsPanel)
    assert isinstance(panel, ConnectionsPanel)
    qtbot.waitUntil(lambda: "hub" in panel.rows, timeout=WAIT_MS)
    form = panel.form
    assert live.window.focusWidget() is form.url
    form.url.setText(server.server.url)
    form.token.setText("mul_" + "00" * 20)
    press(form.token, Qt.Key.Key_Return)
    qtbot.waitUntil(form.error.isVisible, timeout=WAIT_MS)
    assert "refuses the token" in form.error.text()
    form.token.setText(TOKEN)
    form.place.setCurrentIndex(form.place.findData("file"))
    press(form.token, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: panel.told.isVisible(), timeout=WAIT_MS)
    assert "Signed in at" in panel.told.text()
    assert (form.isVisible(), form.token.text()) == (False, "")
    qtbot.waitUntil(lambda: len(panel.rows) == 2, timeout=WAIT_MS)
    (row,) = [each for name, each in panel.rows.items() if name != "hub"]
    qtbot.waitUntil(lambda: row.state.text().startswith("Connected since"), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: "Team" in row.facts.text(), timeout=WAIT_MS)
    click(row.out)
    assert row.yes.text() == "Sign out"
    click(row.yes)
    qtbot.waitUntil(lambda: list(panel.rows) == ["hub"], timeout=WAIT_MS)
    assert "Signed out of" in panel.told.text()
    assert TOKEN not in live.file.read_text()
