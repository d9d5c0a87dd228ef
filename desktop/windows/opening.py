"""Does what concerns windows and tasks: shows the window, and asks the daemon for what was clicked.

The window is made when it is first wanted; until then nothing of it is imported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from PySide6.QtCore import QObject, QRect, QSettings, QSize, QTimer, QUrl, Signal
from PySide6.QtGui import QColor, QDesktopServices, QGuiApplication

from daemon_core.control.connection_views import TryAgain
from daemon_core.control.views import TaskAnswer, TaskExtend, TaskView
from daemon_core.settings.directories import Directories
from desktop.commands import Command
from desktop.daemon.http import Failure
from desktop.daemon.link import Link
from desktop.models.drafts import Drafts
from desktop.models.settings import SettingsStore
from desktop.text import _
from desktop.theme.palette import Theme

if TYPE_CHECKING:
    from desktop.notifications.messages import Messages
    from desktop.windows.context import Context
    from desktop.windows.first_run import FirstRunWindow
    from desktop.windows.main import MainWindow
    from desktop.windows.panel import Panel
    from desktop.windows.settings import SettingsPage
    from desktop.windows.settings_general import Autostart

log = logging.getLogger("ostler.desktop.windows")

EXTEND_S: Final = 1800.0
"""What "more time" is."""


class Windows(QObject):
    """The windows of one desktop. ``ask`` has other commands done.

    Signals:
        closed(): The user closed the last window. The panel of the tray is none.
    """

    closed = Signal()

    def __init__(
        self,
        link: Link,
        theme: Theme,
        directories: Directories,
        ask: Callable[[Command], None],
        parent: QObject | None = None,
        *,
        store: SettingsStore | None = None,
    ) -> None:
        super().__init__(parent)
        self._store = store
        self.autostart: Callable[[], Autostart] | None = None
        self.messages: Messages | None = None
        self.balloon: Callable[[str, str], None] | None = None
        """Says something where no window is open."""
        self._link = link
        self._theme = theme
        self._directories = directories
        self._ask = ask
        self._main: MainWindow | None = None
        self._panel: Panel | None = None
        self._first_run: FirstRunWindow | None = None
        self._settings: QSettings | None = None
        self._drafts = Drafts(directories.state / "desktop-drafts.json", self)
        self._ends = False

    @property
    def made(self) -> bool:
        """Whether the window was ever wanted."""
        return self._main is not None

    def shown_page(self) -> str:
        """The page that the window shows, if it can be opened by its name; empty where no window is open."""
        if self._main is None or not self._main.isVisible():
            return ""
        return self._main.page_name if self._main.page_name != "task" else "now"

    @property
    def main(self) -> MainWindow:
        """The window, made now if need be."""
        if self._main is None:
            from desktop.windows.main import MainWindow

            self._main = MainWindow(self._context(), self.settings)
            self._main.closed.connect(self._on_closed)
        return self._main

    @property
    def shown(self) -> bool:
        """Whether there is a window on the screen, or minimised."""
        return any(each is not None and each.isVisible() for each in (self._main, self._first_run))

    def looked_at(self) -> str:
        """The task in the window, or the job as ``job:ID``, while that has the focus; empty: none."""
        if self._main is None or not self._main.isActiveWindow():
            return ""
        if self._main.page_name == "jobs":
            from desktop.windows.jobs import JobsPage

            page = self._main.page("jobs")
            return f"job:{page.job_id}" if isinstance(page, JobsPage) and page.job_id else ""
        return self._task_of(self._main)

    @property
    def first_run_due(self) -> bool:
        """Whether this profile is a fresh one, and nobody was shown around."""
        return not self.settings.value("first_run/done") and not self.settings.contains("window/geometry")

    def tell(self, sentence: str) -> bool:
        """Say for a while why something was not done; False: there is no window to say it in."""
        for place in (self._panel, self._main):  # the panel is what is in front
            if place is not None and place.isVisible():
                place.tell(sentence)
                return True
        return False

    def show_aside(self) -> None:
        """Have the window among the others, out of the way of what the user does."""
        if not self.main.page_name:
            self.main.open_page("now")
        self.main.showMinimized()

    def _first_run_window(self) -> FirstRunWindow:
        if self._first_run is None:
            from desktop.windows.first_run import FirstRunWindow

            self._first_run = FirstRunWindow(self._context(), self.settings)
            self._first_run.finished.connect(self._on_first_run_finished)
        return self._first_run

    def _on_first_run_finished(self) -> None:
        window, self._first_run = self._first_run, None
        if window is not None:
            window.deleteLater()
            self._on_closed()

    def _on_closed(self) -> None:
        # Not at once: it is on the screen still, and its last button may ask for another window.
        QTimer.singleShot(0, self, self._tell_if_last)

    def _tell_if_last(self) -> None:
        if not self._ends and not self.shown:
            self.closed.emit()

    def _context(self) -> Context:
        from desktop.windows.context import Context

        prepare()
        autostart = self.autostart() if self.autostart is not None else None
        return Context(
            self._link, self._theme, self._ask, self._store, autostart, self.messages, self._drafts
        )

    @property
    def settings(self) -> QSettings:
        """What windows remember."""
        if self._settings is None:
            self._settings = QSettings(
                str(self._directories.state / "desktop.ini"), QSettings.Format.IniFormat
            )
        return self._settings

    def toggle_panel(self, place: Callable[[QSize], QRect]) -> None:
        """A click on the tray icon: the panel comes up beside it, or goes away."""
        if self._panel is None:
            from desktop.windows.panel import Panel

            self._panel = Panel(self._context(), self.settings)
        self._panel.toggle(place)

    def do(self, command: Command) -> None:
        """Do one of the commands that are about windows and tasks."""
        path = f"/v1/tasks/{quote(command.subject, safe='')}"
        match command.name:
            case "open":
                self.main.open_page(command.subject)
                if command.subject == "settings" and command.detail:
                    self._settings_page().open_section(command.detail)
                elif command.subject == "jobs" and command.detail:
                    self._choose_job(command.detail)
                self.main.bring_up()
            case "sign_in":
                self.main.open_page("settings")
                self._settings_page().sign_in(command.subject)
                self.main.bring_up()
            case "retry_now":
                self._link.call(
                    object, "POST", "/v1/connections/try-again", TryAgain(server=command.subject),
                    failed=self._refused("try-again"),
                )  # fmt: skip
            case "open_task":
                self.main.open_task(command.subject)
                self.main.bring_up()
            case "first_run":
                self._first_run_window().bring_up()
            case "new_task":
                self.main.new_task()
                self.main.bring_up()
            case "extend_task":
                self._post(f"{path}/extend", TaskExtend(seconds=EXTEND_S))
            case "retry_task":
                self._post(f"{path}/retry", done=lambda task: self._ask(Command("open_task", task.id)))
            case "answer":
                from desktop.models.requests import decode_answer

                choice, text = decode_answer(command.choice)
                if choice in ("allow", "allow-task", "deny"):
                    wanted = TaskAnswer(decision=choice, text=text)  # type: ignore[arg-type]
                    self._post(f"{path}/requests/{quote(command.detail, safe='')}/answer", wanted)
            case "open_directory":
                self._link.call(TaskView, "GET", path, done=_open_directory, failed=self._refused(path))
            case "open_terminal" | "open_editor":
                terminal = command.name == "open_terminal"
                self._link.call(
                    TaskView, "GET", path, done=lambda task: self._start_in(task, terminal=terminal),
                    failed=self._refused(path),
                )  # fmt: skip
            case _:
                raise ValueError(command.name)

    def _choose_job(self, job_id: str) -> None:
        from desktop.windows.jobs import JobsPage

        page = self.main.page("jobs")
        assert isinstance(page, JobsPage)
        page.choose_job(job_id)

    def _start_in(self, task: TaskView, *, terminal: bool) -> None:
        from desktop import places

        place = task.work_dir or task.directory
        if not place:
            return
        wanted = "desktop.terminal" if terminal else "desktop.editor"
        setting = self._store.text(wanted) if self._store is not None else ""
        plan = places.plan_terminal(place, setting) if terminal else places.plan_editor(place, setting)
        if plan is None or not places.start(plan):
            what = plan.program if plan is not None else ""
            log.warning("%s could not be opened in %s: %s", wanted, place, what or "nothing was found")
            self.main.tell(
                _("No terminal could be opened. Say in the settings which one you use.")
                if terminal
                else _("No editor could be opened. Say in the settings which one you use.")
            )

    def make_anew(self) -> None:
        """Windows in another language: each text is made when its widget is. What was open is open again,
        at the same place and page, with what was written there."""
        panel, self._panel = self._panel, None
        if panel is not None:
            panel.close()
            panel.deleteLater()
        old, self._main = self._main, None
        if old is None:
            return
        shown, page, minimised = old.isVisible(), old.page_name, old.isMinimized()
        section, task = self._section_of(old), self._task_of(old)
        old.closed.disconnect(self._on_closed)
        old.close()
        old.deleteLater()
        if shown:
            self.main.open_page(page if page != "task" else "now")
            if task:
                self.main.open_task(task)
            if section:
                self._settings_page().open_section(section)
            if not minimised:
                self.main.bring_up()

    @staticmethod
    def _task_of(window: MainWindow) -> str:
        """The task that the window shows; empty: none."""
        if window.page_name != "task":
            return ""
        from desktop.windows.task import TaskPage

        page = window.page("task")
        return page.task_id if isinstance(page, TaskPage) else ""

    def _settings_page(self) -> SettingsPage:
        from desktop.windows.settings import SettingsPage

        page = self.main.page("settings")
        assert isinstance(page, SettingsPage)
        return page

    def _section_of(self, window: MainWindow) -> str:
        if window.page_name != "settings":
            return ""
        from desktop.windows.settings import SettingsPage

        page = window.page("settings")
        return page.section if isinstance(page, SettingsPage) else ""

    def close(self) -> None:
        """Close what is open; its place is remembered, and what was written there."""
        self._ends = True
        if self._panel is not None:
            self._panel.close()
        if self._first_run is not None:
            self._first_run.abandon()
        if self._main is not None:
            self._main.close()
        self._drafts.save()

    def _post(self, path: str, body: Any = None, done: Callable[[TaskView], None] | None = None) -> None:
        self._link.call(TaskView, "POST", path, body, done=done, failed=self._refused(path))

    def _refused(self, path: str) -> Callable[[Failure], None]:
        def tell(failure: Failure) -> None:
            log.warning("%s was refused: %s", path, failure)
            from desktop.windows.task import refusal_sentence

            sentence = refusal_sentence(failure)
            if not self.tell(sentence) and self.balloon is not None:
                self.balloon(_("Ostler did not do it"), sentence)

        return tell


def prepare() -> None:
    """What every window needs: an icon, and a way to tell screen readers what it paints. Not at the start,
    since there may never be a window."""
    from desktop.theme import mark
    from desktop.windows import access

    if QGuiApplication.windowIcon().isNull():
        access.install()
        QGuiApplication.setWindowIcon(mark.app_icon(*map(QColor, mark.APP_COLOURS)))


def _open_directory(task: TaskView) -> None:
    place = task.work_dir or task.directory
    if place:
        QDesktopServices.openUrl(QUrl.fromLocalFile(place))
