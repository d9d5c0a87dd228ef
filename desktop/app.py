"""Builds the desktop and runs it: the one place that knows all of its rooms.

Order at the start: one instance, theme, link, tray, and only then the daemon, so that there is an icon to
look at while it starts. Order at the end: notifications and tray away, link closed, the daemon left running.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, assert_never

from PySide6.QtCore import QObject, QSocketNotifier, Qt, QTimer, QUrl
from PySide6.QtGui import QColor, QDesktopServices, QSessionManager
from PySide6.QtWidgets import QApplication, QMessageBox

from daemon_core import __version__
from daemon_core.control.views import Pause, TaskView
from daemon_core.settings import installed
from daemon_core.settings.directories import Directories, resolve, settle_home
from daemon_core.settings.errors import SettingsError
from desktop import focus, logs
from desktop.commands import Command
from desktop.daemon.http import Failure
from desktop.daemon.link import Link
from desktop.daemon.supervisor import Supervisor
from desktop.language import Language
from desktop.leaving import Leaving
from desktop.memory import GiveBack
from desktop.models.settings import SettingsStore
from desktop.models.state import DesktopState, LinkPhase
from desktop.notifications.facts import job_subject
from desktop.notifications.planner import Kind
from desktop.notifications.platform import platform
from desktop.notifications.teller import Teller
from desktop.shortcuts.shortcut import GlobalShortcut
from desktop.single import SingleInstance
from desktop.text import _
from desktop.theme.palette import Choice, Theme
from desktop.theme.tokens import colours
from desktop.tray.icon import TrayIcon
from desktop.tray.view import Asked, TrayView, tray_view
from desktop.tray.waiting import TrayPatience
from desktop.updates.asking import Updates
from desktop.updates.renewal import EXIT_SAME, WISH, Renewal, TakingOver
from desktop.windows.opening import Windows, prepare
from desktop.words import parse

if TYPE_CHECKING:
    from desktop.autostart import Autostart

log = logging.getLogger("ostler.desktop")

EXIT_NO_ANSWER: Final = 1
EXIT_USAGE: Final = 2
VERSION: Final = installed.version(__version__)
MENU_REFRESH_MS: Final = 250
"""A flood of changes moves the tray this often at most."""


class Desktop(QObject):
    """The desktop of one profile."""

    def __init__(self, app: QApplication, directories: Directories) -> None:
        super().__init__(app)
        self.app = app
        self.again: Sequence[str] | None = None
        """To begin anew in this process's place: with these arguments."""
        self.directories = directories
        self.theme = Theme(app)
        self.link = Link(directories, self)
        self.store = SettingsStore(self.link, directories.state / "desktop-settings.json", self)
        self.language = Language(app)
        self.language.choose(self.store.text("desktop.language"))
        self.theme.choose(appearance(self.store))
        self.store.changed.connect(self._on_settings)
        self.supervisor = Supervisor(self.link, directories, parent=self)
        self.tray = TrayIcon(self._tray_view, self._panel_colour, self)
        self.tray.chosen.connect(self.do)
        self.tray.activated.connect(self._on_activated)
        self._memory = GiveBack(self)
        self._explained = False
        self._refresh = QTimer(self)
        self._refresh.setSingleShot(True)
        self._refresh.setInterval(MENU_REFRESH_MS)
        self._refresh.timeout.connect(self._show_tray)
        self.link.changed.connect(self._on_changed)
        self.theme.changed.connect(self.tray.repaint)
        self.shortcut = GlobalShortcut(app.platformName(), self)
        self.shortcut.pressed.connect(lambda: self.do(Command("new_task")))
        self.shortcut.refused.connect(self._on_no_shortcut)
        self.windows = Windows(self.link, self.theme, directories, self.do, self, store=self.store)
        self.windows.autostart = self._autostart
        self.windows.balloon = self.tray.tell
        shown = directories.state / "desktop-shown.json"
        self.platform = platform(self.tray.tell, directories.cache, self, shown)
        self.teller = Teller(
            self.link, self.store, self.platform.service, self.platform.disturbance,
            directories.state / "desktop-told.json", self.do, self.windows.looked_at, self,
        )  # fmt: skip
        self.windows.messages = self.teller.messages
        self.windows.closed.connect(self._on_window_closed)
        self.leaving = Leaving(
            self.link, self.supervisor, self.theme,
            lambda: self.tray.available, lambda: self.windows.settings, self,
        )  # fmt: skip
        self.leaving.leave.connect(app.quit)
        self.leaving.stays.connect(self._on_stays)
        self.leaving.failed.connect(self._on_not_stopped)
        self.supervisor.refused.connect(self._on_not_stopped)
        self.patience = TrayPatience(lambda: self.tray.available, self)
        self.patience.alone.connect(self._on_no_tray)
        self.tray.availability_changed.connect(self._on_tray)
        self.tray.opened.connect(self.link.look)
        app.applicationStateChanged.connect(self._on_application)
        app.commitDataRequest.connect(_not_at_login)
        if self.platform.bus is not None:
            self.platform.bus.up.connect(self._on_bus)
        self.updates = Updates(self.link, self.tray.tell, self)
        launched = installed.launcher_directory() is not None
        command = [*installed.program("ostler-desktop"), "--profile", directories.profile]
        self.renewal = Renewal(
            self.link, VERSION, command if launched else (), self.windows.shown_page, parent=self
        )
        self.teller.messages.changed.connect(self._on_messages)

    def start(self) -> None:
        """Show the icon, find the daemon or start one."""
        self._show_tray()
        self.shortcut.hold(self.store.text("desktop.global_shortcut"))
        self.link.changed.connect(self._start_daemon_once)
        self.link.start()
        self._memory.soon()

    def close(self) -> None:
        """Let go of everything; the daemon and its tasks go on."""
        self.shortcut.close()
        self._memory.stop()
        self.patience.stop()
        self._refresh.stop()
        self.teller.close()
        self.platform.close()
        self.renewal.let_go()
        self.supervisor.let_go()
        self.link.stop()
        self.windows.close()
        self.tray.hide()

    # --- what a click asks for ---------------------------------------------------------------------

    def do(self, command: Command) -> None:
        """Do what was chosen somewhere."""
        if command.name == "open_task":
            self.teller.handled(command.subject)
        elif command.name == "open" and command.subject == "jobs" and command.detail:
            self.teller.handled(job_subject(command.detail))
        match command.name:
            case "cancel_task":
                self._post(TaskView, f"/v1/tasks/{command.subject}/cancel")
            case "pause":
                self._post(object, "/v1/daemon/pause", Pause(until=pause_end(command.detail)))
            case "resume":
                self._post(object, "/v1/daemon/resume")
            case "spend_continue":
                self._post(object, "/v1/spend/continue")
            case "runtime_on" | "runtime_off" | "runtime_restart":
                self._post(object, f"/v1/runtimes/{command.subject}/{command.name.removeprefix('runtime_')}")
            case (
                "open" | "open_task" | "new_task" | "open_directory" | "answer" | "extend_task" | "retry_task"
                | "open_terminal" | "open_editor" | "sign_in" | "retry_now" | "first_run"
            ):  # fmt: skip
                self.windows.do(command)
            case "start_daemon":
                self.supervisor.start()
            case "restart_daemon":
                self.supervisor.restart()
            case "restart_desktop":
                if not self.renewal.start():
                    self.again = ()
                    self.app.quit()
            case "reconnect":
                self.link.connect_now()
            case "snooze":
                until = pause_end(command.detail) if command.detail != "off" else None
                self.teller.snooze(parse(until))
            case "show_logs":
                QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.directories.log_dir)))
            case "update" | "update_later" | "update_check" | "update_rollback":
                self.updates.do(command)
            case "quit":
                self.ask_to_quit()
            case _:
                assert_never(command.name)

    def ask_to_quit(self, *, about_nothing: bool = True) -> None:
        """Ask once, in words that say what goes on."""
        prepare()
        self.leaving.ask(about_nothing=about_nothing)

    def _on_stays(self) -> None:
        if not self.windows.shown and not self.tray.available:
            self.windows.main.bring_up()  # else nothing of this program could be seen any more

    def _on_not_stopped(self, failure: Failure) -> None:
        log.warning("the daemon did not take the wish to stop: %s", failure)
        self._say(_("Ostler's daemon did not stop"), failure)

    def _say(self, title: str, failure: Failure) -> None:
        """Why something was not done, where the user is: in the window, else at the tray."""
        from desktop.windows.task import refusal_sentence

        sentence = refusal_sentence(failure)
        if not self.windows.tell(sentence):
            self.tray.tell(title, sentence)

    def _autostart(self) -> Autostart:
        from desktop.autostart import platform_autostart

        return platform_autostart(self.directories)

    def _post(self, kind: Any, path: str, body: Any = None) -> None:
        def refused(failure: Failure) -> None:
            log.warning("%s was refused: %s", path, failure)
            self._say(_("That was not done"), failure)

        self.link.call(kind, "POST", path, body, failed=refused)

    # --- what happens ------------------------------------------------------------------------------

    def asked(self, wish: str) -> None:
        """Another start of the desktop wants something of this one."""
        wish, _tab, token = wish.partition("\t")
        focus.allow(token)
        name, _space, subject = wish.partition(" ")
        if name == "open_task":
            self.do(Command("open_task", subject))
        elif name == WISH:
            log.info("another version of the desktop takes over")
            self.app.quit()
        elif name != "background":  # a start at login finds one that runs: nothing comes up for that
            self.do(Command("open", "now"))

    def _on_changed(self, before: DesktopState, state: DesktopState) -> None:
        if not self._refresh.isActive():
            self._refresh.start()

    def _on_messages(self) -> None:
        if not self._refresh.isActive():
            self._refresh.start()

    def _on_settings(self, _keys: frozenset[str]) -> None:
        """Look, language and shortcut follow at once, whoever has changed them."""
        self.shortcut.hold(self.store.text("desktop.global_shortcut"))
        self.theme.choose(appearance(self.store))
        if self.language.choose(self.store.text("desktop.language")):
            # Not from inside of a click into one of the windows that go.
            QTimer.singleShot(0, self, self._speak_anew)

    def _on_no_shortcut(self, keys: str, why: str) -> None:
        """Said where the user is, if a window is open: most likely the setting was just changed there."""
        if self.windows.made:
            told = {
                "not_keys": _("{keys} is not a shortcut. Write it like Ctrl+Alt+O."),
                "taken": _("{keys} is in use by another program. Choose other keys in the settings."),
                "no_such_key": _("This keyboard has no such key: {keys}."),
            }.get(why, _("Your desktop does not give {keys} to programs."))
            self.windows.main.tell(told.format(keys=keys))

    def _on_window_closed(self) -> None:
        """The last window is gone. With an icon in the tray the desktop goes on, which is said once; without
        one nobody could see it, so it ends too, and asks first where tasks run."""
        if self.app.isSavingSession():
            return  # the user logs out, which closes every window
        self._memory.soon()
        if self._on_bus():
            return
        if not self.tray.available:
            self.ask_to_quit(about_nothing=False)
        elif self.store.flag("desktop.explain_close") and not self._explained:
            self._explained = True
            self.tray.tell(
                _("Ostler goes on in the tray"),
                _("Tasks run on. A click on the icon brings the window back; its menu has “Quit…”."),
            )
            self.store.set("desktop.explain_close", False)

    def _on_tray(self, available: bool) -> None:
        """A tray came or went. One that went may come back; if not, nothing of us would be seen."""
        if available or self.windows.shown:
            self.patience.stop()
        else:
            self.patience.begin()

    def _on_bus(self) -> bool:
        """The session's bus is there, and may be another one than before: an icon can be had of it in another
        life of this process only. Not while somebody looks at a window: the end of that comes here, too."""
        bus = self.platform.bus
        if bus is None or not bus.ready or not self.tray.cut_off or self.windows.shown:
            return False
        log.info("the session has another bus: beginning anew for an icon there")
        address = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
        if address:  # it may name the one bus that it was, and no other is taken for that
            os.environ["DBUS_SESSION_BUS_ADDRESS"] = re.sub(r",guid=[0-9a-f]+", "", address)
        self.again = ("--background",)
        self.app.quit()
        return True

    def _on_no_tray(self) -> None:
        if not self.windows.shown:
            self.windows.show_aside()

    def _on_application(self, state: Qt.ApplicationState) -> None:
        if state is Qt.ApplicationState.ApplicationActive:
            self.link.look()

    def _speak_anew(self) -> None:
        self._show_tray()
        self.windows.make_anew()

    def _start_daemon_once(self, before: DesktopState, state: DesktopState) -> None:
        """What is found first decides: a daemon that is there is adopted, else one is started."""
        self.link.changed.disconnect(self._start_daemon_once)
        if not state.connected and state.link not in (LinkPhase.HUNG, LinkPhase.TOO_OLD, LinkPhase.TOO_NEW):
            self.supervisor.start()

    def _on_activated(self, twice: bool) -> None:
        self.link.look()
        place = None if twice else self.tray.place()
        if place is not None:
            self.windows.toggle_panel(place)
        else:
            self.do(Command("open", "now"))

    def _show_tray(self) -> None:
        self.tray.show(self._tray_view())

    def _tray_view(self) -> TrayView:
        return tray_view(
            self.link.state,
            asked={
                fact.task: Asked(fact.text, fact.buttons)
                for fact in self.teller.messages.facts  # the newest first: the oldest question stays
                if fact.kind is Kind.NEEDS_YOU
            },
            messages=len(self.teller.messages.news),
            snoozed_until=self.teller.snooze_until,
        )

    def _panel_colour(self) -> QColor:
        dark = self.tray.rules.dark_bar
        return QColor(self.theme.colours.text if dark is None else colours(dark=dark).text)


def appearance(store: SettingsStore) -> Choice:
    """What the user wants it to look like."""
    match store.text("desktop.appearance"):
        case "light":
            return "light"
        case "dark":
            return "dark"
        case _:
            return "system"


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
    parser.add_argument("--version", action="version", version=f"ostler-desktop {VERSION}")
    # Of the desktop that starts this one to be followed by it: its version, and the page that it shows.
    parser.add_argument("--take-over", metavar="VERSION", help=argparse.SUPPRESS)
    parser.add_argument("--page", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    settle_home(os.environ)
    try:
        directories = resolve(os.environ, options.profile)
        directories.ensure()
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"ostler-desktop: {error}\n")
        return _cannot_start(str(error))
    taking_over = options.take_over is not None
    if taking_over and options.take_over == VERSION:
        return EXIT_SAME
    token = focus.token()
    app = _application()
    app.setQuitOnLastWindowClosed(False)
    single = SingleInstance(directories)
    if not taking_over and not single.first():
        if single.tell_first("background" if options.background else "open", token):
            return 0
        return EXIT_NO_ANSWER if options.background else _no_answer(app)
    with logs.kept(directories):
        code, again = _live(app, directories, single, options)
    if again is not None:
        command = [
            *installed.program("ostler-desktop"),
            *(["--profile", options.profile] if options.profile else []),
            *again,
        ]
        os.execv(command[0], command)
    return code


def _live(
    app: QApplication, directories: Directories, single: SingleInstance, options: argparse.Namespace
) -> tuple[int, Sequence[str] | None]:
    """The life of the one desktop: its exit code, and with what it wants to begin anew."""
    taking_over = options.take_over is not None
    log.info("Ostler's desktop %s starts as process %d", VERSION, os.getpid())
    desktop = Desktop(app, directories)
    single.asked.connect(desktop.asked)
    _keep = _end_on_signals(app)
    desktop.start()
    if not taking_over:
        desktop.teller.begin()
    else:
        taking = TakingOver(single, desktop.link, desktop)
        taking.taken.connect(desktop.teller.begin)
        taking.refused.connect(lambda: app.exit(1))
        if options.page:
            taking.taken.connect(lambda: desktop.do(Command("open", options.page)))
    if not taking_over and options.background and not desktop.tray.available:
        desktop.patience.begin()
    elif not taking_over and not options.background:
        desktop.do(Command("first_run") if desktop.windows.first_run_due else Command("open", "now"))
    code = app.exec()
    desktop.close()
    single.close()
    log.info("Ostler's desktop ends with exit code %d", code)
    return code, desktop.again


def _not_at_login(session: QSessionManager) -> None:
    """The session ends. What starts this at the next login is the user's own switch and nothing else: a
    session that brings its programs back would start it beside that, or against it."""
    session.setRestartHint(QSessionManager.RestartHint.RestartNever)


def _application() -> QApplication:
    app = QApplication(["ostler-desktop"])
    app.setApplicationName("ostler")
    app.setApplicationDisplayName("Ostler")
    app.setDesktopFileName("ostler")
    return app


def _cannot_start(why: str) -> int:
    """Say it where somebody sees it: who starts this from a menu sees no terminal."""
    app = _application()
    Language(app).choose("system")
    _tell_and_end(app, _("Ostler cannot start"), _("Its own directories cannot be used: {why}", why=why))
    return EXIT_USAGE


def _no_answer(app: QApplication) -> int:
    """Another desktop of this profile has the place and does not do what it is asked."""
    Language(app).choose("system")
    _tell_and_end(
        app,
        _("Ostler runs already and does not answer"),
        _("End the program “ostler-desktop” and start Ostler again. Tasks go on meanwhile."),
    )
    return EXIT_NO_ANSWER


def _tell_and_end(app: QApplication, title: str, text: str) -> None:
    _keep = _end_on_signals(app)
    Theme(app)
    prepare()
    box = QMessageBox()
    box.setWindowTitle("Ostler")
    box.setText(title)
    box.setInformativeText(text)
    box.addButton(_("Close"), QMessageBox.ButtonRole.AcceptRole)
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.finished.connect(app.quit)
    box.open()
    app.exec()


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
    logging.basicConfig(level=logging.INFO, format=logs.FORM)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
