"""A unified diff as rows to look at: each with its numbers and what it is. No Qt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

RowKind = Literal["hunk", "same", "added", "removed", "note"]

_HUNK: Final = re.compile(r"^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@(.*)$")


@dataclass(frozen=True, slots=True)
class DiffRow:
    """One line. Numbers are None where the line is not in that file."""

    kind: RowKind
    text: str
    old: int | None = None
    new: int | None = None


def rows_of(diff: str) -> list[DiffRow]:
    """The rows of one file's diff; what stands before its first hunk is left out."""
    rows: list[DiffRow] = []
    old = new = 0
    inside = False
    lines = diff.split("\n")
    last = len(lines) - 1
    for number, line in enumerate(lines):
        hunk = _HUNK.match(line)
        if hunk is not None:
            old, new, inside = int(hunk[1]), int(hunk[2]), True
            rows.append(DiffRow("hunk", hunk[3].strip()))
        elif not inside:
            continue
        elif line.startswith("+"):
            rows.append(DiffRow("added", line[1:], new=new))
            new += 1
        elif line.startswith("-"):
            rows.append(DiffRow("removed", line[1:], old=old))
            old += 1
        elif line.startswith("\\"):
            rows.append(DiffRow("note", line[1:].strip()))
        elif line.startswith(" ") or (not line and number < last):
            # An empty line of both files; some tools leave the blank before it out.
            rows.append(DiffRow("same", line[1:], old=old, new=new))
            old += 1
            new += 1
    return rows
