"""Collects the texts: the arguments of ``_``, ``n_`` and ``mark`` in the desktop's sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Text:
    """One text. ``plural`` is empty where there is no number in it; ``places`` are ``path`` without lines, so
    that a catalogue does not change with every edit."""

    one: str
    plural: str = ""
    places: set[str] = field(default_factory=set)


class SourceError(Exception):
    """A text that cannot be collected: the message names its place."""


def collect(root: Path) -> dict[str, Text]:
    """All texts below a directory, by their English (the singular), sorted by where they are first met.

    Raises:
        SourceError: A text is put together before it is translated, or has two plurals.
    """
    found: dict[str, Text] = {}
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root.parent).as_posix()
        for one, plural, line in _texts(path, place):
            known = found.setdefault(one, Text(one, plural))
            if plural and known.plural not in ("", plural):
                raise SourceError(f"{place}:{line}: {one!r} has another plural elsewhere")
            known.plural = known.plural or plural
            known.places.add(place)
    return found


def setting_texts() -> dict[str, Text]:
    """What the daemon says of settings for which the desktop has no words of its own."""
    from daemon_core.settings import file
    from desktop.windows.settings_words import HINTS, table_key

    place = "daemon_core/settings/sections.py"
    wanted = [entry.key.what for entry in file.entries() if table_key(entry.name) not in HINTS]
    return {what: Text(what, places={place}) for what in wanted if what}


def _texts(path: Path, place: str) -> Iterator[tuple[str, str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id not in ("_", "n_", "mark") or not node.args:
            continue
        wanted = 2 if node.func.id == "n_" else 1
        given = [_constant(each) for each in node.args[:wanted]]
        if any(isinstance(each, ast.JoinedStr) for each in node.args[:wanted]):
            raise SourceError(f"{place}:{node.lineno}: a text is put together before it is translated")
        if len(given) < wanted or any(each is None for each in given):
            continue  # a name: its text stands in a table, under ``mark``
        yield given[0] or "", (given[1] or "") if wanted == 2 else "", node.lineno


def _constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
