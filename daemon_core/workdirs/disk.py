"""How much room things take, and how much there is.

Sizes are what is allocated (blocks, not lengths), links are not followed, a file with several names counts
once, another file system mounted inside does not count.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon_core.workdirs.trash import BLOCK_BYTES

LOOK_S: Final = 5.0
"""A look at the free space holds this long."""
FLOOR_SHARE: Final = 4
"""A floor counts for at most this part of a disk: on a small one it would stop everything for good."""


@dataclass(frozen=True)
class Size:
    """Room taken. ``artifact_bytes`` is the part that directories of package managers take."""

    total_bytes: int = 0
    artifact_bytes: int = 0


def tree_size(path: Path, artifacts: Sequence[str] = ()) -> Size:
    """Room that a directory with all below it takes; zero if it is not there."""
    total = inside = 0
    seen: set[tuple[int, int]] = set()
    try:
        top = os.lstat(path)
    except OSError:
        return Size()
    if not stat.S_ISDIR(top.st_mode):
        return Size(_allocated(top))
    total += _allocated(top)
    stack: list[tuple[str, bool]] = [(os.fspath(path), False)]
    while stack:
        directory, artifact = stack.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    try:
                        facts = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    if facts.st_dev != top.st_dev:
                        continue
                    here = artifact
                    if stat.S_ISDIR(facts.st_mode):
                        here = artifact or matches(entry.name, artifacts)
                        stack.append((entry.path, here))
                    elif facts.st_nlink > 1:
                        identity = (facts.st_dev, facts.st_ino)
                        if identity in seen:
                            continue
                        seen.add(identity)
                    size = _allocated(facts)
                    total += size
                    inside += size if here else 0
        except OSError:
            continue
    return Size(total, inside)


def find_artifacts(path: Path, patterns: Sequence[str]) -> Iterator[Path]:
    """Directories with such a base name below ``path``, the outermost of each; never in ``.git``."""
    try:
        device = os.lstat(path).st_dev
    except OSError:
        return
    stack = [os.fspath(path)]
    while stack:
        directory = stack.pop()
        try:
            with os.scandir(directory) as entries:
                inside = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        for entry in inside:
            if entry.name == ".git":
                continue
            try:
                if entry.stat(follow_symlinks=False).st_dev != device:
                    continue
            except OSError:
                continue
            if matches(entry.name, patterns):
                yield Path(entry.path)
            else:
                stack.append(entry.path)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a base name is one of these; ``*`` and ``?`` stand for what they stand for in a shell."""
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _allocated(facts: os.stat_result) -> int:
    return getattr(facts, "st_blocks", 0) * BLOCK_BYTES or (
        0 if hasattr(facts, "st_blocks") else facts.st_size
    )


@dataclass(frozen=True)
class Space:
    """Free space of the file system that ``path`` is on. ``floor_bytes``: what is to stay free there."""

    path: str
    free_bytes: int
    total_bytes: int
    floor_bytes: int

    @property
    def low(self) -> bool:
        return self.free_bytes < self.floor_bytes


class Room:
    """Whether there is room for another run on every file system that Ostler writes to.

    Nothing is watched: whoever is about to make a claim looks, and a look holds for some seconds.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        floor_bytes: int,
        *,
        usage: Callable[[Path], tuple[int, int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.paths = list(paths)
        self.floor_bytes = floor_bytes
        self._usage = usage or _usage
        self._clock = clock
        self._looked_at = float("-inf")
        self._found: list[Space] = []

    def look(self, *, fresh: bool = False) -> list[Space]:
        """The file systems, each once (touches the disk: in a thread)."""
        if not fresh and self._clock() - self._looked_at < LOOK_S:
            return self._found
        found: dict[int, Space] = {}
        for path in self.paths:
            try:
                device = os.stat(path).st_dev
                free, total = self._usage(path)
            except OSError:
                continue  # not there: whoever needs it will say so
            if device not in found:
                floor = min(self.floor_bytes, total // FLOOR_SHARE)
                found[device] = Space(str(path), free, total, floor)
        self._found = list(found.values())
        self._looked_at = self._clock()
        return self._found

    def known_low(self) -> Space | None:
        """By a look that still holds: where there is too little. Does not touch the disk."""
        return next((space for space in self._found if space.low), None)

    @property
    def due(self) -> bool:
        """Whether the last look does not hold any more."""
        return self._clock() - self._looked_at >= LOOK_S

    def forget(self) -> None:
        """The next look is a fresh one (a write failed, something was removed, a setting changed)."""
        self._looked_at = float("-inf")


def _usage(path: Path) -> tuple[int, int]:
    found = shutil.disk_usage(path)
    return found.free, found.total
