"""Where items of very different heights are in a list of hundreds of thousands. No Qt.

A height is an estimate until the item was laid out. The estimate is linear in what is known of an item (a
fixed part, line breaks, characters), so a chunk of items needs only its sums: another width costs one step a
chunk and not one an item.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

CHUNK: Final = 256


@dataclass(slots=True)
class _Chunk:
    fixed: int = 0
    breaks: int = 0
    chars: int = 0
    correction: float = 0.0
    """What the laid-out items are higher than their estimates, together."""
    facts: list[tuple[int, int, int]] = field(default_factory=list)
    exact: dict[int, int] = field(default_factory=dict)


class Heights:
    """Heights in pixels by index.

    Args:
        line: Height of a line of text.
        columns: Characters on a line.
    """

    def __init__(self, line: float, columns: float) -> None:
        self._line = line
        self._columns = max(columns, 1.0)
        self._chunks: list[_Chunk] = []
        self._starts: list[float] | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def reflow(self, line: float, columns: float) -> None:
        """Another width or type: everything is an estimate again."""
        self._line, self._columns = line, max(columns, 1.0)
        for chunk in self._chunks:
            chunk.correction = 0.0
            chunk.exact.clear()
        self._starts = None

    def put(self, index: int, fixed: int, breaks: int, chars: int) -> None:
        """What is known of an item; ``index`` may be one behind the last. Its height is an estimate again."""
        place, inside = divmod(index, CHUNK)
        if index == self._count:
            if place == len(self._chunks):
                self._chunks.append(_Chunk())
            self._chunks[place].facts.append((0, 0, 0))
            self._count += 1
        chunk = self._chunks[place]
        self._forget(chunk, inside)
        old = chunk.facts[inside]
        chunk.facts[inside] = (fixed, breaks, chars)
        chunk.fixed += fixed - old[0]
        chunk.breaks += breaks - old[1]
        chunk.chars += chars - old[2]
        self._starts = None

    def measured(self, index: int, height: int) -> bool:
        """An item was laid out; whether that changed anything."""
        chunk, inside = self._chunks[index // CHUNK], index % CHUNK
        if chunk.exact.get(inside) == height:
            return False
        self._forget(chunk, inside)
        chunk.exact[inside] = height
        chunk.correction += height - self._estimate(chunk.facts[inside])
        self._starts = None
        return True

    def height(self, index: int) -> float:
        """The height of one item."""
        chunk, inside = self._chunks[index // CHUNK], index % CHUNK
        found = chunk.exact.get(inside)
        return found if found is not None else self._estimate(chunk.facts[inside])

    def total(self) -> float:
        """The height of all."""
        return self._chunk_starts()[-1]

    def start(self, index: int) -> float:
        """Where an item begins."""
        place, inside = divmod(index, CHUNK)
        first = place * CHUNK
        return self._chunk_starts()[place] + sum(self.height(first + each) for each in range(inside))

    def at(self, position: float) -> tuple[int, float]:
        """(item, how far into it) at a height; the first or the last one beyond the ends."""
        if not self._count:
            return 0, 0.0
        starts = self._chunk_starts()
        place = min(max(bisect_right(starts, position) - 1, 0), len(self._chunks) - 1)
        left = max(0.0, position - starts[place])
        index = place * CHUNK
        last = min(index + CHUNK, self._count) - 1
        while index < last and left >= (height := self.height(index)):
            left -= height
            index += 1
        return index, left

    def _estimate(self, facts: tuple[int, int, int]) -> float:
        fixed, breaks, chars = facts
        return fixed + self._line * (breaks + chars / self._columns)

    def _forget(self, chunk: _Chunk, inside: int) -> None:
        known = chunk.exact.pop(inside, None)
        if known is not None:
            chunk.correction -= known - self._estimate(chunk.facts[inside])

    def _chunk_starts(self) -> list[float]:
        if self._starts is None:
            sizes = (
                chunk.fixed + self._line * (chunk.breaks + chunk.chars / self._columns) + chunk.correction
                for chunk in self._chunks
            )
            self._starts = [0.0, *accumulate(sizes)]
        return self._starts
