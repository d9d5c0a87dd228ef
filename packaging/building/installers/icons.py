"""The application's icon in every form that an installer wants, drawn from the mark."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

PNG_SIZES: Final = (16, 22, 24, 32, 48, 64, 128, 256, 512)
_ICO_SIZES: Final = (16, 24, 32, 48, 64, 128, 256)
_ICNS: Final = {b"icp4": 16, b"icp5": 32, b"ic07": 128, b"ic08": 256, b"ic09": 512, b"ic11": 32, b"ic13": 256}
"""Kinds of an Apple icon and their sizes in pixels; all hold PNG."""


def draw(out: Path) -> None:
    """Write ``hicolor/<size>/apps/ostler.png``, ``hicolor/scalable/apps/ostler.svg``, ``ostler.ico`` and
    ``ostler.icns`` below a directory.

    In a process of its own: a process has one Qt application at most, and the caller's may be another kind.
    """
    packaging = Path(__file__).resolve().parents[2]
    ours = os.pathsep.join((str(packaging), str(packaging.parent)))
    environ = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": ours}
    subprocess.run([sys.executable, "-m", __name__, str(out)], check=True, env=environ)


def _draw(out: Path) -> None:
    from PySide6.QtCore import QRectF, QSize
    from PySide6.QtGui import QColor, QGuiApplication, QPainter
    from PySide6.QtSvg import QSvgGenerator

    from desktop.theme import mark

    _app = QGuiApplication(["icons"])
    ground, colour = map(QColor, mark.APP_COLOURS)
    theme = out / "hicolor"
    for size in PNG_SIZES:
        place = theme / f"{size}x{size}" / "apps"
        place.mkdir(parents=True, exist_ok=True)
        if not mark.app_pixmap(size, ground, colour).save(str(place / "ostler.png"), "PNG"):
            raise OSError(f"{place / 'ostler.png'} cannot be written")
    place = theme / "scalable" / "apps"
    place.mkdir(parents=True, exist_ok=True)
    generator = QSvgGenerator()
    generator.setFileName(str(place / "ostler.svg"))
    generator.setSize(QSize(128, 128))
    generator.setViewBox(QRectF(0, 0, 128, 128))
    generator.setTitle("Ostler")
    painter = QPainter(generator)
    try:
        mark.draw_app(painter, 128.0, ground, colour)
    finally:
        painter.end()

    def png(size: int) -> bytes:
        return (theme / f"{size}x{size}" / "apps" / "ostler.png").read_bytes()

    (out / "ostler.ico").write_bytes(_ico([(size, png(size)) for size in _ICO_SIZES]))
    (out / "ostler.icns").write_bytes(_icns([(kind, png(size)) for kind, size in _ICNS.items()]))


def _ico(images: list[tuple[int, bytes]]) -> bytes:
    """A Windows icon: a table of contents, then the pictures as PNG."""
    head = struct.pack("<HHH", 0, 1, len(images))
    at = len(head) + 16 * len(images)
    table, body = b"", b""
    for size, data in images:
        small = 0 if size >= 256 else size  # 0 stands for 256
        table += struct.pack("<BBBBHHII", small, small, 0, 0, 1, 32, len(data), at + len(body))
        body += data
    return head + table + body


def _icns(images: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(kind + struct.pack(">I", len(data) + 8) + data for kind, data in images)
    return b"icns" + struct.pack(">I", len(body) + 8) + body


if __name__ == "__main__":
    _draw(Path(sys.argv[1]))
