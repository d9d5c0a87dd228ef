"""Output of a job in a terminal, piece by piece: characters and control sequences may be cut anywhere."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable
from typing import Any, Final

from daemon_core.cli.show import safe

_HELD_CHARS: Final = 256
"""A control sequence is shorter; what looks like the beginning of a longer one is none."""
_BEGUN: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*|[ -/]*)")


class Printer:
    """Prints pieces in their order.

    Args:
        colours: Colours may stay.
        raw: Everything may.
        line: Takes each piece as an object instead (``--json --follow``).
    """

    def __init__(
        self,
        colours: bool,
        *,
        raw: bool = False,
        err: bool = False,
        line: Callable[[Any], None] | None = None,
    ) -> None:
        self._colours = colours
        self._raw = raw
        self._line = line
        self._out = sys.stderr if err else sys.stdout
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._fresh = True

    def show(self, data: bytes) -> None:
        if self._raw and self._line is None:
            self._out.flush()
            self._out.buffer.write(data)
            self._out.buffer.flush()
            return
        self._write(self._decoder.decode(data))

    def end(self) -> None:
        """What was held back, and a line end where there is none."""
        if self._raw and self._line is None:
            return
        self._write(self._decoder.decode(b"", final=True), final=True)
        if self._line is None and not self._fresh and self._out.isatty():
            self._out.write("\n")
            self._fresh = True
        self._out.flush()

    def _write(self, text: str, *, final: bool = False) -> None:
        text = self._held + text
        self._held = ""
        if not final:
            at = max(text.rfind("\x1b"), len(text) - 1 if text.endswith("\r") else -1)
            if at >= 0 and len(text) - at <= _HELD_CHARS and not _whole(text[at:]):
                text, self._held = text[:at], text[at:]
        shown = text if self._raw else safe(_lines(text), colours=self._colours)
        if not shown:
            return
        if self._line is not None:
            self._line({"text": shown})
            self._out.flush()
            return
        self._out.write(shown)
        self._out.flush()
        self._fresh = shown.endswith("\n")


def _lines(text: str) -> str:
    """Progress that writes over its own line: each state on a line of its own."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _whole(text: str) -> bool:
    """Whether text that begins with a control character is more than the beginning of a sequence."""
    return text[0] == "\x1b" and _BEGUN.fullmatch(text) is None
