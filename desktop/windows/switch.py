"""A switch: a check box by its role and keys, painted as what it is: on or off, at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from PySide6.QtCore import QPoint, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QCheckBox, QSizePolicy

from desktop.theme.tokens import Colours

WIDTH: Final = 36
HEIGHT: Final = 20
MARGIN: Final = 3
"""Around it, for the focus ring."""


class Switch(QCheckBox):
    """On at the end, off at the beginning; the place of the knob tells it without its colour."""

    def __init__(self, name: str, colours: Callable[[], Colours]) -> None:
        super().__init__()
        self._colours = colours
        self.setAccessibleName(name)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        return self.sizeHint()

    def hitButton(self, pos: QPoint) -> bool:  # noqa: N802
        return self.rect().contains(pos)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        colours = self._colours()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        track = QRectF(MARGIN, (self.height() - HEIGHT) / 2, WIDTH, HEIGHT)
        on, enabled = self.isChecked(), self.isEnabled()
        ground = colours.accent if on and enabled else colours.raised
        painter.setPen(QPen(QColor(ground if on and enabled else colours.neutral), 1))
        painter.setBrush(QColor(ground))
        painter.drawRoundedRect(track.adjusted(0.5, 0.5, -0.5, -0.5), HEIGHT / 2, HEIGHT / 2)
        knob = HEIGHT - 8
        at_end = on is (self.layoutDirection() is Qt.LayoutDirection.LeftToRight)
        x = track.right() - knob - 4 if at_end else track.left() + 4
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colours.on_accent if on and enabled else colours.neutral))
        painter.drawEllipse(QRectF(x, track.top() + 4, knob, knob))
        if self.hasFocus():
            painter.setPen(QPen(QColor(colours.text if on else colours.accent), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            ring = track.adjusted(-2, -2, 2, 2)
            painter.drawRoundedRect(ring, ring.height() / 2, ring.height() / 2)
        painter.end()
