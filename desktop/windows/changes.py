"""What a task changed: the files with what was added and taken away, and the diff of one."""

from __future__ import annotations

from typing import Any, Final

from PySide6.QtCore import QAbstractListModel, QModelIndex, QPersistentModelIndex, QRect, QSize, Qt
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPen
from PySide6.QtWidgets import (
    QListView,
    QSplitter,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from daemon_core.control.views import FileChangeView, TaskChanges
from desktop.models.diff import rows_of
from desktop.text import _, n_
from desktop.theme import tokens
from desktop.theme.palette import body_font, mono_font, sized
from desktop.theme.tokens import Colours
from desktop.windows.bits import PLAIN_LIST, Elided
from desktop.windows.diff_view import DiffView
from desktop.windows.wording import MINUS

Index = QModelIndex | QPersistentModelIndex
FILE: Final = Qt.ItemDataRole.UserRole + 1
_SIGNS: Final = {"added": "A", "modified": "M", "deleted": "D", "renamed": "R", "type_changed": "T"}


class FilesModel(QAbstractListModel):
    """The changed files."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[FileChangeView] = []

    def show_files(self, files: list[FileChangeView]) -> None:
        """Show these from now on."""
        self.beginResetModel()
        self.files = files
        self.endResetModel()

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: N802, B008 - Qt's
        return 0 if parent.isValid() else len(self.files)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        file = self.files[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return file.path
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{file.path}, {file.status}, +{file.added or 0} {MINUS}{file.deleted or 0}"
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{file.old_path} → {file.path}" if file.old_path else file.path
        return file if role == FILE else None


class FileDelegate(QStyledItemDelegate):
    """Draws a file: name, then its directory, and the numbers at the right."""

    def __init__(self, colours: Colours, parent: QWidget) -> None:
        super().__init__(parent)
        self.colours = colours

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:  # noqa: N802
        return QSize(120, tokens.ROW)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        file = index.data(FILE)
        rect: QRect = option.rect
        state: QStyle.StateFlag = option.state
        colours = self.colours
        painter.save()
        if state & QStyle.StateFlag.State_Selected:
            painter.fillRect(rect, QColor(colours.selected))
        elif state & QStyle.StateFlag.State_MouseOver:
            painter.fillRect(rect, QColor(colours.hover))
        if state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(QPen(QColor(colours.accent), 2))
            painter.drawRect(rect.adjusted(1, 1, -1, -1))
        inner = rect.adjusted(24, 0, -tokens.GRID, 0)
        flags = int(Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine)
        small = sized(body_font(), tokens.SMALL)
        painter.setFont(small)
        metrics = QFontMetrics(small)
        x = inner.right()
        for text, colour in ((f"{MINUS}{file.deleted}", colours.failed), (f"+{file.added}", colours.done)):
            if text[1:] not in ("None", "0"):
                width = metrics.horizontalAdvance(text)
                x -= width
                painter.setPen(QColor(colour))
                painter.drawText(QRect(x, rect.top(), width + 2, rect.height()), flags, text)
                x -= tokens.HALF + 2
        mono = sized(mono_font(), tokens.SMALL, strong=True)
        painter.setFont(mono)
        tints = {"added": colours.done, "deleted": colours.failed}
        painter.setPen(QColor(tints.get(file.status, colours.waiting)))
        painter.drawText(inner, flags, _SIGNS.get(file.status, "?"))
        left = inner.left() + 20
        directory, _slash, name = file.path.rpartition("/")
        body = body_font()
        painter.setFont(body)
        painter.setPen(QColor(colours.text))
        metrics = QFontMetrics(body)
        shown = metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, max(0, x - left))
        width = metrics.horizontalAdvance(shown)
        painter.drawText(QRect(left, rect.top(), width + 2, rect.height()), flags, shown)
        left += width + tokens.GRID
        painter.setFont(small)
        painter.setPen(QColor(colours.muted))
        shown = QFontMetrics(small).elidedText(directory, Qt.TextElideMode.ElideMiddle, max(0, x - left))
        painter.drawText(QRect(left, rect.top(), max(0, x - left), rect.height()), flags, shown)
        painter.restore()


class ChangesPane(QWidget):
    """The tab."""

    def __init__(self, colours: Colours) -> None:
        super().__init__()
        self._sentence = Elided()
        self.model = FilesModel()
        self.files = QListView()
        self.files.setModel(self.model)
        self.files.setUniformItemSizes(True)
        self.files.setMouseTracking(True)
        self.files.setAccessibleName(_("Changed files"))
        self.files.setStyleSheet(PLAIN_LIST)
        self._delegate = FileDelegate(colours, self.files)
        self.files.setItemDelegate(self._delegate)
        self.files.selectionModel().currentChanged.connect(lambda now, _before: self._on_chosen(now))
        self.diff = DiffView(colours)
        split = QSplitter(Qt.Orientation.Horizontal)
        split.addWidget(self.files)
        split.addWidget(self.diff)
        split.setSizes([260, 560])
        split.setStretchFactor(1, 1)
        split.setHandleWidth(1)
        split.setChildrenCollapsible(False)
        self.files.setMinimumWidth(160)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        head = QVBoxLayout()
        head.setContentsMargins(24, tokens.GRID, 24, tokens.GRID)
        head.addWidget(self._sentence)
        column.addLayout(head)
        column.addWidget(split, 1)
        self._colours = colours

    def recolour(self, colours: Colours) -> None:
        """The look is another one."""
        self._colours = self._delegate.colours = colours
        self.diff.recolour(colours)
        self.files.viewport().update()

    def show_changes(self, changes: TaskChanges) -> None:
        """Show these; the chosen file stays chosen."""
        chosen = self.files.currentIndex()
        path = self.model.files[chosen.row()].path if chosen.isValid() else ""
        self._sentence.set_text(changes_sentence(changes), self._colours.muted)
        self.model.show_files(changes.files)
        self.files.setVisible(bool(changes.files))
        row = next((at for at, file in enumerate(changes.files) if file.path == path), 0)
        if changes.files:
            self.files.setCurrentIndex(self.model.index(row))
        else:
            self.diff.show_rows([], _nothing(changes))

    def say(self, message: str) -> None:
        """No changes can be shown, and why."""
        self._sentence.set_text("")
        self.model.show_files([])
        self.files.hide()
        self.diff.show_rows([], message)

    def _on_chosen(self, index: Index) -> None:
        if not index.isValid():
            return
        file = self.model.files[index.row()]
        rows = rows_of(file.diff)
        self.diff.show_rows(rows, "" if rows else _no_diff(file), file.path)


def changes_sentence(changes: TaskChanges) -> str:
    """How much was changed."""
    if not changes.files_total:
        return ""
    files = n_("{n} file", "{n} files", changes.files_total)
    counts = f"+{changes.added} {MINUS}{changes.deleted}"
    return " · ".join(part for part in (files, counts, _("so far") if changes.live else "") if part)


def _nothing(changes: TaskChanges) -> str:
    if any(note.code == "no_baseline" for note in changes.notes) or not changes.kind:
        return _("Nothing is known of what this task changed.")
    return _("This task has changed no files so far.") if changes.live else _("This task changed no files.")


def _no_diff(file: FileChangeView) -> str:
    if file.binary:
        return _("This file is not text, so there is no diff of it.")
    if file.note in ("too_large", "too_many"):
        return _("There is too much in this file for a diff.")
    if file.status == "renamed":
        return _("Renamed from {path}; its text is the same.", path=file.old_path)
    return _("There is no diff of this file.")
