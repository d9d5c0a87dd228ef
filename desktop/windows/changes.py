"""What a task changed: the files with what was added and taken away, and the diff of one."""

from __future__ import annotations

from typing import Any, Final

from PySide6.QtCore import QAbstractListModel, QModelIndex, QPersistentModelIndex, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QPainter
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
from desktop.text import _, mark, n_
from desktop.theme import tokens
from desktop.theme.palette import body_font, mono_font, sized
from desktop.theme.tokens import Colours
from desktop.windows.bits import PLAIN_LIST, Elided, label, paint_ground, tint
from desktop.windows.diff_view import DiffView
from desktop.windows.wording import MINUS
from desktop.words import cut

Index = QModelIndex | QPersistentModelIndex
FILE: Final = Qt.ItemDataRole.UserRole + 1
_KINDS: Final = {
    "added": mark("added"),
    "modified": mark("changed"),
    "deleted": mark("deleted"),
    "renamed": mark("renamed"),
    "type_changed": mark("changed"),
}
_SIGNS: Final = {"added": "A", "modified": "M", "deleted": "D", "renamed": "R", "type_changed": "T"}


_NOTES: Final = {
    "bounded": mark("The directory is too large to see all of it: {count} directories were left out."),
    "copies_cut": mark("Not every file was kept to compare with, so some have no diff."),
    "diff_cut": mark("Long diffs were cut."),
    "files_cut": mark("{total} files were changed; the first ones are shown."),
    "before_unknown": mark("What you had changed before cannot be told apart here: {path}"),
    "base_unknown": mark("Only what is not committed is shown of {path}."),
    "not_compared": mark("This could not be compared: {path} {why}"),
}
SHOWN_COMMITS: Final = 4
SUBJECT_CHARS: Final = 90
LTR: Final = "\N{LEFT-TO-RIGHT MARK}"
"""Before a number with its sign, which else goes to the other side in a text from right to left."""


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
            kind = _KINDS.get(file.status)
            counts = f"+{file.added or 0} {MINUS}{file.deleted or 0}"
            return f"{file.path}, {_(kind) if kind is not None else file.status}, {counts}"
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{file.old_path} → {file.path}" if file.old_path else file.path
        return file if role == FILE else None


class FileDelegate(QStyledItemDelegate):
    """Draws a file: name, then its directory, and the numbers at the right."""

    def __init__(self, colours: Colours, parent: QWidget) -> None:
        super().__init__(parent)
        self.colours = colours
        self._small = sized(body_font(), tokens.SMALL)
        self._mono = sized(mono_font(), tokens.SMALL, strong=True)
        self._body = body_font()

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:  # noqa: N802
        return QSize(120, tokens.ROW)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        file = index.data(FILE)
        rect: QRect = option.rect
        state: QStyle.StateFlag = option.state
        colours = self.colours
        direction: Qt.LayoutDirection = option.direction
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setLayoutDirection(direction)
        paint_ground(painter, QRectF(rect.adjusted(tokens.GRID, 1, -tokens.HALF, -1)), state, colours)
        inner = rect.adjusted(24, 0, -12, 0)
        leading = int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeading)
        flags = leading | int(Qt.TextFlag.TextSingleLine)

        def write(x: int, width: int, text: str, font: QFont, colour: str) -> None:
            painter.setFont(font)
            painter.setPen(QColor(colour))
            place = QRect(x, rect.top(), width + 2, rect.height())
            painter.drawText(QStyle.visualRect(direction, rect, place), flags, text)

        metrics = QFontMetrics(self._small)
        x = inner.right()
        for text, colour in ((f"{MINUS}{file.deleted}", colours.failed), (f"+{file.added}", colours.done)):
            if text[1:] not in ("None", "0"):
                width = metrics.horizontalAdvance(text)
                x -= width
                write(x, width, f"{LTR}{text}", self._small, colour)
                x -= tokens.HALF + 2
        tints = {"added": colours.done, "deleted": colours.failed}
        sign = tints.get(file.status, colours.waiting)
        write(inner.left(), 16, _SIGNS.get(file.status, "?"), self._mono, sign)
        left = inner.left() + 20
        directory, _slash, name = file.path.rpartition("/")
        metrics = QFontMetrics(self._body)
        shown = metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, max(0, x - left))
        width = metrics.horizontalAdvance(shown)
        write(left, width, shown, self._body, colours.text)
        left += width + tokens.GRID
        metrics = QFontMetrics(self._small)
        shown = metrics.elidedText(directory, Qt.TextElideMode.ElideMiddle, max(0, x - left - tokens.GRID))
        write(left, metrics.horizontalAdvance(shown), shown, self._small, colours.muted)
        painter.restore()


class ChangesPane(QWidget):
    """The tab."""

    def __init__(self, colours: Colours) -> None:
        super().__init__()
        self._sentence = Elided()
        self._more = label(wrap=True)
        """Commits, and what has to be known of what is shown."""
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
        head.setSpacing(tokens.HALF)
        head.addWidget(self._sentence)
        head.addWidget(self._more)
        column.addLayout(head)
        column.addWidget(split, 1)
        self._colours = colours

    def recolour(self, colours: Colours) -> None:
        """The look is another one."""
        self._colours = self._delegate.colours = colours
        self._sentence.set_text(self._sentence.text, colours.muted)
        tint(self._more, colours.muted)
        self.diff.recolour(colours)
        self.files.viewport().update()

    def show_changes(self, changes: TaskChanges) -> None:
        """Show these; the chosen file stays chosen."""
        chosen = self.files.currentIndex()
        path = self.model.files[chosen.row()].path if chosen.isValid() else ""
        self._sentence.set_text(changes_sentence(changes), self._colours.muted)
        self._say_more(more_text(changes))
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
        self._say_more("")
        self.model.show_files([])
        self.files.hide()
        self.diff.show_rows([], message)

    def _say_more(self, text: str) -> None:
        self._more.setText(text)
        self._more.setVisible(bool(text))
        tint(self._more, self._colours.muted)

    def _on_chosen(self, index: Index) -> None:
        if not index.isValid():
            return
        file = self.model.files[index.row()]
        rows = rows_of(file.diff)
        self.diff.show_rows(rows, "" if rows else _no_diff(file), file.path, file.diff)


def changes_sentence(changes: TaskChanges) -> str:
    """How much was changed."""
    if not changes.files_total:
        return ""
    files = n_("{n} file", "{n} files", changes.files_total)
    counts = f"+{changes.added} {MINUS}{changes.deleted}"
    commits = n_("{n} commit", "{n} commits", changes.commits_total) if changes.commits_total else ""
    return " · ".join(part for part in (files, counts, commits, _("so far") if changes.live else "") if part)


def more_text(changes: TaskChanges) -> str:
    """Its commits, the newest first, and what the reader has to know of all that."""
    made = [commit for commit in changes.commits if commit.made]
    lines = [f"{commit.id[:7]}  {cut(commit.subject, SUBJECT_CHARS)}" for commit in made[:SHOWN_COMMITS]]
    for note in changes.notes:
        known = _NOTES.get(note.code)
        if known is not None:
            lines.append(
                _(known).format_map({"path": "", "count": "", "total": "", "why": "", **note.params})
            )
    return "\n".join(lines)


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
