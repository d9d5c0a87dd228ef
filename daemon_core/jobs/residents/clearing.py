"""Empties the memory and cache directories that a resident's file names. Blocking.

A mistyped path must not cost anybody their files. A directory is emptied only if it is really what the file
names: below the resident's own directory if it is given relative to that, no link, no file system of its own,
and never the home directory, the resident's directory itself, anything of Ostler's, or what is above one of
these. The directory itself stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from daemon_core.jobs.residents.files import Resident

LEAST_DEPTH: Final = 3
"""An absolute path has at least so many parts: nothing like /usr or /home/somebody is anybody's cache."""


class ClearRefusedError(Exception):
    """Nothing was removed. ``why``: outside, protected, link, not_a_directory, mount, unreadable."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why


class Cleared(msgspec.Struct, frozen=True, kw_only=True):
    """What was done."""

    paths: list[str] = []
    freed_bytes: int = 0
    left: list[str] = []
    """What could not be removed."""


def clear(resident: Resident, names: Iterable[str], own: Iterable[Path]) -> Cleared:
    """Empty these directories; all are checked before the first is touched. Those that are not there are
    empty already.

    Args:
        names: As they are in the file.
        own: Ostler's own directories.

    Raises:
        ClearRefusedError: one of them must not be emptied.
    """
    guarded = [os.path.realpath(path) for path in (Path.home(), Path(resident.directory), *own)]
    ours = [os.path.realpath(path) for path in own]
    opened: list[tuple[str, int]] = []
    try:
        paths = [_checked(resident, name, guarded, ours) for name in names]
        for path in dict.fromkeys(paths):
            if path is not None:
                opened.append((path, _open(path)))
        freed = 0
        left: list[str] = []
        for path, fd in opened:
            freed += _empty(path, fd, left)
        return Cleared(paths=[path for path, _ in opened], freed_bytes=freed, left=left)
    finally:
        for _, fd in opened:
            os.close(fd)


def _checked(resident: Resident, name: str, guarded: list[str], ours: list[str]) -> str | None:
    """The real path of a directory that may be emptied; None if it is not there."""
    expanded = os.path.expanduser(name)
    base = os.path.realpath(resident.directory)
    path = os.path.normpath(os.path.join(base, expanded))
    real = os.path.realpath(path)
    if not os.path.isabs(expanded) and not _below(path, base):
        raise ClearRefusedError(path, "outside")
    if len(Path(path).parts) <= LEAST_DEPTH and os.path.isabs(expanded):
        raise ClearRefusedError(path, "protected")
    for each in (path, real):
        if any(each == one or _below(one, each) for one in guarded) or any(_below(each, one) for one in ours):
            raise ClearRefusedError(path, "protected")
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClearRefusedError(path, "unreadable") from error
    if stat.S_ISLNK(facts.st_mode) or (not os.path.isabs(expanded) and real != path):
        raise ClearRefusedError(path, "link")
    if not stat.S_ISDIR(facts.st_mode):
        raise ClearRefusedError(path, "not_a_directory")
    if os.path.ismount(path):
        raise ClearRefusedError(path, "mount")
    return path


def _below(path: str, folder: str) -> bool:
    return path != folder and os.path.commonpath((path, folder)) == folder


def _open(path: str) -> int:
    """The directory itself, so that what is emptied is what was looked at. Raises ``ClearRefusedError``."""
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        raise ClearRefusedError(path, "unreadable") from error


def _empty(path: str, fd: int, left: list[str]) -> int:
    device = os.fstat(fd).st_dev
    freed = 0
    for name in os.listdir(fd):
        try:
            facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(facts.st_mode):
                os.unlink(name, dir_fd=fd)
                freed += facts.st_size
            elif facts.st_dev != device:
                left.append(os.path.join(path, name))  # something is mounted there
            else:
                size = _size(os.path.join(path, name))
                shutil.rmtree(name, dir_fd=fd)
                freed += size
        except OSError:
            left.append(os.path.join(path, name))
    return freed


def _size(folder: str) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
