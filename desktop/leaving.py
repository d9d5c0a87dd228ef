"""Quitting: one question, in words that say what goes on. Daemon and tasks go on unless the user says
otherwise, and then the desktop is gone only after the daemon has said that it stops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QObject, QSettings, Signal

from desktop.daemon.http import Failure
from desktop.daemon.link import Link
from desktop.daemon.supervisor import Supervisor
from desktop.text import _, n_
from desktop.theme.palette import Theme

if TYPE_CHECKING:
    from desktop.windows.question import Question

KEPT: Final = "quit/nothing_runs"
"""What is done when nothing runs, once the user has said that it is always that: ``leave`` or ``stop``."""


class Leaving(QObject):
    """Asks whether to quit.

    Args:
        in_tray: Whether there is a tray to be seen in: else what is quitted is a window.
        settings: Where it is kept what not to ask again.

    Signals:
        leave(): The desktop may end.
        stays(): The user has thought better of it.
        failed(object): The daemon was to stop and did not say that it will.
    """

    leave = Signal()
    stays = Signal()
    failed = Signal(object)

    def __init__(
        self,
        link: Link,
        supervisor: Supervisor,
        theme: Theme,
        in_tray: Callable[[], bool],
        settings: Callable[[], QSettings],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._link = link
        self._supervisor = supervisor
        self._theme = theme
        self._in_tray = in_tray
        self._settings = settings
        self.box: Question | None = None

    def ask(self, *, about_nothing: bool) -> None:
        """Leave at once where nothing is to be said. ``about_nothing``: a daemon without a task is something
        to be said, too, since it takes the next one by itself."""
        if self.box is not None:
            self.box.raise_()
            return
        state = self._link.state
        running = len(state.active) + len(state.needing)
        known = str(self._settings().value(KEPT, "") or "") if not running else ""
        if not state.connected or (not running and (not about_nothing or known == "leave")):
            self.leave.emit()
        elif known == "stop":
            self._stop()
        else:
            self._show(running)

    def _show(self, running: int) -> None:
        from desktop.windows.question import Question

        box = self.box = Question(
            n_("{n} task is running.", "{n} tasks are running.", running)
            if running
            else _("Nothing is running."),
            self._goes_on(running),
            (
                ("leave", _("Quit the tray") if self._in_tray() else _("Close the window")),
                ("stop", self._stopping(running)),
            ),
            lambda: self._theme.colours,
            always="" if running else _("Always do that when nothing is running"),
        )
        box.answered.connect(self._on_answered)
        box.open()
        box.raise_()
        box.activateWindow()

    def _on_answered(self, what: str, always: bool) -> None:
        self.box = None
        if what and always:
            self._settings().setValue(KEPT, what)
        if what == "leave":
            self.leave.emit()
        elif what == "stop":
            self._stop()
        else:
            self.stays.emit()

    def _goes_on(self, running: int) -> str:
        state, tray = self._link.state, self._in_tray()
        parts = []
        if running:
            parts.append(
                n_("It goes on without the tray.", "They go on without the tray.", running)
                if tray
                else n_("It goes on without the window.", "They go on without the window.", running)
            )
            if not self._supervisor.owned:
                parts.append(_("So does Ostler's daemon, which was not started from here."))
        elif state.barrier is not None and state.barrier.reason == "user":
            parts.append(_("Ostler's daemon goes on; taking tasks is paused."))
        elif not self._supervisor.owned:
            parts.append(_("Ostler's daemon, which was not started from here, goes on and takes new tasks."))
        else:
            parts.append(_("Ostler's daemon goes on and takes new tasks."))
        jobs = sum(job.ended_at is None for job in state.jobs.values())
        if jobs:
            parts.append(
                n_("{n} background job goes on in any case.", "{n} background jobs go on in any case.", jobs)
            )
        return " ".join(parts)

    def _stopping(self, running: int) -> str:
        if not running:
            return _("Stop the daemon and quit")
        if not self._supervisor.owned:
            return _("Stop everything and quit")
        return n_("Stop it and quit", "Stop them and quit", running)

    def _stop(self) -> None:
        # Not before it has answered: what this program still has to send would end with it.
        self._supervisor.stop(runs=True, done=self.leave.emit, failed=self._on_failed)

    def _on_failed(self, failure: Failure) -> None:
        self.failed.emit(failure)
        self.stays.emit()
