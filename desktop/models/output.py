"""What a program wrote to its terminal, as lines to look at. No Qt.

Bytes come in any pieces. Colours are kept, progress bars that overwrite themselves end as their last state,
everything else that only moves a cursor about is left out. Only so many lines are held; what stands before
them can be put in front again.
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MOST_LINES: Final = 60_000
"""Held while output comes; the oldest go then."""
KEPT_LINES: Final = 40_000
LINE_CHARS: Final = 16_384
"""Of one line; the rest of it is left out."""
UP_LINES: Final = 500
"""How far back a program may go to overwrite."""
TAB: Final = 8

_TOKEN: Final = re.compile(
    r"\x1b\[([0-?]*)[ -/]*([@-~])"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[ -/]+[0-~]|\x1b[0-OQ-WYZ\\`-~]"
    r"|[\x00-\x09\x0b-\x1f\x7f-\x9f]|\n"
)
_CUT: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]{0,4096}\x1b?|[ -/]*)?\Z|\r\Z")
_NAMES: Final = ("dark", "red", "green", "yellow", "blue", "magenta", "cyan", "light")


class Look(NamedTuple):
    """How a stretch of text looks; ``colour`` is a name of the eight, empty for the plain one."""

    colour: str = ""
    strong: bool = False
    dim: bool = False
    inverse: bool = False


PLAIN: Final = Look()
Span = tuple[int, int, Look]


@dataclass(slots=True)
class Line:
    """One line; ``spans`` are its stretches that are not plain, in order."""

    text: str = ""
    spans: list[Span] = field(default_factory=list)


class Output:
    """Lines, the newest last.

    Attributes:
        lines: What is held.
        start: Offset in bytes of the first line that is held; 0: nothing stands before it.
        next: Offset of what is to be fed next.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = [Line()]
        self.start = 0
        self.next = 0
        self._row = 0
        self._column = 0
        self._look = PLAIN
        self._carry = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._marks: deque[tuple[int, int]] = deque()
        """(row, offset): places where a line of ours is known to begin in the file."""

    def begin(self, data: bytes, offset: int) -> None:
        """The first piece; where it begins in the middle of the output, its first line is left out."""
        if offset:
            cut = data.find(b"\n") + 1
            data, offset = data[cut:], offset + cut
        self.start = self.next = offset
        self.feed(data)

    def feed(self, data: bytes) -> int:
        """More of it; the first row that is another one now."""
        at = data.find(b"\n") + 1
        first = self._write(self._decoder.decode(data[:at])) if at else len(self.lines)
        if at:
            self._marks.append((self._row, self.next + at))
        first = min(first, self._write(self._decoder.decode(data[at:])))
        self.next += len(data)
        return first

    def trim(self) -> int:
        """Let go of the oldest lines where there are too many; how many went."""
        if len(self.lines) <= MOST_LINES:
            return 0
        least = len(self.lines) - KEPT_LINES
        while self._marks and self._marks[0][0] < least:
            self._marks.popleft()
        if not self._marks or self._marks[0][0] > self._row:
            return 0
        gone, self.start = self._marks[0]
        del self.lines[:gone]
        self._row -= gone
        self._marks = deque((row - gone, offset) for row, offset in self._marks)
        return gone

    def put_before(self, data: bytes, offset: int) -> int:
        """What stands before the first line (``data`` ends there); how many lines came."""
        before = Output()
        before.begin(data, offset)
        lines = before.lines[:-1] if not before.lines[-1].text else before.lines
        self.lines[:0] = lines
        self._row += len(lines)
        self._marks = deque((row + len(lines), at) for row, at in self._marks)
        self.start = before.start
        return len(lines)

    def tail(self, most: int = 6) -> str:
        """The last lines up to an empty one, as plain text: what a question looks like."""
        found: list[str] = []
        for line in reversed(self.lines[-200:]):
            text = line.text.rstrip()
            if text:
                found.append(text)
            if len(found) == most or (found and not text):
                break
        return "\n".join(reversed(found)).strip("\n")

    # --- a terminal, as far as needed ----------------------------------------------------------

    def _write(self, text: str) -> int:
        text, self._carry = self._carry + text, ""
        cut = _CUT.search(text, max(0, len(text) - 4200))
        if cut is not None:
            text, self._carry = text[: cut.start()], text[cut.start() :]
        text = text.replace("\r\n", "\n")
        first = self._row
        place = 0
        for token in _TOKEN.finditer(text):
            if token.start() > place:
                self._put(text[place : token.start()])
            place = token.end()
            control = token[0]
            if control == "\n":
                self._down()
            elif control == "\r":
                self._column = 0
            elif control == "\b":
                self._column = max(0, self._column - 1)
            elif control == "\t":
                self._put(" " * (TAB - self._column % TAB))
            elif token[2]:
                self._sequence(token[1], token[2])
                first = min(first, self._row)
        if place < len(text):
            self._put(text[place:])
        return first

    def _down(self) -> None:
        self._row += 1
        self._column = 0
        if self._row == len(self.lines):
            self.lines.append(Line())

    def _put(self, text: str) -> None:
        line = self.lines[self._row]
        start = self._column
        text = text[: max(0, LINE_CHARS - start)]
        if not text:
            return
        end = start + len(text)
        if start > len(line.text):
            line.text += " " * (start - len(line.text))
        if start == len(line.text):
            line.text += text
        else:
            line.text = line.text[:start] + text + line.text[end:]
            line.spans = _without(line.spans, start, end)
        if self._look is not PLAIN:
            if line.spans and line.spans[-1][1] == start and line.spans[-1][2] == self._look:
                line.spans[-1] = (line.spans[-1][0], end, self._look)
            else:
                line.spans.append((start, end, self._look))
                line.spans.sort(key=lambda span: span[0])
        self._column = end

    def _sequence(self, given: str, final: str) -> None:
        if final == "m":
            self._look = _looked(self._look, given)
            return
        number = int(given) if given.isdecimal() and len(given) < 6 else 0
        line = self.lines[self._row]
        match final:
            case "K" if number == 1:
                line.text = " " * min(self._column, len(line.text)) + line.text[self._column :]
                line.spans = _without(line.spans, 0, self._column)
            case "K":
                keep = 0 if number == 2 else self._column
                line.text = line.text[:keep]
                line.spans = _without(line.spans, keep, LINE_CHARS)
            case "A" | "F":
                least = max(0, len(self.lines) - UP_LINES)
                self._row = max(min(least, self._row), self._row - max(1, number))
                self._column = 0 if final == "F" else self._column
            case "B" | "E":
                self._row = min(len(self.lines) - 1, self._row + max(1, number))
                self._column = 0 if final == "E" else self._column
            case "C":
                self._column = min(LINE_CHARS, self._column + max(1, number))
            case "D":
                self._column = max(0, self._column - max(1, number))
            case "G":
                self._column = min(LINE_CHARS, max(1, number)) - 1
            case "J" if number == 0:
                line.text = line.text[: self._column]
                line.spans = _without(line.spans, self._column, LINE_CHARS)
                del self.lines[self._row + 1 :]
            case "J":
                # A cleared screen: what was there stays above, to be read.
                self._row = len(self.lines) - 1
                if self.lines[-1].text:
                    self._down()
                self._column = 0
            case "H" | "f":
                self._column = 0
            case _:
                pass


def _without(spans: list[Span], start: int, end: int) -> list[Span]:
    """The spans outside of a stretch."""
    left: list[Span] = []
    for first, last, look in spans:
        if first < start:
            left.append((first, min(last, start), look))
        if last > end:
            left.append((max(first, end), last, look))
    return left


def _looked(look: Look, given: str) -> Look:
    """The look after a sequence that changes it."""
    codes = [int(part) if part.isdecimal() and len(part) < 6 else 0 for part in given.split(";")]
    place = 0
    while place < len(codes):
        code = codes[place]
        place += 1
        if code == 0:
            look = PLAIN
        elif code == 1:
            look = look._replace(strong=True)
        elif code == 2:
            look = look._replace(dim=True)
        elif code == 22:
            look = look._replace(strong=False, dim=False)
        elif code in (7, 27):
            look = look._replace(inverse=code == 7)
        elif 30 <= code <= 37:
            look = look._replace(colour=_NAMES[code - 30])
        elif 90 <= code <= 97:
            look = look._replace(colour="dim" if code == 90 else _NAMES[code - 90])
        elif code == 39:
            look = look._replace(colour="")
        elif code in (38, 48):
            colour, used = _wide(codes[place:])
            place += used
            if code == 38:
                look = look._replace(colour=colour)
    return PLAIN if look == PLAIN else look


def _wide(rest: list[int]) -> tuple[str, int]:
    """The nearest of the eight names for a colour of 256, or one by its parts; and how many codes it took."""
    if rest[:1] == [5] and len(rest) > 1:
        number = rest[1]
        if number < 16:
            return ("dim" if number == 8 else _NAMES[number % 8]), 2
        if number < 232:
            number -= 16
            return _nearest(number // 36 * 51, number // 6 % 6 * 51, number % 6 * 51), 2
        return ("dim" if number < 250 else ""), 2
    if rest[:1] == [2] and len(rest) > 3:
        return _nearest(*rest[1:4]), 4
    return "", len(rest)


def _nearest(red: int, green: int, blue: int) -> str:
    most, least = max(red, green, blue), min(red, green, blue)
    if most - least < 48:
        return "dim" if 48 <= most < 200 else ""
    middle = (most + least) // 2
    bits = (red > middle) + 2 * (green > middle) + 4 * (blue > middle)
    return _NAMES[bits]
