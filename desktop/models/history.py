"""All tasks, page by page, as an item model: what is asked for is what is scrolled to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from PySide6.QtCore import QAbstractListModel, QModelIndex, QObject, QPersistentModelIndex, Qt, Signal

from daemon_core.control.views import TaskRow, View
from desktop.daemon.http import Call, Failure
from desktop.daemon.link import Link

Index = QModelIndex | QPersistentModelIndex
TASK: Final = Qt.ItemDataRole.UserRole + 1
PAGE: Final = 200


class _Page(View, frozen=True, kw_only=True):
    tasks: list[TaskRow] = msgspec.field(default_factory=list)
    next: str = ""


class HistoryModel(QAbstractListModel):
    """Signals:
    settled(): A page came, or the list is known to be at its end.
    failed(object): It cannot be had now: a ``Failure``.
    """

    settled = Signal()
    failed = Signal(object)

    def __init__(
        self, link: Link, parent: QObject | None = None, *, spoken: Callable[[TaskRow], str] | None = None
    ) -> None:
        """``spoken``: what a screen reader says of a task."""
        super().__init__(parent)
        self._link = link
        self._spoken = spoken or (lambda task: task.title)
        self.tasks: list[TaskRow] = []
        self._rows: dict[str, int] = {}
        self._next: str | None = ""
        """What continues the list; None: it is at its end; empty: nothing of it is here yet."""
        self._call: Call[_Page] | None = None
        self._words = ""
        self._statuses: tuple[str, ...] = ()

    @property
    def at_end(self) -> bool:
        """Whether everything is here."""
        return self._next is None

    def look_for(self, words: str, statuses: tuple[str, ...]) -> None:
        """Begin anew with these."""
        self._words, self._statuses = words, statuses
        self.reload()

    def stop(self) -> bool:
        """Want no answer any more; whether one was on its way."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        return call is not None

    def reload(self) -> None:
        """Begin anew."""
        self.stop()
        self._next = ""
        self._ask(fresh=True)

    def show_tasks(self, tasks: list[TaskRow]) -> None:
        """Show these and nothing more."""
        self._next = None
        self._replace(tasks)
        self.settled.emit()

    def update_task(self, task: TaskRow) -> None:
        """A task is another; a new one comes to the top where nothing is filtered."""
        row = self._rows.get(task.id)
        if row is not None:
            self.tasks[row] = task
            index = self.index(row)
            self.dataChanged.emit(index, index)
        elif self.tasks and not self._words and not self._statuses:
            newest = self.tasks[0]
            if task.created_at >= newest.created_at:
                self.beginInsertRows(QModelIndex(), 0, 0)
                self.tasks.insert(0, task)
                self._rows = {each.id: at for at, each in enumerate(self.tasks)}
                self.endInsertRows()

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: N802, B008 - Qt's
        return 0 if parent.isValid() else len(self.tasks)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self.tasks):
            return None
        task = self.tasks[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return task.title
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return self._spoken(task)
        return task if role == TASK else None

    def canFetchMore(self, parent: Index) -> bool:  # noqa: N802
        return not parent.isValid() and bool(self._next) and self._call is None

    def fetchMore(self, parent: Index) -> None:  # noqa: N802
        if self.canFetchMore(parent):
            self._ask(fresh=False)

    def _ask(self, *, fresh: bool) -> None:
        query = {"limit": str(PAGE)}
        if self._words:
            query["q"] = self._words
        if self._statuses:
            query["status"] = ",".join(self._statuses)
        if self._next:
            query["before"] = self._next

        def done(page: _Page) -> None:
            self._call = None
            self._take(page, fresh=fresh)

        self._call = self._link.call(
            _Page, "GET", f"/v1/history?{urlencode(query)}", done=done, failed=self._on_failed
        )

    def _take(self, page: _Page, *, fresh: bool) -> None:
        self._next = page.next or None
        if fresh:
            self._replace(page.tasks)
        else:
            new = [task for task in page.tasks if task.id not in self._rows]
            if new:
                first = len(self.tasks)
                self.beginInsertRows(QModelIndex(), first, first + len(new) - 1)
                self.tasks += new
                self._rows.update({task.id: first + at for at, task in enumerate(new)})
                self.endInsertRows()
        self.settled.emit()

    def _replace(self, tasks: list[TaskRow]) -> None:
        self.beginResetModel()
        self.tasks = list(tasks)
        self._rows = {task.id: at for at, task in enumerate(self.tasks)}
        self.endResetModel()

    def _on_failed(self, failure: Failure) -> None:
        self._call = None
        self.failed.emit(failure)
