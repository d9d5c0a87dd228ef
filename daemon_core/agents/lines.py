"""Bytes into lines, within bounded memory, and the cuts that keep texts within their limits."""

from __future__ import annotations

from typing import Final

import msgspec

LINE_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""A longer line is not understood any more. One line of a real agent can hold a whole conversation."""

RAW_LIMIT_BYTES: Final = 4096
"""How much of something unreadable is kept."""

OUTPUT_LIMIT_BYTES: Final = 8192
"""What a server takes of a tool's output (protocol: run phase, messages)."""


class OverlongLine(msgspec.Struct, frozen=True):
    """Stands for a line that was longer than the limit; ``head`` is its beginning."""

    head: bytes


class LineBuffer:
    """Cuts a byte stream into lines.

    What it gives depends on the bytes alone, never on how they were cut into pieces, so a stream can be read
    again from ``consumed`` (with the same ``skipping``) and gives the same lines.

    Attributes:
        consumed: Bytes from the start that are in lines already given. Inside an overlong line, which is
        given as
            soon as it is known to be one, everything seen so far.
        skipping: Whether ``consumed`` is inside an overlong line, whose rest is to be dropped.
    """

    def __init__(
        self, consumed: int = 0, skipping: bool = False, limit_bytes: int = LINE_LIMIT_BYTES
    ) -> None:
        self.consumed = consumed
        self.skipping = skipping
        self._limit = limit_bytes
        self._parts: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> list[bytes | OverlongLine]:
        """Take the next bytes; give the lines they complete, without their newlines."""
        if self.skipping:
            end = data.find(b"\n")
            if end < 0:
                self.consumed += len(data)
                return []
            self.consumed += end + 1
            self.skipping = False
            data = data[end + 1 :]
        given: list[bytes | OverlongLine] = []
        end = data.rfind(b"\n")
        if end >= 0:
            head = data[:end]
            if self._parts:
                self._parts.append(head)
                head = b"".join(self._parts)
                self._parts = []
            self._held = 0
            self.consumed += len(head) + 1
            given.extend(head.split(b"\n"))
            if len(head) > self._limit:
                given = [self._bounded(line) for line in given]
            data = data[end + 1 :]
        if data:
            self._parts.append(data)
            self._held += len(data)
            if self._held > self._limit:
                given.append(self._bounded(b"".join(self._parts)))
                self.consumed += self._held
                self._parts = []
                self._held = 0
                self.skipping = True
        return given

    def finish(self) -> list[bytes | OverlongLine]:
        """The stream has ended: give what is left over as a last line."""
        rest = b"".join(self._parts)
        self._parts = []
        self._held = 0
        self.consumed += len(rest)
        self.skipping = False
        return [rest] if rest else []

    def _bounded(self, line: bytes | OverlongLine) -> bytes | OverlongLine:
        if isinstance(line, bytes) and len(line) > self._limit:
            # Never more than what is known of it in any case, however it was cut into pieces.
            return OverlongLine(line[: min(RAW_LIMIT_BYTES, self._limit)])
        return line


def raw_text(data: bytes, limit_bytes: int = RAW_LIMIT_BYTES) -> str:
    """The beginning of unreadable bytes as a text that can be stored and sent anywhere."""
    text = data[:limit_bytes].decode("utf-8", "replace").replace("\0", "\u2400")
    return text + "…" if len(data) > limit_bytes else text


def cut_output(text: str, limit_bytes: int = OUTPUT_LIMIT_BYTES) -> str:
    """The longest beginning of ``text`` that has at most ``limit_bytes`` bytes of UTF-8."""
    if len(text) * 4 <= limit_bytes:
        return text
    # A character has at least one byte, so nothing behind the limit-th one can be part of the result.
    data = text[:limit_bytes].encode("utf-8", "replace")
    if len(data) <= limit_bytes:
        return text[:limit_bytes]
    return data[:limit_bytes].decode("utf-8", "ignore")


def cut_tail(text: str, limit_chars: int) -> str:
    """The last whole lines of ``text`` within ``limit_chars`` (or the end of its last line, if that is
    longer).
    """
    if len(text) <= limit_chars:
        return text
    tail = text[-limit_chars:]
    line = tail.find("\n")
    return tail[line + 1 :] if 0 <= line < len(tail) - 1 else tail
