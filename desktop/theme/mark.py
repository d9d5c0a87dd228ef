"""The mark: a horseshoe, one thick open arc with its ends down. The tray's states are changes of its shape.

Drawn and not stored: so it is sharp at every size and scale, and one function gives tray icon, window icon
and the icons of the installers.
"""

from __future__ import annotations

import enum
from typing import Final

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QIcon, QPainter, QPainterPath, QPen, QPixmap

SIZES: Final = (16, 18, 20, 22, 24, 28, 32, 36, 44, 48, 64, 96, 128, 192)
"""Tray sizes from 16 to 64 px at 100 to 300 %; between them the system scales."""
APP_COLOURS: Final = ("#8A5A2B", "#FFFFFF")
"""Ground and mark of the application's own icon."""
APP_SIZES: Final = (16, 24, 32, 48, 64, 128)
"""Of a window: each is kept by the program and by the screen's server. Files of installers are larger."""


class Shape(enum.Enum):
    """What the mark says. Each is a shape of its own, so that no colour is needed to tell them apart."""

    IDLE = "idle"
    WORKING = "working"
    NEEDS_YOU = "needs_you"
    PAUSED = "paused"
    PROBLEM = "problem"
    DISCONNECTED = "disconnected"


def draw(painter: QPainter, size: float, shape: Shape, colour: QColor) -> None:
    """Draw the mark into the square from (0, 0) to (size, size)."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    thick = size * 0.155
    # Room for the strokes, and for the dot of "needs you" outside at the top right.
    radius = size * 0.335
    centre = QPointF(size / 2, size * 0.45)
    end = size * 0.90
    spread = radius * 0.80
    arc = _horseshoe(centre, radius, spread, end)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    if shape is Shape.DISCONNECTED:
        _outline(painter, arc, size, thick, colour)
        return
    pen = QPen(colour, thick, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin)
    painter.setPen(pen)
    if shape is Shape.PROBLEM:
        left, right = _broken(centre, radius, spread, end)
        pen.setCapStyle(Qt.PenCapStyle.FlatCap)
        painter.setPen(pen)
        painter.drawPath(left)
        painter.drawPath(right)
        return
    painter.drawPath(arc)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(colour)
    x, y = centre.x(), centre.y()
    match shape:
        case Shape.WORKING:
            painter.drawEllipse(QPointF(x, y + radius * 0.18), size * 0.125, size * 0.125)
        case Shape.PAUSED:
            width, height = size * 0.085, size * 0.30
            for left_edge in (x - size * 0.12, x + size * 0.12 - width):
                painter.drawRect(QRectF(left_edge, y - height * 0.32, width, height))
        case Shape.NEEDS_YOU:
            width = size * 0.10
            painter.drawRoundedRect(
                QRectF(x - width / 2, y - radius * 0.42, width, size * 0.30), width / 2, width / 2
            )
            painter.drawEllipse(QPointF(x, y + size * 0.30), width * 0.62, width * 0.62)
            _dot_outside(painter, size, colour)
        case _:
            pass


def pixmap(size: int, shape: Shape, colour: QColor, ratio: float = 1.0) -> QPixmap:
    """The mark on nothing; ``size`` in device-independent pixels."""
    made = QPixmap(QSize(round(size * ratio), round(size * ratio)))
    made.setDevicePixelRatio(ratio)
    made.fill(Qt.GlobalColor.transparent)
    painter = QPainter(made)
    try:
        draw(painter, float(size), shape, colour)
    finally:
        painter.end()
    return made


def tray_icon(shape: Shape, colour: QColor) -> QIcon:
    """An icon with every size that a tray may ask for."""
    icon = QIcon()
    for size in SIZES:
        icon.addPixmap(pixmap(size, shape, colour))
    return icon


def app_icon(ground: QColor, mark: QColor) -> QIcon:
    """The application's own icon: the mark on a rounded ground."""
    icon = QIcon()
    for size in APP_SIZES:
        icon.addPixmap(app_pixmap(size, ground, mark))
    return icon


def app_pixmap(size: int, ground: QColor, mark: QColor) -> QPixmap:
    """The application's icon at one size."""
    made = QPixmap(QSize(size, size))
    made.fill(Qt.GlobalColor.transparent)
    painter = QPainter(made)
    try:
        draw_app(painter, size, ground, mark)
    finally:
        painter.end()
    return made


def draw_app(painter: QPainter, size: float, ground: QColor, mark: QColor) -> None:
    """Draw the application's icon into the square from (0, 0) to (size, size)."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(ground)
    edge = size / 32
    painter.drawRoundedRect(QRectF(edge, edge, size - 2 * edge, size - 2 * edge), size * 0.22, size * 0.22)
    painter.translate(size * 0.17, size * 0.17)
    draw(painter, size * 0.66, Shape.IDLE, mark)


def _horseshoe(centre: QPointF, radius: float, spread: float, end: float) -> QPainterPath:
    """From the left end over the top to the right one; the ends lean inwards a little."""
    path = QPainterPath(QPointF(centre.x() - spread, end - radius * 0.12))
    left = QPointF(centre.x() - radius, centre.y())
    path.cubicTo(
        QPointF(left.x(), centre.y() + radius * 0.95), QPointF(left.x(), centre.y() + radius * 0.4), left
    )
    box = QRectF(centre.x() - radius, centre.y() - radius, 2 * radius, 2 * radius)
    path.arcTo(box, 180.0, -180.0)
    path.cubicTo(
        QPointF(centre.x() + radius, centre.y() + radius * 0.4),
        QPointF(centre.x() + radius, centre.y() + radius * 0.95),
        QPointF(centre.x() + spread, end - radius * 0.12),
    )
    return path


def _broken(centre: QPointF, radius: float, spread: float, end: float) -> tuple[QPainterPath, QPainterPath]:
    """The arc with a gap at its top, the right half a little lower: it is in two pieces."""
    box = QRectF(centre.x() - radius, centre.y() - radius, 2 * radius, 2 * radius)
    gap = 26.0
    left = QPainterPath(QPointF(centre.x() - spread, end - radius * 0.12))
    start = QPointF(centre.x() - radius, centre.y())
    left.cubicTo(
        QPointF(start.x(), centre.y() + radius * 0.95), QPointF(start.x(), centre.y() + radius * 0.4), start
    )
    left.arcTo(box, 180.0, -(90.0 - gap))
    lower = box.translated(0.0, radius * 0.16)
    right = QPainterPath()
    right.arcMoveTo(lower, 90.0 - gap)
    right.arcTo(lower, 90.0 - gap, -(90.0 - gap))
    right.cubicTo(
        QPointF(centre.x() + radius, centre.y() + radius * 0.5),
        QPointF(centre.x() + radius, centre.y() + radius * 0.95),
        QPointF(centre.x() + spread, end - radius * 0.12),
    )
    return left, right


def _outline(painter: QPainter, arc: QPainterPath, size: float, thick: float, colour: QColor) -> None:
    from PySide6.QtGui import QPainterPathStroker

    stroker = QPainterPathStroker()
    thin = max(1.0, size * 0.055)
    stroker.setWidth(thick)
    stroker.setCapStyle(Qt.PenCapStyle.RoundCap)
    painter.setPen(QPen(colour, thin))
    painter.drawPath(stroker.createStroke(arc).simplified())


def _dot_outside(painter: QPainter, size: float, colour: QColor) -> None:
    """At the top right, cut free from the arc, so that it is seen in one colour too."""
    centre = QPointF(size * 0.87, size * 0.13)
    painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_Clear)
    painter.drawEllipse(centre, size * 0.17, size * 0.17)
    painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_SourceOver)
    painter.setBrush(colour)
    painter.drawEllipse(centre, size * 0.115, size * 0.115)
