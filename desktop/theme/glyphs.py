"""The glyphs inside the windows: outlines from Lucide (``resources/glyphs``), recoloured from the tokens.

A glyph is drawn once for a size, a colour and a scale, with strokes of 1.5 pixels at every size.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from PySide6.QtCore import QByteArray, QRectF, QSize, Qt
from PySide6.QtGui import QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

DIRECTORY: Final = Path(__file__).resolve().parents[1] / "resources" / "glyphs"
STROKE: Final = 1.5
GRID: Final = 24
"""The side of the square that the outlines are drawn in."""
SMALL: Final = 16
LARGE: Final = 20


@functools.cache
def _source(name: str) -> str:
    return (DIRECTORY / f"{name}.svg").read_text(encoding="utf-8")


@functools.lru_cache(maxsize=512)
def pixmap(name: str, colour: str, size: int = SMALL, ratio: float = 1.0) -> QPixmap:
    """A glyph on nothing; ``size`` in device-independent pixels."""
    width = STROKE * GRID / size
    source = _source(name).replace("currentColor", colour)
    source = source.replace('stroke-width="2"', f'stroke-width="{width:.3f}"')
    renderer = QSvgRenderer(QByteArray(source.encode()))
    made = QPixmap(QSize(round(size * ratio), round(size * ratio)))
    made.setDevicePixelRatio(ratio)
    made.fill(Qt.GlobalColor.transparent)
    painter = QPainter(made)
    try:
        renderer.render(painter, QRectF(0, 0, size, size))
    finally:
        painter.end()
    return made


def icon(name: str, colour: str, size: int = SMALL) -> QIcon:
    """A glyph for a button, sharp at 100 to 300 %."""
    made = QIcon()
    for ratio in (1.0, 1.5, 2.0, 3.0):
        made.addPixmap(pixmap(name, colour, size, ratio))
    return made
