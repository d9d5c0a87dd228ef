"""Texts of other people within ours: names and ids cut down to plain text, everything else quoted."""

from __future__ import annotations

from typing import Final

NAME_LIMIT_CHARS: Final = 80

_STRUCTURE: Final = frozenset('`*#<>[]{}|\\"')


def plain_name(text: str | None, limit: int = NAME_LIMIT_CHARS) -> str:
    """A name of somebody or something as one short line without anything that Markdown or a model takes for
    structure."""
    kept = "".join(" " if char in _STRUCTURE or not char.isprintable() else char for char in text or "")
    line = " ".join(kept.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def plain_id(text: str | None) -> str:
    """An id or a time, safe within a command: letters, digits and ``. _ : + -``."""
    return "".join(char for char in text or "" if char.isascii() and (char.isalnum() or char in "._:+-"))[
        :200
    ]


def quoted(text: str | None) -> str:
    """Somebody else's text as a block quote; every line of it, however lines end."""
    lines = (text or "").strip("\r\n").splitlines() or [""]
    return "\n".join(f"> {line}".rstrip() for line in lines)


def cut(text: str, limit: int) -> str:
    """At most ``limit`` characters, and a word about it if something is missing."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: {len(text) - limit} more characters]"
