"""Output of a program on the screen: only lines that can be seen are drawn; followed while at its end."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QRect, Qt, Signal
from PySide6.QtGui import (
    QAccessible,
    QColor,
    QFont,
    QFontMetrics,
    QGuiApplication,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
)
from PySide6.QtWidgets import QWidget

from desktop.models.output import PLAIN, Line, Look, Output
from desktop.text import _
from desktop.theme import tokens
from desktop.theme.palette import body_font, mono_font
from desktop.theme.tokens import Colours
from desktop.windows.bits import ReadingArea

DRAWN_CHARS: Final = 4_000
"""Of one line; nobody scrolls further to the side."""


class OutputView(ReadingArea):
    """Shows an ``Output``.

    Signals:
        top_reached(): Somebody has scrolled to the first line that is here.
        following_changed(bool): Whether new lines are scrolled to.
    """

    top_reached = Signal()
    following_changed = Signal(bool)
    access_role = QAccessible.Role.List

    def __init__(self, colours: Colours, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(_("Output"))
        self.setLayoutDirection(Qt.LayoutDirection.LeftToRight)  # what programs write to terminals is
        self._colours = colours
        self._font = mono_font()
        self._bold = QFont(self._font)
        self._bold.setWeight(QFont.Weight.DemiBold)
        metrics = QFontMetrics(self._font)
        self._line = metrics.lineSpacing() + 1
        self._letter = metrics.horizontalAdvance("m")
        self._lines: list[Line] = []
        self._message = ""
        self._widest = 0
        self._following = True
        self._moving = False
        self._selected: tuple[int, int] | None = None
        self.verticalScrollBar().valueChanged.connect(self._on_moved)

    def spoken(self) -> list[tuple[str, QRect]]:
        """What is in sight, for a screen reader: (text, place in this widget)."""
        room, top = self.viewport().rect(), self.verticalScrollBar().value() - tokens.GRID
        if not self._lines or (len(self._lines) == 1 and not self._lines[0].text):
            return [(self._message, room)] if self._message else []
        first = max(0, top // self._line)
        last = min(len(self._lines), (top + room.height()) // self._line + 1)
        return [
            (line.text, QRect(0, (first + at) * self._line - top, room.width(), self._line))
            for at, line in enumerate(self._lines[first:last])
        ]

    @property
    def following(self) -> bool:
        """Whether new lines are scrolled to."""
        return self._following

    @property
    def message(self) -> str:
        """What stands there while there is no output."""
        return self._message

    def show_output(self, output: Output | None, message: str = "") -> None:
        """Show this from now on; ``message`` while there is nothing in it."""
        self._lines = output.lines if output is not None else []
        self._message = message
        self._selected = None
        self._widest = 0
        self._set_following(True)
        self.grown(0)

    def say(self, message: str) -> None:
        """What stands there while there is no output."""
        self._message = message
        self.viewport().update()

    def grown(self, first: int) -> None:
        """Lines from ``first`` on are others, or new."""
        for line in self._lines[first:]:
            self._widest = max(self._widest, len(line.text))
        self._fit()

    def went(self, lines: int) -> None:
        """So many lines went from the top (came, where negative): what is looked at stays where it is."""
        if self._selected is not None:
            self._selected = (max(0, self._selected[0] - lines), max(0, self._selected[1] - lines))
        self._moving = True
        top = self.verticalScrollBar().value() - lines * self._line
        self.verticalScrollBar().setRange(0, max(self.verticalScrollBar().maximum(), top))
        self.verticalScrollBar().setValue(max(0, top))
        self._moving = False
        self._fit()

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._set_following(True)
        self._fit()

    def recolour(self, colours: Colours) -> None:
        """The look is another one."""
        self._colours = colours
        self.viewport().update()

    def _set_following(self, on: bool) -> None:
        if on is not self._following:
            self._following = on
            self.following_changed.emit(on)

    def _height(self) -> int:
        lines = len(self._lines)
        if lines and not self._lines[-1].text:
            lines -= 1
        return lines * self._line + tokens.GRID * 2

    def _fit(self) -> None:
        room = self.viewport().size()
        up, across = self.verticalScrollBar(), self.horizontalScrollBar()
        self._moving = True
        up.setSingleStep(self._line * 3)
        up.setPageStep(max(1, room.height()))
        up.setRange(0, max(0, self._height() - room.height()))
        if self._following:
            up.setValue(up.maximum())
        across.setSingleStep(self._letter * 4)
        across.setPageStep(max(1, room.width()))
        wide = min(self._widest, DRAWN_CHARS) * self._letter + 2 * 24
        across.setRange(0, max(0, wide - room.width()))
        self._moving = False
        self.viewport().update()

    def _on_moved(self, value: int) -> None:
        if self._moving:
            return
        self._set_following(value >= self.verticalScrollBar().maximum())
        if value == 0:
            self.top_reached.emit()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        super().resizeEvent(event)
        self._fit()

    def scrollContentsBy(self, dx: int, dy: int) -> None:  # noqa: N802
        self.viewport().update()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy()
        elif event.matches(QKeySequence.StandardKey.SelectAll):
            self._selected = (0, len(self._lines))
            self.viewport().update()
        elif event.key() == Qt.Key.Key_End:
            self.follow()
        elif event.key() == Qt.Key.Key_Home:
            self.verticalScrollBar().setValue(0)
        else:
            super().keyPressEvent(event)

    def copy(self) -> None:
        """Put the selected lines on the clipboard; all of them where none are selected."""
        first, last = self._selected or (0, len(self._lines))
        text = "\n".join(line.text.rstrip() for line in self._lines[first:last])
        QGuiApplication.clipboard().setText(text)

    def _row_at(self, y: float) -> int:
        row = (int(y) + self.verticalScrollBar().value() - tokens.GRID) // self._line
        return max(0, min(row, len(self._lines)))

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        if event.button() is Qt.MouseButton.LeftButton:
            row = self._row_at(event.position().y())
            self._selected = (row, row)
            self.viewport().update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        if event.buttons() & Qt.MouseButton.LeftButton and self._selected is not None:
            row = self._row_at(event.position().y())
            begun = self._selected[0]
            self._selected = (begun, row + 1) if row >= begun else (row, max(self._selected[1], begun))
            self.viewport().update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        if self._selected is not None and self._selected[0] == self._selected[1]:
            self._selected = None
            self.viewport().update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        painter = QPainter(self.viewport())
        colours, room = self._colours, self.viewport().rect()
        painter.fillRect(event.rect(), QColor(colours.surface))
        flags = int(Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine)
        if not self._lines or (len(self._lines) == 1 and not self._lines[0].text):
            painter.setFont(body_font())
            painter.setPen(QColor(colours.muted))
            words = int(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft | Qt.TextFlag.TextWordWrap)
            painter.drawText(room.adjusted(24, 16, -24, -16), words, self._message)
            self.paint_ring(painter, colours)
            painter.end()
            return
        painter.setLayoutDirection(Qt.LayoutDirection.LeftToRight)  # else it is the application's
        top = self.verticalScrollBar().value() - tokens.GRID
        shift = 24 - self.horizontalScrollBar().value()
        painter.setFont(self._font)
        first, last = self._selected or (-1, -1)
        for row in range(max(0, top // self._line), len(self._lines)):
            y = row * self._line - top
            if y > room.height():
                break
            if first <= row < last:
                painter.fillRect(QRect(0, y, room.width(), self._line), QColor(colours.selected))
            line = self._lines[row]
            x = shift
            for text, look in _pieces(line):
                font = self._bold if look.strong else self._font
                painter.setFont(font)
                width = QFontMetrics(font).horizontalAdvance(text)
                if look.inverse:
                    painter.fillRect(QRect(x, y, width, self._line), QColor(colours.raised))
                painter.setPen(QColor(self._colour(look)))
                painter.drawText(QRect(x, y, width + self._letter, self._line), flags, text)
                x += width
                if x > room.width():
                    break
        self.paint_ring(painter, colours)
        painter.end()

    def _colour(self, look: Look) -> str:
        colours = self._colours
        named = {
            "red": colours.failed,
            "green": colours.done,
            "yellow": colours.waiting,
            "blue": colours.running,
            "cyan": colours.running,
            "magenta": colours.accent,
            "dim": colours.muted,
        }
        return named.get(look.colour, colours.muted if look.dim else colours.text)


def _pieces(line: Line) -> list[tuple[str, Look]]:
    """A line in stretches of one look each."""
    text = line.text[:DRAWN_CHARS]
    if not line.spans:
        return [(text, PLAIN)]
    pieces: list[tuple[str, Look]] = []
    place = 0
    for first, last, look in line.spans:
        if first > place:
            pieces.append((text[place:first], PLAIN))
        pieces.append((text[first:last], look))
        place = last
    if place < len(text):
        pieces.append((text[place:], PLAIN))
    return pieces
