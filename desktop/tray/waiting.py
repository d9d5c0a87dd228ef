"""Waits for a tray before deciding that there is none: at login it often comes after us, and a panel that
crashed is back within seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from PySide6.QtCore import QObject, QTimer, Signal

PATIENCE_MS: Final = 20_000


class TrayPatience(QObject):
    """Args:
    available: Whether there is a tray.

    Signals:
        alone(): There was none for the whole time.
    """

    alone = Signal()

    def __init__(
        self, available: Callable[[], bool], parent: QObject | None = None, patience_ms: int = PATIENCE_MS
    ) -> None:
        super().__init__(parent)
        self._available = available
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(patience_ms)
        self._timer.timeout.connect(self._on_over)

    @property
    def waiting(self) -> bool:
        """Whether it is still waited for one."""
        return self._timer.isActive()

    def begin(self) -> None:
        """Wait from now on."""
        self._timer.start()

    def stop(self) -> None:
        """It does not matter any more."""
        self._timer.stop()

    def _on_over(self) -> None:
        if not self._available():
            self.alone.emit()
