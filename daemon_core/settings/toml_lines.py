"""On which line of a TOML file a key is: only messages depend on it.

A TOML parser gives no positions, so lines are looked at one by one: headers and the beginnings of assignments
are parsed for themselves.
"""

from __future__ import annotations

import tomllib
from typing import Any


def line_of(text: str, name: str) -> int | None:
    """The line, from 1, on which ``name`` (a key or a section) is set; None if it cannot be told."""
    wanted = name.split(".")
    section: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            section = _path_in(stripped)
            here = section
        else:
            left, sign, _ = stripped.partition("=")
            here = section + _path_in(f"{left} = 0") if sign and not stripped.startswith("#") else []
        if here[: len(wanted)] == wanted:
            return number
        # An inline table: `agents = { claude = { pth = "x" } }` names its last keys on the same line.
        if here and here == wanted[: len(here)] and here != section and wanted[-1] in stripped:
            return number
    return None


def _path_in(line: str) -> list[str]:
    try:
        tree: Any = tomllib.loads(line)
    except (tomllib.TOMLDecodeError, RecursionError):
        return []
    found = []
    while isinstance(tree, dict | list) and tree:
        if isinstance(tree, list):
            tree = tree[0]
        else:
            key, tree = next(iter(tree.items()))
            found.append(key)
    return found
