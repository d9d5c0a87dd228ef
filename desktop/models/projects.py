"""Finds the projects of a user: repositories in the places where people keep them. Bounded, for a thread."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PARENTS: Final = (
    "", "src", "code", "Code", "projects", "Projects", "dev", "Developer", "work", "git", "repos",
    "Documents", "Documents/GitHub", "source/repos", "go/src", "workspace",
)  # fmt: skip
MOST: Final = 8
LOOKED_AT: Final = 400
"""So many directories at most: a home on a network drive must not be walked."""


def find_projects(home: Path, parents: Iterable[str] = PARENTS) -> list[str]:
    """Directories with a repository in them, the ones used last first. Reads directories, opens no file."""
    found: list[tuple[float, str]] = []
    looked = 0
    for parent in parents:
        try:
            entries = sorted(os.scandir(home / parent), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            looked += 1
            if looked > LOOKED_AT:
                return _newest(found)
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    found.append((os.stat(os.path.join(entry.path, ".git")).st_mtime, entry.path))
            except OSError:
                continue
    return _newest(found)


def _newest(found: list[tuple[float, str]]) -> list[str]:
    return [path for _at, path in sorted(found, reverse=True)[:MOST]]
