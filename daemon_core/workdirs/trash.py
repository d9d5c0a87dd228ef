"""Removing directories so that a crash, odd permissions and links do no harm.

A directory that is to go is first renamed into the trash beside it (one step, so it is either wholly there or
not at all), then taken apart there. What a crash leaves in the trash goes on the next start. Taking apart
never follows a link and never crosses into another file system; read-only directories are made writable,
what has vanished meanwhile is no error, and what cannot be removed stays in the trash and is told.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TRASH_NAME: Final = ".trash"
_DEPTH_LIMIT: Final = 100
"""Deeper directories are moved up into the trash first: open files and the stack stay bounded."""
BLOCK_BYTES: Final = 512


@dataclass
class Removed:
    """What taking apart came to. ``freed_bytes`` counts blocks whose last name went."""

    freed_bytes: int = 0
    entries: int = 0
    left: list[str] = field(default_factory=list)
    """Paths that could not be removed, at most twenty."""

    def add_left(self, path: str) -> None:
        if len(self.left) < 20:
            self.left.append(path)


class Trash:
    """The trash below one directory, on the same file system as what is thrown in."""

    def __init__(self, root: Path) -> None:
        self.path = root / TRASH_NAME

    def put(self, directory: Path) -> None:
        """Throw a directory away: one rename, quick enough for the event loop.

        Raises:
            OSError: It is not there, or cannot be renamed.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self.path / f"{uuid.uuid4().hex[:16]}-{directory.name[:40]}"
        if directory.is_symlink():
            raise NotADirectoryError(20, "a link is not thrown away", str(directory))
        try:
            os.rename(directory, target)
        except PermissionError:
            # A directory changes its parent only if it can be written to, and leaves only one that can be.
            for path in (directory, directory.parent):
                _make_usable(path)
            os.rename(directory, target)

    def is_empty(self) -> bool:
        """Whether nothing waits to be removed."""
        try:
            with os.scandir(self.path) as entries:
                return next(iter(entries), None) is None
        except OSError:
            return True

    def empty(self) -> Removed:
        """Remove everything in it (long; in a thread). What is left is tried again the next time."""
        removed = Removed()
        stuck: set[str] = set()
        while True:
            try:
                names = [name for name in os.listdir(self.path) if name not in stuck]
            except OSError:
                return removed
            if not names:
                return removed
            for name in names:
                remove_tree(self.path / name, removed, overflow=self.path)
                if os.path.lexists(self.path / name):
                    stuck.add(name)


def remove_tree(path: Path, removed: Removed, *, overflow: Path) -> None:
    """Take a directory (or a file) apart.

    Args:
        overflow: Where directories too deep are moved to; the caller removes them from there.
    """
    if sys.platform == "win32":  # pragma: no cover - Windows only
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        facts = os.lstat(path)
    except OSError:
        return
    if not stat.S_ISDIR(facts.st_mode):
        _unlink(str(path), None, str(path), facts, removed)
        return
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _take_apart(path.name, parent, str(path), facts.st_dev, 0, removed, overflow)
    finally:
        os.close(parent)


def _take_apart(
    name: str, parent: int, shown: str, device: int, depth: int, removed: Removed, overflow: Path
) -> None:
    if depth > _DEPTH_LIMIT:
        with contextlib.suppress(OSError):
            os.rename(name, overflow / f"deep-{uuid.uuid4().hex[:16]}", src_dir_fd=parent)
            return
    fd = _open_directory(name, parent)
    if fd is None:
        if _exists(name, parent):
            removed.add_left(shown)
        return
    try:
        facts = os.fstat(fd)
        if facts.st_dev != device:
            removed.add_left(shown)  # something is mounted here: it is not ours
            return
        if facts.st_mode & 0o700 != 0o700:
            with contextlib.suppress(OSError):
                os.fchmod(fd, stat.S_IMODE(facts.st_mode) | 0o700)
        try:
            with os.scandir(fd) as entries:
                names = [entry.name for entry in entries]
        except OSError:
            removed.add_left(shown)
            return
        for child in names:
            try:
                found = os.stat(child, dir_fd=fd, follow_symlinks=False)
            except OSError:
                continue
            place = f"{shown}/{child}"
            if stat.S_ISDIR(found.st_mode):
                _take_apart(child, fd, place, device, depth + 1, removed, overflow)
            else:
                _unlink(child, fd, place, found, removed)
    finally:
        os.close(fd)
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError:
        removed.add_left(shown)
        return
    removed.freed_bytes += facts.st_blocks * BLOCK_BYTES
    removed.entries += 1


def _open_directory(name: str, parent: int) -> int | None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except PermissionError:
        with contextlib.suppress(OSError):
            # No open file to change yet. The name is one that a link cannot have taken between the two
            # without write access to a directory that is ours alone.
            os.chmod(name, 0o700, dir_fd=parent)
            return os.open(name, flags, dir_fd=parent)
    except OSError:
        pass
    return None


def _unlink(name: str, parent: int | None, shown: str, facts: os.stat_result, removed: Removed) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError:
        removed.add_left(shown)
        return
    removed.entries += 1
    if facts.st_nlink <= 1:
        removed.freed_bytes += facts.st_blocks * BLOCK_BYTES


def _exists(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    return True


def _make_usable(path: Path) -> None:
    with contextlib.suppress(OSError):
        facts = os.lstat(path)
        if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid():
            os.chmod(path, stat.S_IMODE(facts.st_mode) | 0o700)
