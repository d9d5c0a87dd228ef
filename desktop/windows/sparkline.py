"""A line of the last two minutes, with the present figure beside it: processor and memory of one thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QWidget

from desktop.daemon.stats import KEPT, Series
from desktop.text import _
from desktop.theme import tokens
from desktop.theme.palette import body_font, sized
from desktop.windows.context import Context
from desktop.words import decimal

WIDTH: Final = 56
HEIGHT: Final = 18
BELOW: Final = 0.16
"""How much of its colour lies under the line."""
WHOLE_CPU: Final = 100.0
"""At least this much fills the height, so that an idle program is a flat line."""


class Sparkline(QWidget):
    """Nothing while there are no figures."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._cpu: list[float] = []
        self._text = ""
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setFont(sized(body_font(), tokens.SMALL))
        self.hide()

    def show_series(self, series: Series | None) -> None:
        """Show these; None: nothing is known."""
        if series is None or not series.cpu:
            self.hide()
            return
        self._cpu = list(series.cpu)
        self._text = bytes_text(series.memory[-1])
        told = _("{cpu} % of a processor, {memory}", cpu=round(series.cpu[-1]), memory=self._text)
        self.setAccessibleName(told)
        self.setToolTip(told)
        self.updateGeometry()
        self.show()
        self.update()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(WIDTH + tokens.GRID + QFontMetrics(self.font()).horizontalAdvance("8888 MB"), HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setLayoutDirection(Qt.LayoutDirection.LeftToRight)  # as time and figures go everywhere
        colours = self._context.colours
        top = (self.height() - HEIGHT) / 2
        draw_line(painter, QRectF(0, top + 2, WIDTH, HEIGHT - 4), self._cpu, colours.running, colours.line)
        painter.setFont(self.font())
        painter.setPen(QColor(colours.muted))
        room = self.rect().adjusted(WIDTH + tokens.GRID, 0, 0, 0)
        painter.drawText(room, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight), self._text)
        painter.end()


def draw_line(painter: QPainter, place: QRectF, values: Sequence[float], colour: str, ground: str) -> None:
    """Draw values from left to right, the newest at the right edge."""
    painter.setPen(QPen(QColor(ground), 1))
    painter.drawLine(place.bottomLeft(), place.bottomRight())
    if not values:
        return
    most = max(WHOLE_CPU, *values)
    step = place.width() / (KEPT - 1)
    first = place.right() - step * (len(values) - 1)
    points = [
        QPointF(first + step * at, place.bottom() - place.height() * value / most)
        for at, value in enumerate(values)
    ]
    if len(points) == 1:
        points.insert(0, QPointF(points[0].x() - step, points[0].y()))
    below = QColor(colour)
    below.setAlphaF(BELOW)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(below)
    corners = (QPointF(points[-1].x(), place.bottom()), QPointF(points[0].x(), place.bottom()))
    painter.drawPolygon(QPolygonF([*points, *corners]))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    pen = QPen(QColor(colour), 1.25, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap)
    pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    painter.setPen(pen)
    painter.drawPolyline(QPolygonF(points))


def bytes_text(size: int) -> str:
    """ "214 MB", "1.3 GB"."""
    if size < 1_000_000:
        return _("{n} kB", n=max(0, size // 1000))
    if size < 1_000_000_000:
        return _("{n} MB", n=size // 1_000_000)
    return _("{n} GB", n=decimal(size / 1_000_000_000, 1))
