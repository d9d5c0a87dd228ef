"""Gives memory back to the system that only the start, or a window that is closed now, needed.

The C library keeps what was freed for later, and a tray icon has no later for days. Only glibc can be asked;
elsewhere nothing happens.
"""

from __future__ import annotations

import sys
from typing import Final

from PySide6.QtCore import QObject, QTimer

SOON_MS: Final = 10_000
"""After the last thing that needed memory: by then it is quiet."""


class GiveBack(QObject):
    """Once, some time after the last ``soon``."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(SOON_MS)
        self._timer.timeout.connect(give_back)

    def soon(self) -> None:
        """Something that needed memory is over."""
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()


def give_back() -> None:
    """Now."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
