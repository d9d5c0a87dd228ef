"""A unified diff on the screen: only the lines that can be seen are drawn."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QRect, Qt
from PySide6.QtGui import (
    QAccessible,
    QColor,
    QFontMetrics,
    QGuiApplication,
    QKeyEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
)
from PySide6.QtWidgets import QAbstractScrollArea, QWidget

from desktop.models.diff import DiffRow
from desktop.models.syntax import language_of, parts_of
from desktop.text import _
from desktop.theme import tokens
from desktop.theme.palette import mono_font
from desktop.theme.tokens import Colours
from desktop.windows.wording import MINUS

TAB: Final = "    "
SIGNS: Final = {"added": "+", "removed": MINUS, "same": " ", "hunk": "", "note": ""}


class DiffView(QAbstractScrollArea):
    """The diff of one file."""

    access_role = QAccessible.Role.List

    def __init__(self, colours: Colours, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(_("Diff"))
        self.setFrameShape(QAbstractScrollArea.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setLayoutDirection(Qt.LayoutDirection.LeftToRight)  # as source code is written everywhere
        self._colours = colours
        self._font = mono_font()
        metrics = QFontMetrics(self._font)
        self._line = metrics.lineSpacing() + 2
        self._letter = metrics.horizontalAdvance("m")
        self._rows: list[DiffRow] = []
        self._message = ""
        self._language = ""
        self._widest = 0

    def show_rows(self, rows: list[DiffRow], message: str = "", path: str = "") -> None:
        """Show these, of the file of this name; ``message`` where there are none."""
        self._rows, self._message = rows, message
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
        if event.modifiers() == Qt.KeyboardModifier.ControlModifier and event.key() == Qt.Key.Key_C:
            text = "\n".join(f"{SIGNS[row.kind].replace('{MINUS}', '-')}{row.text}" for row in self._rows)
            QGuiApplication.clipboard().setText(text)
        else:
            super().keyPressEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        painter = QPainter(self.viewport())
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
            return
        top = self.verticalScrollBar().value()
        shift = self.horizontalScrollBar().value()
        numbers = self._numbers()
        first = max(0, top // self._line)
        grounds = {"added": colours.added, "removed": colours.removed, "hunk": colours.raised}
        tints = {"added": colours.done, "removed": colours.failed}
        middle = int(Qt.AlignmentFlag.AlignVCenter)
        right = middle | int(Qt.AlignmentFlag.AlignRight)
        for index in range(first, len(self._rows)):
            y = index * self._line - top
            if y > room.height():
                break
            row = self._rows[index]
            if row.kind in grounds:
                painter.fillRect(QRect(0, y, room.width(), self._line), QColor(grounds[row.kind]))
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
            text = row.text.replace("\t", TAB)[:4000] or ("⋯" if row.kind == "hunk" else "")
            self._draw(painter, x + 2 * self._letter, y, text, "" if quiet else self._language)
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
