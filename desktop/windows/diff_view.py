"""A unified diff on the screen: only the lines that can be seen are drawn."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QRect, Qt
from PySide6.QtGui import (
    QAccessible,
    QColor,
    QContextMenuEvent,
    QFontMetrics,
    QGuiApplication,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
)
from PySide6.QtWidgets import QMenu, QWidget

from desktop.models.diff import DiffRow
from desktop.models.syntax import language_of, parts_of
from desktop.text import _
from desktop.theme import tokens
from desktop.theme.palette import mono_font
from desktop.theme.tokens import Colours
from desktop.windows.bits import ReadingArea
from desktop.windows.wording import MINUS

TAB: Final = "    "
SIGNS: Final = {"added": "+", "removed": MINUS, "same": " ", "hunk": "", "note": ""}


class DiffView(ReadingArea):
    """The diff of one file. Lines are marked with the mouse and copied as a diff has them."""

    access_role = QAccessible.Role.List

    def __init__(self, colours: Colours, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(_("Diff"))
        self.setLayoutDirection(Qt.LayoutDirection.LeftToRight)  # as source code is written everywhere
        self._colours = colours
        self._font = mono_font()
        metrics = QFontMetrics(self._font)
        self._line = metrics.lineSpacing() + 2
        self._letter = metrics.horizontalAdvance("m")
        self._rows: list[DiffRow] = []
        self._pressed = 0
        self._message = ""
        self._raw = ""
        self._language = ""
        self._widest = 0
        self._selected: tuple[int, int] | None = None
        """The marked rows: (where it began, where the mouse is), the first not always above."""

    def show_rows(self, rows: list[DiffRow], message: str = "", path: str = "", raw: str = "") -> None:
        """Show these, of the file of this name; ``message`` where there are none, ``raw`` to be copied."""
        self._rows, self._message, self._raw = rows, message, raw
        self._selected = None
        self._language = language_of(path)
        self._widest = max((len(row.text.expandtabs(4)) for row in rows), default=0)
        self.verticalScrollBar().setValue(0)
        self.horizontalScrollBar().setValue(0)
        self._fit()

    def recolour(self, colours: Colours) -> None:
        """The look is another one."""
        self._colours = colours
        self.viewport().update()

    def spoken(self) -> list[tuple[str, QRect]]:
        """What is in sight, for a screen reader: (text, place in this widget)."""
        if not self._rows:
            return [(self._message, self.viewport().rect())] if self._message else []
        top, room = self.verticalScrollBar().value(), self.viewport().rect()
        first = max(0, top // self._line)
        last = min(len(self._rows), (top + room.height()) // self._line + 1)
        return [
            (
                f"{SIGNS.get(row.kind, '')} {row.text}".strip(),
                QRect(0, (first + at) * self._line - top, room.width(), self._line),
            )
            for at, row in enumerate(self._rows[first:last])
        ]

    def _numbers(self) -> int:
        """Width of one column of numbers."""
        most = max((max(row.old or 0, row.new or 0) for row in self._rows[-200:]), default=0)
        return (max(3, len(str(most))) + 1) * self._letter

    def _fit(self) -> None:
        room = self.viewport().size()
        up, across = self.verticalScrollBar(), self.horizontalScrollBar()
        up.setSingleStep(self._line * 3)
        up.setPageStep(max(1, room.height()))
        up.setRange(0, max(0, len(self._rows) * self._line + tokens.GRID - room.height()))
        width = 2 * self._numbers() + (self._widest + 4) * self._letter
        across.setPageStep(max(1, room.width()))
        across.setRange(0, max(0, width - room.width()))
        self.viewport().update()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        super().resizeEvent(event)
        self._fit()

    def scrollContentsBy(self, dx: int, dy: int) -> None:  # noqa: N802
        self.viewport().update()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        up = self.verticalScrollBar()
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy()
        elif event.matches(QKeySequence.StandardKey.SelectAll) and self._rows:
            self._select((0, len(self._rows) - 1))
        elif event.key() == Qt.Key.Key_Home:
            up.setValue(0)
        elif event.key() == Qt.Key.Key_End:
            up.setValue(up.maximum())
        else:
            super().keyPressEvent(event)

    def copy(self) -> None:
        """Put the marked lines on the clipboard; the whole diff where none are marked."""
        if self._selected is None:
            text = self._raw
        else:
            first, last = sorted(self._selected)
            text = "\n".join(_written(row) for row in self._rows[first : last + 1])
        QGuiApplication.clipboard().setText(text)

    def _select(self, rows: tuple[int, int] | None) -> None:
        if rows != self._selected:
            self._selected = rows
            self.viewport().update()

    def _row_at(self, y: float) -> int:
        row = (int(y) + self.verticalScrollBar().value()) // self._line
        return max(0, min(row, len(self._rows) - 1))

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        if event.button() is Qt.MouseButton.LeftButton and self._rows:
            self._pressed = self._row_at(event.position().y())
            extends = self._selected is not None and event.modifiers() & Qt.KeyboardModifier.ShiftModifier
            self._select((self._selected[0], self._pressed) if extends and self._selected else None)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        if event.buttons() & Qt.MouseButton.LeftButton and self._rows:
            row = self._row_at(event.position().y())
            begun = self._selected[0] if self._selected is not None else self._pressed
            if self._selected is not None or row != begun:
                self._select((begun, row))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        event.accept()

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:  # noqa: N802
        if not self._rows:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        some = self._selected is not None
        menu.addAction(_("Copy the marked lines") if some else _("Copy the diff"), self.copy)
        menu.popup(event.globalPos())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        painter = QPainter(self.viewport())
        if self._rows:
            painter.setLayoutDirection(Qt.LayoutDirection.LeftToRight)  # else it is the application's
        colours, room = self._colours, self.viewport().rect()
        painter.fillRect(event.rect(), QColor(colours.surface))
        painter.setFont(self._font)
        if not self._rows:
            painter.setFont(self.font())
            painter.setPen(QColor(colours.muted))
            painter.drawText(
                room.adjusted(24, 24, -24, -24),
                int(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignHCenter | Qt.TextFlag.TextWordWrap),
                self._message,
            )
            self.paint_ring(painter, colours)
            painter.end()
            return
        top = self.verticalScrollBar().value()
        shift = self.horizontalScrollBar().value()
        numbers = self._numbers()
        first = max(0, top // self._line)
        grounds = {"added": colours.added, "removed": colours.removed, "hunk": colours.raised}
        tints = {"added": colours.done, "removed": colours.failed}
        first_marked, last_marked = sorted(self._selected) if self._selected is not None else (-1, -2)
        middle = int(Qt.AlignmentFlag.AlignVCenter)
        right = middle | int(Qt.AlignmentFlag.AlignRight)
        for index in range(first, len(self._rows)):
            y = index * self._line - top
            if y > room.height():
                break
            row = self._rows[index]
            ground = colours.selected if first_marked <= index <= last_marked else grounds.get(row.kind)
            if ground:
                painter.fillRect(QRect(0, y, room.width(), self._line), QColor(ground))
            painter.setPen(QColor(colours.muted))
            for column, number in enumerate((row.old, row.new)):
                if number is not None:
                    place = QRect(column * numbers - shift, y, numbers - self._letter // 2, self._line)
                    painter.drawText(place, right, str(number))
            x = 2 * numbers - shift + tokens.GRID
            if row.kind in tints:
                painter.setPen(QColor(tints[row.kind]))
                painter.drawText(QRect(x, y, self._letter, self._line), middle, SIGNS[row.kind])
            quiet = row.kind in ("hunk", "note")
            painter.setPen(QColor(colours.muted if quiet else colours.text))
            text = _("No line break at the end of the file") if row.kind == "note" else row.text
            text = text.replace("\t", TAB)[:4000] or ("⋯" if row.kind == "hunk" else "")
            self._draw(painter, x + 2 * self._letter, y, text, "" if quiet else self._language)
        self.paint_ring(painter, colours)
        painter.end()

    def _draw(self, painter: QPainter, x: int, y: int, text: str, language: str) -> None:
        """One line of code, in its colours; the pen is that of plain text."""
        middle = int(Qt.AlignmentFlag.AlignVCenter)
        parts = parts_of(text, language) if language else ()
        if not parts:
            width = self._letter * (len(text) * 2 + 2)
            painter.drawText(QRect(x, y, width, self._line), middle, text)
            return
        colours = self._colours
        tints = {
            "comment": colours.muted,
            "string": colours.done,
            "number": colours.waiting,
            "keyword": colours.running,
            "name": colours.accent,
        }
        metrics = QFontMetrics(self._font)
        place = 0
        for first, last, kind in (*parts, (len(text), len(text), "")):
            for piece, colour in ((text[place:first], colours.text), (text[first:last], tints.get(kind, ""))):
                if piece:
                    width = metrics.horizontalAdvance(piece)
                    painter.setPen(QColor(colour))
                    painter.drawText(QRect(x, y, width + self._letter, self._line), middle, piece)
                    x += width
            place = last


def _written(row: DiffRow) -> str:
    """A row as a diff has it."""
    match row.kind:
        case "hunk":
            return f"@@ {row.text}".rstrip()
        case "note":
            return f"\\ {row.text}"
        case _:
            return f"{'-' if row.kind == 'removed' else SIGNS[row.kind]}{row.text}"
