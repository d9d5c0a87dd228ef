"""A job's output as it is read: pieces of the file at any offset, and a digest for an agent.

It may be huge and grow meanwhile, so nothing here reads more than a window of it; and its middle may have
been dropped (``processes.outputs``): offsets and sizes are those of the whole. All functions touch the disk:
call them in a thread.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

import msgspec

from daemon_core.processes import outputs

DIGEST_LIMIT_CHARS: Final = 16_000
"""Of a digest: what is longer is told by its beginning and its end."""
WINDOW_BYTES: Final = 128 * 1024
"""Read for each end of a digest: control sequences and progress bars take room and leave no text."""
TAIL_BYTES: Final = 4096
"""Looked at to tell whether it waits for input."""
PIECE_LIMIT_BYTES: Final = 1024 * 1024
STREAMS: Final = ("stdout", "stderr")

_SEQUENCES: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # CSI
    r"|[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?"  # OSC, DCS, SOS, PM, APC
    r"|[ -/]+[0-~]|[0-Z\\-~])"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
_CUT_SEQUENCE: Final = re.compile(r"\x1b[^\n]{0,80}\Z")
_BACKSPACED: Final = re.compile(r"[^\x08\n]\x08(?: \x08)?")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of an output."""

    offset: int
    """Where it begins: later than asked for where that was dropped, earlier where that is beyond the end."""
    data: bytes
    size: int
    """Of the whole output at that moment, what was dropped included."""
    gap: outputs.Gap | None = None
    """What was dropped."""


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is shown of an output."""

    text: str
    size: int
    """Bytes of the whole output."""
    shortened: bool
    gap: outputs.Gap | None = None
    """What was dropped and cannot be read any more."""


def size_of(directory: Path, stream: str = "stdout") -> int:
    """Bytes of a job's output so far; 0 where there is none (yet)."""
    return outputs.size(directory, stream)


def grew_at(directory: Path) -> float:
    """When a job has written something last, in seconds since 1970; 0 if it never has."""
    latest = 0.0
    for stream in STREAMS:
        with contextlib.suppress(FileNotFoundError):
            facts = os.stat(directory / stream)
            latest = max(latest, facts.st_mtime if facts.st_size else 0.0)
    return latest


def read_piece(directory: Path, stream: str, offset: int, limit: int) -> Piece:
    """At most ``limit`` bytes from ``offset`` on. Raises ``OSError``."""
    size = outputs.size(directory, stream)
    start = at = min(offset, size)
    left = min(limit, PIECE_LIMIT_BYTES, size - start)
    parts: list[bytes] = []
    while left > 0:
        found, data = outputs.read(directory, stream, at, left)
        if not data or (parts and found != at):
            break  # what follows was dropped
        if not parts:
            start = found
        parts.append(data)
        at, left = found + len(data), left - len(data)
    return Piece(offset=start, data=b"".join(parts), size=max(size, at), gap=outputs.gap(directory, stream))


def read_tail(directory: Path, stream: str, limit: int = TAIL_BYTES) -> bytes:
    """The last bytes of an output. Raises ``OSError``."""
    return read_piece(directory, stream, max(0, size_of(directory, stream) - limit), limit).data


def digest(directory: Path, stream: str = "stdout", limit: int = DIGEST_LIMIT_CHARS) -> Digest:
    """Beginning and end of an output as plain text, with its true size. Raises ``OSError``."""
    first = read_piece(directory, stream, 0, WINDOW_BYTES)
    if first.size <= len(first.data):
        text = plain(first.data)
        if len(text) <= limit:
            return Digest(text=text, size=first.size, shortened=False)
        head, tail = text, text
    else:
        head = plain(first.data, cut_end=True)
        last = read_piece(directory, stream, max(len(first.data), first.size - WINDOW_BYTES), WINDOW_BYTES)
        tail = plain(last.data, cut_start=True)
        if last.offset == len(first.data) and len(head) + len(tail) <= limit:
            return Digest(text=head + tail, size=first.size, shortened=False)
    note = f"\n[... shortened: the output has {first.size:,} bytes in all{dropped_words(first.gap)} ...]\n"
    half = (limit - len(note)) // 2
    return Digest(
        text=head[:half].rstrip("\n") + note + tail[-half:].lstrip("\n"),
        size=first.size,
        shortened=True,
        gap=first.gap,
    )


def dropped_words(gap: outputs.Gap | None) -> str:
    """That a part cannot be read any more, to go behind the size; empty where all of it can."""
    if gap is None:
        return ""
    return f"; bytes {gap.start:,} to {gap.end:,} were dropped, since it is longer than is kept"


def plain(data: bytes, *, cut_start: bool = False, cut_end: bool = False) -> str:
    """Output as a terminal would leave it: no control sequences, and of what was written over only the last.

    Args:
        cut_start: ``data`` begins in the middle: half a character at its beginning is left out.
        cut_end: It ends in the middle: half a character or control sequence at its end is left out.
    """
    if cut_start:
        skip = 0
        while skip < min(3, len(data)) and data[skip] & 0xC0 == 0x80:
            skip += 1
        data = data[skip:]
    text = data.decode("utf-8", "replace")
    if cut_end:
        text = text.rstrip("�")
    text = _SEQUENCES.sub("", text)
    if cut_end:
        text = _CUT_SEQUENCE.sub("", text)
    text = text.replace("\r\n", "\n")
    if "\x08" in text:
        for _ in range(3):
            text = _BACKSPACED.sub("", text)
    if "\r" in text:
        text = "\n".join(_overwritten(line) for line in text.split("\n"))
    return _CONTROLS.sub("", text)


def _overwritten(line: str) -> str:
    """A line whose beginning was written over (a progress bar): the last state that shows anything."""
    if "\r" not in line:
        return line
    states = [state for state in line.split("\r") if state.strip()]
    return states[-1] if states else ""
