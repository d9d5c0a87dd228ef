"""Builds the desktop and runs it: the one place that knows all of its rooms.

Order at the start: one instance, theme, link, tray, and only then the daemon, so that there is an icon to
look at while it starts. Order at the end: notifications and tray away, link closed, the daemon left running.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

from PySide6.QtCore import QLocale, QObject, QSocketNotifier, Qt, QTimer, QUrl
from PySide6.QtGui import QColor, QDesktopServices
from PySide6.QtWidgets import QApplication, QMessageBox, QPushButton

from daemon_core import __version__
from daemon_core.control.views import Pause, TaskView
from daemon_core.settings.directories import Directories, resolve
from daemon_core.settings.errors import SettingsError
from desktop.commands import Command
from desktop.daemon.link import Link
from desktop.daemon.supervisor import Supervisor
from desktop.models.state import DesktopState
from desktop.single import SingleInstance
from desktop.text import _, choose_language, n_
from desktop.theme import mark
from desktop.theme.palette import Theme
from desktop.tray.icon import TrayIcon
from desktop.tray.view import TrayView, tray_view
from desktop.windows.opening import Windows

log = logging.getLogger("ostler.desktop")

EXIT_USAGE: Final = 2
MENU_REFRESH_MS: Final = 250
"""A flood of changes moves the tray this often at most."""


class Desktop(QObject):
    """The desktop of one profile."""

    def __init__(self, app: QApplication, directories: Directories) -> None:
        super().__init__(app)
        self.app = app
        self.directories = directories
        self.theme = Theme(app)
        self.link = Link(directories, self)
        self.supervisor = Supervisor(self.link, directories, parent=self)
        self.tray = TrayIcon(self._tray_view, self._panel_colour, self)
        self.tray.chosen.connect(self.do)
        self.tray.activated.connect(self._on_activated)
        self._asking: QMessageBox | None = None
        self._refresh = QTimer(self)
        self._refresh.setSingleShot(True)
        self._refresh.setInterval(MENU_REFRESH_MS)
        self._refresh.timeout.connect(self._show_tray)
        self.link.changed.connect(self._on_changed)
        self.theme.changed.connect(self.tray.repaint)
        self.windows = Windows(self.link, self.theme, directories, self.do, self)

    def start(self) -> None:
        """Show the icon, find the daemon or start one."""
        self._show_tray()
        self.link.changed.connect(self._start_daemon_once)
        self.link.start()

    def close(self) -> None:
        """Let go of everything; the daemon and its tasks go on."""
        self._refresh.stop()
        self.supervisor.let_go()
        self.link.stop()
        self.windows.close()
        self.tray.hide()

    # --- what a click asks for ---------------------------------------------------------------------

    def do(self, command: Command) -> None:
        """Do what was chosen somewhere."""
        match command.name:
            case "cancel_task":
                self._post(TaskView, f"/v1/tasks/{command.subject}/cancel")
            case "pause":
                self._post(object, "/v1/daemon/pause", Pause(until=pause_end(command.detail)))
            case "resume":
                self._post(object, "/v1/daemon/resume")
            case "runtime_on" | "runtime_off" | "runtime_restart":
                self._post(object, f"/v1/runtimes/{command.subject}/{command.name.removeprefix('runtime_')}")
            case (
                "open" | "open_task" | "new_task" | "open_directory" | "answer" | "extend_task" | "retry_task"
            ):
                self.windows.do(command)
            case "start_daemon":
                self.supervisor.start()
            case "restart_daemon":
                self.supervisor.restart()
            case "show_logs":
                QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.directories.log_dir)))
            case "quit":
                self.ask_to_quit()
            case _:
                log.warning("nothing here does %s yet", command.name)

    def ask_to_quit(self) -> None:
        """Ask once, in words that say what goes on; quit at once where nothing does."""
        running = len(self.link.state.active) + len(self.link.state.needing)
        if not running or not self.link.state.connected:
            self.app.quit()
            return
        if self._asking is not None:
            self._asking.raise_()
            return
        box = QMessageBox()
        box.setIcon(QMessageBox.Icon.NoIcon)
        box.setWindowTitle("Ostler")
        box.setText(n_("{n} task is running.", "{n} tasks are running.", running))
        box.setInformativeText(n_("It goes on without the tray.", "They go on without the tray.", running))
        leave = box.addButton(_("Quit the tray"), QMessageBox.ButtonRole.AcceptRole)
        end = box.addButton(
            n_("Stop it and quit", "Stop them and quit", running), QMessageBox.ButtonRole.DestructiveRole
        )
        box.addButton(_("Cancel"), QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(leave)
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.buttonClicked.connect(lambda button: self._on_quit_answer(button, leave, end))
        box.finished.connect(self._on_quit_asked)
        self._asking = box
        box.open()

    def _on_quit_answer(self, button: object, leave: QPushButton, end: QPushButton) -> None:
        if button is end:
            self.supervisor.stop(runs=True)
            self.app.quit()
        elif button is leave:
            self.app.quit()

    def _on_quit_asked(self, _result: int) -> None:
        self._asking = None

    def _post(self, kind: Any, path: str, body: Any = None) -> None:
        self.link.call(
            kind, "POST", path, body, failed=lambda failure: log.warning("%s was refused: %s", path, failure)
        )

    # --- what happens ------------------------------------------------------------------------------

    def asked(self, wish: str) -> None:
        """Another start of the desktop wants something of this one."""
        name, _space, subject = wish.partition(" ")
        if name == "open_task":
            self.do(Command("open_task", subject))
        elif name != "background":  # a start at login finds one that runs: nothing comes up for that
            self.do(Command("open", "now"))

    def _on_changed(self, before: DesktopState, state: DesktopState) -> None:
        if not self._refresh.isActive():
            self._refresh.start()

    def _start_daemon_once(self, before: DesktopState, state: DesktopState) -> None:
        """What is found first decides: a daemon that is there is adopted, else one is started."""
        self.link.changed.disconnect(self._start_daemon_once)
        if not state.connected:
            self.supervisor.start()

    def _on_activated(self) -> None:
        self.do(Command("open", "now"))

    def _show_tray(self) -> None:
        self.tray.show(self._tray_view())

    def _tray_view(self) -> TrayView:
        return tray_view(self.link.state)

    def _panel_colour(self) -> QColor:
        return QColor(self.theme.colours.text)


def pause_end(choice: str, now: dt.datetime | None = None) -> str | None:
    """Until when a pause lasts: ``1h``, ``tomorrow`` (eight in the morning here), or until it is ended."""
    moment = (now or dt.datetime.now(dt.UTC)).astimezone()
    if choice == "1h":
        end = moment + dt.timedelta(hours=1)
    elif choice == "tomorrow":
        day = moment.date() + dt.timedelta(days=1)
        end = dt.datetime.combine(day, dt.time(8)).astimezone()
    else:
        return None
    return end.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def run(arguments: Sequence[str]) -> int:
    """The ``ostler-desktop`` program; its exit code."""
    parser = argparse.ArgumentParser(prog="ostler-desktop", description="Ostler in the tray.")
    parser.add_argument("--profile", help="a second, separate daemon with its own settings and tasks")
    parser.add_argument("--background", action="store_true", help="show no window, only the icon")
    parser.add_argument("--version", action="version", version=f"ostler-desktop {__version__}")
    options = parser.parse_args(arguments)
    try:
        directories = resolve(os.environ, options.profile)
        directories.ensure()
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"ostler-desktop: {error}\n")
        return EXIT_USAGE
    app = QApplication(["ostler-desktop"])
    app.setApplicationName("ostler")
    app.setApplicationDisplayName("Ostler")
    app.setDesktopFileName("ostler")
    app.setQuitOnLastWindowClosed(False)
    choose_language(QLocale.system().uiLanguages())
    single = SingleInstance(directories)
    if not single.first():
        return 0 if single.tell_first("background" if options.background else "open") else 1
    app.setWindowIcon(mark.app_icon(QColor("#8A5A2B"), QColor("#FFFFFF")))
    desktop = Desktop(app, directories)
    single.asked.connect(desktop.asked)
    _keep = _end_on_signals(app)
    desktop.start()
    if not options.background or not desktop.tray.available:
        desktop.asked("open")
    code = app.exec()
    desktop.close()
    single.close()
    return code


def _end_on_signals(app: QApplication) -> QSocketNotifier | None:
    """End in order on SIGTERM and SIGINT: the handler only writes a byte, Qt's loop reads it."""
    if sys.platform == "win32":
        return None
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_inheritable(reading, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    notifier = QSocketNotifier(reading, QSocketNotifier.Type.Read, app)
    notifier.activated.connect(app.quit)
    return notifier


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
