"""The page "History": every task, searched and filtered."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QModelIndex, Qt, QTimer
from PySide6.QtGui import QHideEvent, QKeySequence, QShortcut, QShowEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLineEdit,
    QListView,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from daemon_core.control.views import TaskRow
from desktop.commands import Command
from desktop.daemon.http import Failure
from desktop.models.history import TASK, HistoryModel
from desktop.models.state import ENDED, DesktopState
from desktop.text import _
from desktop.theme import tokens
from desktop.windows.bits import PLAIN_LIST, Choice, Elided, label, tint
from desktop.windows.context import Context
from desktop.windows.task_delegate import TaskDelegate
from desktop.windows.task_line import detail_text
from desktop.windows.wording import state_text
from desktop.words import ago

TYPING_MS: Final = 200
"""After the last key: so long until it is searched."""


class HistoryPage(QWidget):
    """The page."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._asked = False
        self.model = HistoryModel(context.link, self, spoken=spoken)
        self.field = QLineEdit()
        self.field.setPlaceholderText(_("Search by title, agent or directory"))
        self.field.setAccessibleName(_("Search by title, agent or directory"))
        self.field.setClearButtonEnabled(True)
        self.filter = Choice(_("Which tasks"), lambda: context.colours)
        choices: tuple[tuple[str, tuple[str, ...]], ...] = (
            (_("All tasks"), ()),
            (_("Done"), ("completed",)),
            (_("Failed"), ("failed",)),
            (_("Cancelled"), ("cancelled",)),
            (_("Not ended"), ("queued", "dispatched", "waiting_local_directory", "running", "parked")),
        )
        for name, statuses in choices:
            self.filter.addItem(name, statuses)
        self.list = QListView()
        self.list.setModel(self.model)
        self.list.setUniformItemSizes(True)
        self.list.setMouseTracking(True)
        self.list.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setAccessibleName(_("Tasks"))
        self.list.setStyleSheet(PLAIN_LIST)
        self._delegate = TaskDelegate(context.colours, self.list)
        self.list.setItemDelegate(self._delegate)
        self.list.clicked.connect(self._on_chosen)
        self.list.activated.connect(self._on_chosen)
        self.empty = label(wrap=True)
        self.empty.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.empty.setContentsMargins(24, tokens.GRID, 24, 0)
        tint(self.empty, context.colours.muted)
        title = Elided(_("History"), size=tokens.SENTENCE, strong=True)
        head = QVBoxLayout()
        head.setContentsMargins(24, 24, 24, 12)
        head.setSpacing(tokens.GRID * 2)
        head.addWidget(title)
        row = QHBoxLayout()
        row.setSpacing(tokens.GRID)
        row.addWidget(self.field, 1)
        row.addWidget(self.filter)
        head.addLayout(row)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        self._stack = QStackedLayout()
        column.addLayout(self._stack, 1)  # before it has anything: else the list is a window for a moment
        self._stack.addWidget(self.list)
        self._stack.addWidget(self.empty)
        self._typing = QTimer(self)
        self._typing.setSingleShot(True)
        self._typing.setInterval(TYPING_MS)
        self._typing.timeout.connect(self._look)
        self.field.textChanged.connect(lambda _text: self._typing.start())
        self.filter.currentIndexChanged.connect(lambda _row: self._look())
        self.model.settled.connect(self._on_settled)
        self.model.failed.connect(self._on_failed)
        context.link.changed.connect(self._on_state)
        context.theme.changed.connect(self._recolour)
        QShortcut(QKeySequence.StandardKey.Find, self, self.field.setFocus)
        self.setFocusProxy(self.field)

    def _look(self) -> None:
        self._asked = True
        self.model.look_for(self.field.text(), tuple(self.filter.currentData()))

    def _on_settled(self) -> None:
        if self.model.tasks:
            self._stack.setCurrentWidget(self.list)
            return
        searched = bool(self.field.text().strip()) or self.filter.currentIndex() > 0
        self.empty.setText(
            _("No task is like that. Search for less, or choose all tasks.")
            if searched
            else _("Every task that was ever started is listed here. Start the first one with Ctrl+N.")
        )
        self._stack.setCurrentWidget(self.empty)

    def _on_failed(self, _failure: Failure) -> None:
        self._asked = False
        if not self.model.tasks:
            self.empty.setText(_("The tasks cannot be told while the daemon is away."))
            self._stack.setCurrentWidget(self.empty)

    def _on_chosen(self, index: QModelIndex) -> None:
        task = index.data(TASK)
        if task is not None:
            self._context.do(Command("open_task", task.id))

    def _on_state(self, before: DesktopState, state: DesktopState) -> None:
        if state.connected and not before.connected:
            self._asked = False
            if self.isVisible():
                self._look()
            return
        if self._asked and before.tasks is not state.tasks:
            for ident, task in state.tasks.items():
                if before.tasks.get(ident) is not task:
                    self.model.update_task(task)

    def _recolour(self) -> None:
        self._delegate.colours = self._context.colours
        tint(self.empty, self._context.colours.muted)
        self.list.viewport().update()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        if not self._asked:
            self._look()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        super().hideEvent(event)
        if self._typing.isActive() or self.model.stop():
            self._asked = False
        self._typing.stop()


def spoken(task: TaskRow) -> str:
    """A row, as a screen reader says it."""
    when = ago(task.ended_at or task.created_at) if task.status in ENDED else ""
    return ", ".join(part for part in (f"{task.title}: {state_text(task)}", detail_text(task), when) if part)
