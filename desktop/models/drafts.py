"""What was written in a window and not sent yet: it outlives the widgets, and a crash of the desktop.

One small file for this user alone, written a moment after the last key. A file that cannot be read or written
costs what is in it, and nothing else.
"""

from __future__ import annotations

import logging
from collections import UserDict
from pathlib import Path
from typing import Final

import msgspec
from PySide6.QtCore import QObject, QTimer

from daemon_core.settings.atomic import write_private

log = logging.getLogger("ostler.desktop")

SOON_MS: Final = 500
MOST: Final = 100
"""So many are kept; the ones that were written first go."""
LIMIT_BYTES: Final = 1024 * 1024


class Drafts(UserDict[str, str]):
    """Texts by the place that they were written at.

    Args:
        path: The file; None: nothing is kept.
        parent: Whoever has a life for the timer; needed with a file.
    """

    def __init__(self, path: Path | None = None, parent: QObject | None = None) -> None:
        super().__init__()
        self._path = path
        self._soon: QTimer | None = None
        if path is not None:
            self.data = _read(path)
            self._soon = QTimer(parent)
            self._soon.setSingleShot(True)
            self._soon.setInterval(SOON_MS)
            self._soon.timeout.connect(self.save)

    def __setitem__(self, key: str, text: str) -> None:
        if self.data.get(key) == text:
            return
        self.data.pop(key, None)  # the newest at the end
        self.data[key] = text
        while len(self.data) > MOST:
            del self.data[next(iter(self.data))]
        self._changed()

    def __delitem__(self, key: str) -> None:
        del self.data[key]
        self._changed()

    def _changed(self) -> None:
        if self._soon is not None:
            self._soon.start()

    def save(self) -> None:
        """Now. What is empty is not worth a file."""
        if self._path is None or self._soon is None:
            return
        self._soon.stop()
        kept = {key: text for key, text in self.data.items() if text}
        try:
            if kept:
                write_private(self._path, msgspec.json.encode(kept), durable=False)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("what is being written cannot be kept: %s", error)


def _read(path: Path) -> dict[str, str]:
    try:
        data = path.read_bytes()
        return msgspec.json.decode(data, type=dict[str, str]) if len(data) <= LIMIT_BYTES else {}
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("what was being written cannot be read: %s", error)
        return {}
