"""Unified diffs of contents that no repository knows, in the form that git gives them."""

from __future__ import annotations

import difflib
from typing import Final

LINES_LIMIT: Final = 20_000
"""Both sides together; the search for common lines may become slow above it."""
_NO_NEWLINE: Final = "\n\\ No newline at end of file\n"


def shown(path: bytes) -> str:
    """A path as text: what is no UTF-8 as backslash escapes."""
    return path.decode("utf-8", "backslashreplace")


def unified(old: bytes | None, new: bytes | None, path: str, old_path: str, mode: str) -> Diff | None:
    """The diff of one file; None side: it was not there. None if it has too many lines."""
    before, after = _lines(old), _lines(new)
    if len(before) + len(after) > LINES_LIMIT:
        return None
    head = f"diff --git a/{old_path} b/{path}\n"
    if old is None:
        head += f"new file mode {mode}\n"
    elif new is None:
        head += f"deleted file mode {mode}\n"
    elif path != old_path:
        head += f"rename from {old_path}\nrename to {path}\n"
    body = list(
        difflib.unified_diff(
            before,
            after,
            "/dev/null" if old is None else f"a/{old_path}",
            "/dev/null" if new is None else f"b/{path}",
        )
    )
    added = sum(1 for line in body[2:] if line.startswith("+"))
    deleted = sum(1 for line in body[2:] if line.startswith("-"))
    text = "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in body
    )
    return Diff(head + text, added, deleted)


class Diff:
    """A diff as text, and how many lines it adds and takes away."""

    __slots__ = ("added", "deleted", "text")

    def __init__(self, text: str, added: int, deleted: int) -> None:
        self.text = text
        self.added = added
        self.deleted = deleted


def _lines(content: bytes | None) -> list[str]:
    """Lines with their ends; split at line feeds alone, since a form feed ends no line."""
    if not content:
        return []
    *whole, rest = content.decode("utf-8", "replace").split("\n")
    return [f"{line}\n" for line in whole] + ([rest] if rest else [])
