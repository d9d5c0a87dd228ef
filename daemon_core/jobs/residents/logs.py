"""A resident's log: the output of all its starts that is still there, as one stretch of lines.

Each start's output is in its run directory, in files of a bounded size (`processes.outputs`). A reader stands
at a start and an offset in it, so nothing is lost to whoever reads along when the output goes on in another
file or in another start. All of this is blocking and safe to do in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from daemon_core.jobs.residents.places import Place
from daemon_core.processes import outputs

BLOCK_BYTES: Final = 64 * 1024
LINE_LIMIT_BYTES: Final = 64 * 1024
"""A longer line is given in pieces."""


class Position(NamedTuple):
    """Where a reader stands: in the output of start ``number``, before byte ``offset``."""

    number: int
    offset: int


class LogReader:
    """Reads lines on from a position; keeps what has no line end yet."""

    def __init__(self, place: Place, position: Position) -> None:
        self._place = place
        self._at = position
        self._rest = b""

    @property
    def position(self) -> Position:
        return self._at

    def read(self) -> list[bytes]:
        """Some of the lines that are there, without line ends; empty at the end.

        A start that is over ends its last line, whether or not there is a line end.
        """
        while True:
            number, offset = self._at
            begin, data = outputs.read(self._place.run_dir(number), "stdout", offset, BLOCK_BYTES)
            if data:
                self._at = Position(number, begin + len(data))
                if begin != offset:
                    self._rest = b""  # what it began is gone
                lines = self._divided(data)
                if lines:
                    return lines
                continue
            later = [each for each in self._place.starts() if each > number]
            if not later:
                return []
            # Once more: it may have grown between the two looks, before the next start was made.
            if outputs.read(self._place.run_dir(number), "stdout", offset, 1)[1]:
                continue
            self._at = Position(later[0], 0)
            if self._rest:
                return [self.unfinished()]

    def unfinished(self) -> bytes:
        """What has no line end yet, which is then given."""
        rest, self._rest = self._rest, b""
        return rest

    def _divided(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) >= LINE_LIMIT_BYTES:
            lines.append(self.unfinished())
        return lines


def before_last(place: Place, count: int) -> Position:
    """The position before the last ``count`` lines."""
    starts = place.starts()
    if not starts:
        return Position(0, 0)
    if count <= 0:
        return Position(starts[-1], outputs.size(place.run_dir(starts[-1]), "stdout"))
    left = count
    for number in reversed(starts):
        run_dir = place.run_dir(number)
        end = outputs.size(run_dir, "stdout")
        at = end
        for begin, data in _backwards(place, number, end):
            # A line end at the very end is no beginning of another line.
            ends = data.count(b"\n") - (begin + len(data) == end and data.endswith(b"\n"))
            if ends >= left:
                cut = len(data) - (begin + len(data) == end and data.endswith(b"\n"))
                for _ in range(left):
                    cut = data.rindex(b"\n", 0, cut)
                return Position(number, begin + cut + 1)
            left -= ends
            at = begin
        # What is before the first line end is a line, too.
        if end > at:
            left -= 1
        if left <= 0:
            return Position(number, at)
    return Position(starts[0], outputs.first(place.run_dir(starts[0]), "stdout"))


def _backwards(place: Place, number: int, end: int) -> Iterator[tuple[int, bytes]]:
    run_dir = place.run_dir(number)
    first = outputs.first(run_dir, "stdout")
    while end > first:
        begin = max(first, end - BLOCK_BYTES)
        at, found = begin, b""
        while at < end:
            got, data = outputs.read(run_dir, "stdout", at, end - at)
            if not data:
                break
            if got != at:
                begin, found = got, b""  # its beginning has just gone
            found += data
            at = got + len(data)
        if not found:
            return
        yield begin, found[: end - begin]
        end = begin
