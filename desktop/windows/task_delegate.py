"""Draws a task in two lines, in lists that may be very long."""

from __future__ import annotations

import datetime as dt

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetrics, QPainter
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from daemon_core.control.views import TaskRow
from desktop.models.history import TASK
from desktop.models.state import ACTIVE
from desktop.text import _
from desktop.theme import glyphs, tokens
from desktop.theme.palette import body_font, sized
from desktop.theme.tokens import Colours
from desktop.windows.bits import paint_ground
from desktop.windows.task_line import detail_text
from desktop.windows.wording import cost_text, short_number, state_glyph
from desktop.words import ago, elapsed

Index = QModelIndex | QPersistentModelIndex
HEIGHT = 52


class TaskDelegate(QStyledItemDelegate):
    """For models with ``TASK``."""

    def __init__(self, colours: Colours, parent: QWidget) -> None:
        super().__init__(parent)
        self.colours = colours
        self._strong = sized(body_font(), tokens.BODY, strong=True)
        self._body = body_font()
        self._small = sized(body_font(), tokens.SMALL)

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:  # noqa: N802 - Qt's name
        return QSize(200, HEIGHT)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        task = index.data(TASK)
        if not isinstance(task, TaskRow):
            return
        rect: QRect = option.rect
        state: QStyle.StateFlag = option.state
        colours = self.colours
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(rect).adjusted(16, 1, -16, -1)
        paint_ground(painter, box, state, colours)
        inner = box.toRect().adjusted(tokens.GRID, 6, -tokens.GRID, -6)
        half = inner.height() // 2
        first = QRect(inner.left(), inner.top(), inner.width(), half)
        second = QRect(inner.left(), inner.top() + half, inner.width(), half)
        ratio = painter.device().devicePixelRatio()
        glyph, colour = state_glyph(task, colours)
        top = first.top() + (first.height() - glyphs.SMALL) // 2
        direction: Qt.LayoutDirection = option.direction
        place = QStyle.visualRect(direction, first, QRect(first.left(), top, glyphs.SMALL, glyphs.SMALL))
        painter.drawPixmap(place.topLeft(), glyphs.pixmap(glyph, colour, glyphs.SMALL, ratio))
        left = glyphs.SMALL + tokens.GRID
        now = dt.datetime.now(dt.UTC)
        time = (
            elapsed(task.started_at, now)
            if task.status in ACTIVE
            else ago(task.ended_at or task.created_at, now)
        )
        painter.setLayoutDirection(direction)
        indent = QStyle.visualRect(direction, first, first.adjusted(left, 0, 0, 0))
        self._line(painter, indent, task.title, time, strong=True)
        known = task.tokens and task.status not in ACTIVE
        parts = [_("{number} tokens", number=short_number(task.tokens))] if known else []
        if task.cost_how and task.status not in ACTIVE:
            parts.append(cost_text(task.cost, task.cost_how))
        used = " · ".join(parts)
        indent = QStyle.visualRect(direction, second, second.adjusted(left, 0, 0, 0))
        self._line(painter, indent, detail_text(task, costs=False), used, strong=False)
        painter.restore()

    def _line(self, painter: QPainter, rect: QRect, text: str, right: str, *, strong: bool) -> None:
        leading = Qt.AlignmentFlag.AlignLeading | Qt.AlignmentFlag.AlignVCenter
        flags = int(leading | Qt.TextFlag.TextSingleLine)
        direction = painter.layoutDirection()
        room = rect.width()
        if right:
            font = self._body if strong else self._small
            width = QFontMetrics(font).horizontalAdvance(right)
            painter.setFont(font)
            painter.setPen(QColor(self.colours.muted))
            place = QRect(rect.right() - width, rect.top(), width + 2, rect.height())
            painter.drawText(QStyle.visualRect(direction, rect, place), flags, right)
            room -= width + tokens.GRID * 2
        font = self._strong if strong else self._body
        painter.setFont(font)
        painter.setPen(QColor(self.colours.text if strong else self.colours.muted))
        shown = QFontMetrics(font).elidedText(text, Qt.TextElideMode.ElideRight, max(0, room))
        place = QRect(rect.left(), rect.top(), max(0, room), rect.height())
        painter.drawText(QStyle.visualRect(direction, rect, place), flags, shown)
