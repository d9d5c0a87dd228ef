"""Does what concerns windows and tasks: shows the window, and asks the daemon for what was clicked.

The window is made when it is first wanted; until then nothing of it is imported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from PySide6.QtCore import QObject, QSettings, QUrl
from PySide6.QtGui import QDesktopServices

from daemon_core.control.views import TaskAnswer, TaskExtend, TaskView
from daemon_core.settings.directories import Directories
from desktop.commands import Command
from desktop.daemon.http import Failure
from desktop.daemon.link import Link
from desktop.theme.palette import Theme

if TYPE_CHECKING:
    from desktop.windows.main import MainWindow

log = logging.getLogger("ostler.desktop.windows")

EXTEND_S: Final = 1800.0
"""What "more time" is."""


class Windows(QObject):
    """The windows of one desktop. ``ask`` has other commands done."""

    def __init__(
        self,
        link: Link,
        theme: Theme,
        directories: Directories,
        ask: Callable[[Command], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._link = link
        self._theme = theme
        self._directories = directories
        self._ask = ask
        self._main: MainWindow | None = None

    @property
    def made(self) -> bool:
        """Whether the window was ever wanted."""
        return self._main is not None

    @property
    def main(self) -> MainWindow:
        """The window, made now if need be."""
        if self._main is None:
            from desktop.windows.context import Context
            from desktop.windows.main import MainWindow

            settings = QSettings(str(self._directories.state / "desktop.ini"), QSettings.Format.IniFormat)
            self._main = MainWindow(Context(self._link, self._theme, self._ask), settings)
        return self._main

    def do(self, command: Command) -> None:
        """Do one of the commands that are about windows and tasks."""
        path = f"/v1/tasks/{quote(command.subject, safe='')}"
        match command.name:
            case "open":
                self.main.open_page(command.subject)
                self.main.bring_up()
            case "open_task":
                self.main.open_task(command.subject)
                self.main.bring_up()
            case "new_task":
                self.main.new_task()
                self.main.bring_up()
            case "extend_task":
                self._post(f"{path}/extend", TaskExtend(seconds=EXTEND_S))
            case "retry_task":
                self._post(f"{path}/retry", done=lambda task: self._ask(Command("open_task", task.id)))
            case "answer":
                from desktop.windows.requests import decode_answer

                choice, text = decode_answer(command.choice)
                if choice in ("allow", "allow-task", "deny"):
                    wanted = TaskAnswer(decision=choice, text=text)  # type: ignore[arg-type]
                    self._post(f"{path}/requests/{quote(command.detail, safe='')}/answer", wanted)
            case "open_directory":
                self._link.call(TaskView, "GET", path, done=_open_directory, failed=self._refused(path))
            case _:
                raise ValueError(command.name)

    def close(self) -> None:
        """Close what is open; its place is remembered."""
        if self._main is not None:
            self._main.close()

    def _post(self, path: str, body: Any = None, done: Callable[[TaskView], None] | None = None) -> None:
        self._link.call(TaskView, "POST", path, body, done=done, failed=self._refused(path))

    def _refused(self, path: str) -> Callable[[Failure], None]:
        def tell(failure: Failure) -> None:
            log.warning("%s was refused: %s", path, failure)
            if self._main is not None:
                from desktop.windows.task import refusal_sentence

                self._main.tell(refusal_sentence(failure))

        return tell


def _open_directory(task: TaskView) -> None:
    place = task.work_dir or task.directory
    if place:
        QDesktopServices.openUrl(QUrl.fromLocalFile(place))
