"""The window: the rail, one page at a time, and a task in front of it. Pages are made when first shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import QByteArray, QSettings, Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QKeyEvent, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import QHBoxLayout, QStackedWidget, QVBoxLayout, QWidget

from desktop.models.state import DesktopState
from desktop.text import _, mark, n_
from desktop.tray.view import TROUBLES
from desktop.windows.bits import refusal_label, tint
from desktop.windows.context import Context
from desktop.windows.rail import Rail
from desktop.windows.trouble import TroubleStrip

WIDTH: Final = 960
HEIGHT: Final = 640
LEAST_WIDTH: Final = 720
LEAST_HEIGHT: Final = 480
NARROW: Final = 820
"""Below this the rail shows glyphs alone."""

TOLD_MS: Final = 10_000
"""So long a refusal is shown."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the rail. ``make`` imports what it needs."""

    name: str
    glyph: str
    text: str
    make: Callable[[Context, QSettings], QWidget]


def _now(context: Context, settings: QSettings) -> QWidget:
    from desktop.windows.now import NowPage

    return NowPage(context, settings)


def _history(context: Context, _settings: QSettings) -> QWidget:
    from desktop.windows.history import HistoryPage

    return HistoryPage(context)


def _runtimes(context: Context, _settings: QSettings) -> QWidget:
    from desktop.windows.runtimes import RuntimesPage

    return RuntimesPage(context)


def _jobs(context: Context, settings: QSettings) -> QWidget:
    from desktop.windows.jobs import JobsPage

    return JobsPage(context, settings)


def _messages(context: Context, _settings: QSettings) -> QWidget:
    from desktop.windows.messages import MessagesPage

    return MessagesPage(context)


def _health(context: Context, _settings: QSettings) -> QWidget:
    from desktop.windows.health import HealthPage

    return HealthPage(context)


def _settings(context: Context, _settings: QSettings) -> QWidget:
    from desktop.windows.settings import SettingsPage

    return SettingsPage(context)


PAGES: Final = (
    Page("now", "zap", mark("Now"), _now),
    Page("history", "history", mark("History"), _history),
    Page("runtimes", "bot", mark("Runtimes"), _runtimes),
    Page("jobs", "terminal", mark("Jobs"), _jobs),
    Page("messages", "bell", mark("Messages"), _messages),
    Page("health", "heart-pulse", mark("Health"), _health),
    Page("settings", "settings", mark("Settings"), _settings),
)
"""From the top. A page that is to come is one more line here."""
TASK: Final = "task"


class MainWindow(QWidget):
    """The window.

    Signals:
        closed(): The user closed it; what runs goes on.
    """

    closed = Signal()

    def __init__(self, context: Context, settings: QSettings) -> None:
        super().__init__()
        self._context = context
        self._settings = settings
        self._pages: dict[str, QWidget] = {}
        self._name = ""
        self.setWindowTitle("Ostler")
        self.setMinimumSize(LEAST_WIDTH, LEAST_HEIGHT)
        self.rail = Rail(context.theme, [(page.name, page.glyph, _(page.text)) for page in PAGES])
        self.rail.chosen.connect(self.open_page)
        self.stack = QStackedWidget()
        self.trouble = TroubleStrip(context)
        side = QVBoxLayout()
        side.setSpacing(0)
        side.addWidget(self.trouble)
        self._told = refusal_label()
        self._told.setContentsMargins(24, 12, 24, 0)
        tint(self._told, context.colours.failed)
        self._told.hide()
        self._untell = QTimer(self)
        self._untell.setSingleShot(True)
        self._untell.setInterval(TOLD_MS)
        self._untell.timeout.connect(self._told.hide)
        side.addWidget(self._told)
        side.addWidget(self.stack, 1)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.rail)
        row.addLayout(side, 1)
        for number, page in enumerate(PAGES, 1):
            QShortcut(QKeySequence(f"Ctrl+{number}"), self, lambda name=page.name: self.open_page(name))
        QShortcut(QKeySequence(QKeySequence.StandardKey.New), self, self.new_task)
        QShortcut(QKeySequence(QKeySequence.StandardKey.Close), self, self.close)
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)
        if context.messages is not None:
            context.messages.changed.connect(self._on_messages)
        self._show_counts(context.link.state)
        kept = settings.value("window/geometry")
        if not isinstance(kept, QByteArray) or not self.restoreGeometry(kept):
            self.resize(WIDTH, HEIGHT)

    @property
    def page_name(self) -> str:
        """Which page is shown: one of the rail's, or ``task``."""
        return self._name

    def page(self, name: str) -> QWidget:
        """A page, made now if it was not shown before."""
        if name not in self._pages:
            if name == TASK:
                from desktop.windows.task import TaskPage

                task = TaskPage(self._context)
                task.left.connect(self._leave_task)
                task.title_changed.connect(lambda title: self.setWindowTitle(f"{title} · Ostler"))
                made: QWidget = task
            else:
                made = next(each for each in PAGES if each.name == name).make(self._context, self._settings)
            self._pages[name] = made
            if not made.accessibleName():  # some take the focus themselves, before anything in them does
                made.setAccessibleName(next((_(page.text) for page in PAGES if page.name == name), _("Task")))
            self.stack.addWidget(made)
        return self._pages[name]

    def open_page(self, name: str) -> None:
        """Show a page; the first one for a name that nobody knows."""
        known = [page.name for page in PAGES]
        wanted = name if name in known else known[0]
        self._show(wanted)
        self.page(wanted).setFocus(Qt.FocusReason.OtherFocusReason)
        self.rail.mark(wanted)
        self.setWindowTitle("Ostler")

    def open_task(self, task_id: str) -> None:
        """Show a task, in front of the page that is shown."""
        from desktop.windows.task import TaskPage

        page = self.page(TASK)
        assert isinstance(page, TaskPage)
        self._show(TASK)
        page.open_task(task_id)
        page.transcript.setFocus(Qt.FocusReason.OtherFocusReason)

    def new_task(self) -> None:
        """Show the box for a new task, ready to be written into."""
        from desktop.windows.now import NowPage

        self.open_page("now")
        page = self.page("now")
        assert isinstance(page, NowPage)
        page.focus_new_task()

    def tell(self, sentence: str) -> None:
        """Say for a while why something was not done."""
        self._told.setText(sentence)
        self._told.show()
        self._untell.start()

    def bring_up(self) -> None:
        """Show the window and bring it to the front."""
        if not self._name:
            self.open_page("now")
        self.setWindowState(self.windowState() & ~Qt.WindowState.WindowMinimized)
        self.show()
        self.raise_()
        self.activateWindow()

    def _show(self, name: str) -> None:
        self.stack.setCurrentWidget(self.page(name))
        self._name = name

    def _leave_task(self) -> None:
        checked = [name for name, button in self.rail.buttons.items() if button.isChecked()]
        self.open_page(checked[0] if checked else "now")

    def _on_state(self, _before: DesktopState, state: DesktopState) -> None:
        self._show_counts(state)

    def _recolour(self) -> None:
        tint(self._told, self._context.colours.failed)

    def _on_messages(self) -> None:
        self._show_counts(self._context.link.state)

    def _show_counts(self, state: DesktopState) -> None:
        needing = len(state.needing)
        self.rail.buttons["now"].show_count(
            needing, n_("{n} task needs you", "{n} tasks need you", needing) if needing else ""
        )
        asking = sum(job.stalled and job.ended_at is None for job in state.jobs.values())
        self.rail.buttons["jobs"].show_count(
            asking, n_("{n} job waits for an answer", "{n} jobs wait for an answer", asking) if asking else ""
        )
        news = len(self._context.messages.news) if self._context.messages is not None else 0
        self.rail.buttons["messages"].show_count(
            news, n_("{n} message", "{n} messages", news) if news else ""
        )
        troubles = sum(condition.code in TROUBLES for condition in state.conditions)
        self.rail.buttons["health"].show_count(
            troubles, n_("{n} thing is wrong", "{n} things are wrong", troubles) if troubles else ""
        )

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        super().resizeEvent(event)
        self.rail.set_narrow(self.width() < NARROW)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        if event.key() == Qt.Key.Key_Escape and self._name not in ("", "now", TASK):
            self.open_page("now")
        else:
            super().keyPressEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        self._settings.setValue("window/geometry", self.saveGeometry())
        super().closeEvent(event)
        self.closed.emit()
