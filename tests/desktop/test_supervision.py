"""What becomes of a daemon that the desktop has found, and of quitting: with real daemons."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QSettings
from pytestqt.qtbot import QtBot

from desktop.commands import Command
from desktop.daemon import link as link_module
from desktop.daemon import restarts
from desktop.daemon import supervisor as supervisor_module
from desktop.daemon.link import Link
from desktop.daemon.supervisor import Supervisor
from desktop.leaving import KEPT, Leaving
from desktop.models.state import LinkPhase, Supervision
from desktop.theme.mark import Shape
from desktop.theme.palette import Theme
from desktop.tray.view import shape_of, tray_view
from desktop.windows.trouble import action_of
from desktop.words import status_sentence
from tests.desktop import canned
from tests.desktop.conftest import Desk
from tests.desktop.hands import click
from tests.end_to_end.home import OstlerHome

PATIENCE_MS = 40_000
CRASHING = [sys.executable, "-S", "-c", "import sys; sys.exit('the stable is on fire')"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    found = OstlerHome(tmp_path, claude=False)
    yield found
    found.close()


class Kept:
    """A daemon that was found running, and whoever looks after it."""

    def __init__(self, home: OstlerHome) -> None:
        home.start()
        self.home = home
        self.link = Link(home.directories)
        self.supervisor = Supervisor(self.link, home.directories, CRASHING)
        self.crashes: list[int] = []
        self.supervisor.crashed.connect(self.crashes.append)
        self.link.start()

    def close(self) -> None:
        self.supervisor.let_go()
        self.link.stop()


@pytest.fixture
def kept(qtbot: QtBot, home: OstlerHome) -> Iterator[Kept]:
    made = Kept(home)
    until(qtbot, lambda: made.link.state.connected)
    yield made
    made.close()


def until(qtbot: QtBot, condition: Callable[[], bool]) -> None:
    qtbot.waitUntil(condition, timeout=PATIENCE_MS)


def test_a_daemon_that_somebody_stops_stays_stopped_and_a_crash_after_that_is_one(
    qtbot: QtBot, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "FIRST_PAUSE_S", 600.0)
    assert not kept.supervisor.owned
    kept.home.stop()
    until(qtbot, lambda: kept.link.state.supervision is Supervision.STOPPED)
    assert kept.crashes == []
    kept.supervisor.start()  # its last status is still known, and says nothing about this one
    until(qtbot, lambda: kept.link.state.supervision is Supervision.WAITING)
    assert kept.crashes == [1]


def test_a_killed_daemon_counts_once(qtbot: QtBot, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "FIRST_PAUSE_S", 600.0)
    kept.home.kill()
    until(qtbot, lambda: kept.link.state.link is LinkPhase.ABSENT)
    until(qtbot, lambda: kept.link.state.supervision is Supervision.WAITING)
    assert kept.crashes == [1]


def test_a_daemon_that_hung_when_it_was_found_is_started_anew_when_it_is_gone(
    qtbot: QtBot, home: OstlerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "FIRST_PAUSE_S", 600.0)
    monkeypatch.setattr(link_module, "HUNG_AFTER", 1)
    home.start()
    daemon = home.daemon
    assert daemon is not None
    os.kill(daemon.pid, signal.SIGSTOP)
    link = Link(home.directories)
    supervisor = Supervisor(link, home.directories, CRASHING)
    link.start()
    until(qtbot, lambda: link.state.link is LinkPhase.HUNG)
    home.kill()
    until(qtbot, lambda: link.state.supervision is Supervision.WAITING)
    supervisor.let_go()
    link.stop()


HANGING = [sys.executable, "-S", "-c", "import time; time.sleep(1000)"]


def test_a_daemon_that_does_not_come_up_is_said_to_hang_and_is_ended_when_the_user_wants_that(
    qtbot: QtBot, home: OstlerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "STARTS_MS", 200)
    home.directories.ensure()
    link = Link(home.directories)
    supervisor = Supervisor(link, home.directories, HANGING)
    link.start()
    until(qtbot, lambda: link.state.link is LinkPhase.ABSENT)
    supervisor.start()
    assert link.state.supervision is Supervision.STARTING
    until(qtbot, lambda: link.state.supervision is Supervision.STUCK)
    assert status_sentence(link.state) == "Ostler's daemon does not answer"
    assert shape_of(link.state) is Shape.PROBLEM
    assert tray_view(link.state).rows[1].command == Command("restart_daemon")
    assert action_of(link.state) == ("Restart it", Command("restart_daemon"))
    first = supervisor._child
    assert first is not None
    assert first.poll() is None  # not before the user says so
    supervisor.restart()
    until(qtbot, lambda: supervisor._child not in (None, first))
    assert first.returncode == -signal.SIGKILL
    second = supervisor._child
    assert second is not None
    supervisor.let_go()
    link.stop()
    second.kill()
    second.wait()


def test_a_daemon_whose_socket_was_removed_is_there_and_cannot_be_reached(
    qtbot: QtBot, home: OstlerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "LEAVES_MS", 200)
    home.start()
    home.directories.checked_socket().unlink()
    link = Link(home.directories)
    taken = [sys.executable, "-S", "-c", "import sys; sys.exit(6)"]
    supervisor = Supervisor(link, home.directories, taken)
    link.start()
    until(qtbot, lambda: link.state.link is LinkPhase.ABSENT)
    supervisor.start()  # another one finds the lock held
    until(qtbot, lambda: link.state.supervision is Supervision.STUCK)
    given = [f"{name}={value}" for name, value in home.environ.items()]
    supervisor._command = ["/usr/bin/env", *given, sys.executable, "-m", "daemon_core.app"]
    supervisor.restart()
    until(qtbot, lambda: link.state.connected)
    assert link.state.supervision is Supervision.NONE
    supervisor.let_go()
    link.stop()
    child = supervisor._child
    assert child is not None
    child.kill()
    child.wait()


def test_last_words_of_a_stream_are_heard(desk: Desk) -> None:
    desk.link.tell(**canned.connected())
    status = b'{"status":"stopping","version":"1","pid":7}'
    event = b'data: {"revision":1,"kind":"status","data":%b}' % status
    desk.link._on_lines([event, b""])
    desk.link._on_stream_ended(None)
    assert desk.link.state.status is not None
    assert desk.link.state.status.status == "stopping"


# --- quitting ---------------------------------------------------------------------------------------


class Quit:
    """The question, and what came of it."""

    def __init__(self, link: Link, supervisor: Supervisor, theme: Theme, settings: QSettings) -> None:
        self.leaving = Leaving(link, supervisor, theme, lambda: True, lambda: settings)
        self.told: list[str] = []
        self.leaving.leave.connect(lambda: self.told.append("leave"))
        self.leaving.stays.connect(lambda: self.told.append("stays"))
        self.leaving.failed.connect(lambda failure: self.told.append(type(failure).__name__))

    @property
    def words(self) -> list[str]:
        box = self.leaving.box
        assert box is not None
        return [box.title.text(), box.text.text()]

    def press(self, text: str) -> None:
        box = self.leaving.box
        assert box is not None
        click(next(each for each in box.buttons.values() if each.text() == text))


def test_stopping_everything_is_heard_by_the_daemon_before_the_desktop_ends(
    qtbot: QtBot, theme: Theme, kept: Kept
) -> None:
    task = kept.home.add("sleep 1000", "shell")
    until(qtbot, lambda: bool(kept.link.state.active))
    settings = QSettings(str(kept.home.root / "desktop.ini"), QSettings.Format.IniFormat)
    quit_ = Quit(kept.link, kept.supervisor, theme, settings)
    quit_.leaving.ask(about_nothing=True)
    assert quit_.words[:2] == [
        "1 task is running.",
        "It goes on without the tray. So does Ostler's daemon, which was not started from here.",
    ]
    quit_.press("Cancel")
    assert quit_.told == ["stays"]
    quit_.leaving.ask(about_nothing=True)
    quit_.press("Stop everything and quit")
    until(qtbot, lambda: quit_.told == ["stays", "leave"])
    daemon = kept.home.daemon
    assert daemon is not None
    assert daemon.wait(30) == 0
    assert kept.link.state.tasks[task].id == task


def test_quitting_with_nothing_to_do_says_what_goes_on_and_can_be_remembered(
    qtbot: QtBot, theme: Theme, desk: Desk
) -> None:
    supervisor = Supervisor(desk.link, desk.link.directories)
    quit_ = Quit(desk.link, supervisor, theme, desk.settings)
    quit_.leaving.ask(about_nothing=True)  # no daemon: nothing to be said
    assert quit_.told == ["leave"]
    desk.link.tell(**canned.connected())
    quit_.leaving.ask(about_nothing=False)  # the window of a desktop without a tray was closed
    assert quit_.told == ["leave", "leave"]
    quit_.leaving.ask(about_nothing=True)
    assert quit_.words[0] == "Nothing is running."
    assert quit_.words[1].endswith("goes on and takes new tasks.")
    quit_.press("Stop the daemon and quit")  # there is none in truth
    qtbot.waitUntil(lambda: quit_.told[2:] == ["Unreachable", "stays"], timeout=PATIENCE_MS)
    quit_.leaving.ask(about_nothing=True)
    box = quit_.leaving.box
    assert box is not None
    assert box.always is not None
    box.always.setChecked(True)
    quit_.press("Quit the tray")
    assert quit_.told[4:] == ["leave"]
    assert desk.settings.value(KEPT) == "leave"
    quit_.leaving.ask(about_nothing=True)  # not asked any more
    assert quit_.told[5:] == ["leave"]
    desk.link.tell(**canned.connected(canned.row("a", "Fix login")))
    quit_.leaving.ask(about_nothing=True)  # what runs is another matter
    assert quit_.words[0] == "1 task is running."
    quit_.press("Cancel")
    supervisor.let_go()
