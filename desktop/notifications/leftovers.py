"""What is on the screen now, in a small file: a desktop that crashes leaves notifications behind whose
buttons nobody hears any more, and the next one has to know their numbers to take them back."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from daemon_core.settings.atomic import write_private

log = logging.getLogger("ostler.desktop.notifications")


class Shown(msgspec.Struct):
    """``shown``: the server's numbers by our idents. They hold for this server on this bus alone."""

    bus: str
    owner: str
    shown: dict[str, int]


class Leftovers:
    """Args:
    path: The file; None: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._begun = False
        self._written = b""

    def begin(self) -> None:
        """From now on the file is ours: another desktop that runs has its own to say until then."""
        self._begun = True
        self._put(b"")

    def read(self) -> Shown | None:
        """What an earlier life has left; None: nothing."""
        if self._path is None:
            return None
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=Shown)
        except (OSError, msgspec.MsgspecError):
            return None  # there is none, as it should be, or what it said is not known
        return found if found.shown and found.bus and found.owner else None

    def write(self, bus: str, owner: str, shown: dict[str, int]) -> None:
        """This is on the screen now."""
        data = msgspec.json.encode(Shown(bus, owner, shown)) if shown and bus and owner else b""
        if self._begun and data != self._written:
            self._put(data)

    def _put(self, data: bytes) -> None:
        if self._path is None:
            return
        try:
            if data:
                write_private(self._path, data, durable=False)
            else:
                self._path.unlink(missing_ok=True)
            self._written = data
        except OSError as error:
            log.info("what is shown cannot be written down: %s", error)
