"""Secrets that agents print: what is known by its shape is taken out of a transcript before it is kept."""

from __future__ import annotations

import re
from typing import Final

TAKEN_OUT: Final = b"[redacted]"

_TEXT: Final = rb"(?:[^\"\\]|\\[^\"])"
"""A character of a text in JSON, short of a quotation mark."""

# Each begins with its own text, which is looked for first: most transcripts have none of them. Nothing here
# matches a quotation mark, so that what is taken out of JSON leaves JSON.
_SHAPES: Final[tuple[tuple[bytes, re.Pattern[bytes]], ...]] = tuple(
    (beginning, re.compile(re.escape(beginning) + rest))
    for beginning, rest in (
        (b"ghp_", rb"[A-Za-z0-9]{36,}"),
        (b"gho_", rb"[A-Za-z0-9]{36,}"),
        (b"ghu_", rb"[A-Za-z0-9]{36,}"),
        (b"ghs_", rb"[A-Za-z0-9]{36,}"),
        (b"ghr_", rb"[A-Za-z0-9]{36,}"),
        (b"github_pat_", rb"[A-Za-z0-9_]{22,}"),
        (b"glpat-", rb"[A-Za-z0-9_-]{20,}"),
        (b"sk-", rb"(?:(?:ant|proj)-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{32,})"),
        (b"AKIA", rb"[A-Z0-9]{16}"),
        (b"xox", rb"[abeoprs]-[A-Za-z0-9-]{10,}"),
        (b"AIza", rb"[A-Za-z0-9_-]{35}"),
        # One without an end goes on to the end of its text.
        (
            b"-----BEGIN ",
            rb"[A-Z ]*PRIVATE KEY-----" + _TEXT + rb"*?(?:-----END [A-Z ]*PRIVATE KEY-----|(?=\"|\\\"))",
        ),
    )
)
_WORD: Final = re.compile(rb"[A-Za-z0-9]")
_ESCAPE: Final = re.compile(rb"\\[nrtbf]")


def take_out(body: bytes) -> bytes:
    """A body of JSON without them."""
    for beginning, shape in _SHAPES:
        if beginning in body:
            body = shape.sub(_replacement, body)
    return body


def _replacement(found: re.Match[bytes]) -> bytes:
    """Not in the middle of a word: ``task-`` ends like the beginning of a key."""
    before = found.string[max(0, found.start() - 2) : found.start()]
    if _WORD.match(before[-1:]) and not _ESCAPE.fullmatch(before):
        return found[0]
    return TAKEN_OUT
