"""What is in a directory without a repository: names, sizes, times, and copies of small text files.

A snapshot is bounded in entries, copied bytes and time. What it did not look into is listed in ``uncovered``
and is left out of every comparison: nothing is called new or gone that may only not have been seen. Links are
never followed, ``.git`` and the directories of package managers are not entered. All paths are bytes relative
to the directory, since a file name is any bytes.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec

SKIPPED_NAMES: Final = frozenset({b".git", b"node_modules", b".next", b".turbo", b"__pycache__", b".venv"})
"""Directories not looked into: made by tools, large, and nobody's work."""
_BINARY_LOOK_BYTES: Final = 8000
"""Where git looks for a NUL byte."""


@dataclass(frozen=True, kw_only=True)
class SnapshotLimits:
    """Bounds of one snapshot: about a second of work on a warm disk."""

    entries: int = 50_000
    time_s: float = 2.0
    file_bytes: int = 256 * 1024
    """Larger files are not copied: a change of them is told without a diff."""
    copy_bytes: int = 16 * 1024 * 1024


class Entry(msgspec.Struct, array_like=True):
    """One file, link or special file. ``copy_at`` is where its content begins among the copies, or -1."""

    kind: str
    """``f`` file, ``l`` link, ``o`` anything else."""
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    target: bytes = b""
    copy_at: int = -1


class Snapshot(msgspec.Struct, kw_only=True):
    """What was there. ``uncovered`` are directories that were not (wholly) looked into."""

    entries: dict[bytes, Entry] = {}
    uncovered: list[bytes] = []
    copies_cut: bool = False
    """Whether some small file was not copied because the copies had reached their limit."""


def take_snapshot(
    root: bytes,
    copies: IO[bytes] | None = None,
    *,
    limits: SnapshotLimits | None = None,
    leave_out: Collection[bytes] = (),
    deadline: float | None = None,
) -> Snapshot:
    """Look through ``root``.

    Args:
        copies: Where the content of small text files goes, one after the other; None: nothing is copied.
        leave_out: Directories (relative) that are not entered and not told.
        deadline: On the monotonic clock; the earlier of it and the limit counts.
    """
    chosen = limits or SnapshotLimits()
    end = time.monotonic() + chosen.time_s
    if deadline is not None:
        end = min(end, deadline)
    found = Snapshot(entries={}, uncovered=[])
    left_out = frozenset(leave_out)
    queue: deque[bytes] = deque([b""])
    while queue:
        directory = queue.popleft()
        if time.monotonic() >= end or len(found.entries) >= chosen.entries:
            found.uncovered += [directory, *queue]
            break
        room = chosen.entries - len(found.entries)
        listed = _list(root, directory, room)
        if listed is None:
            found.uncovered.append(directory)
            continue
        for name, facts in listed:
            path = directory + b"/" + name if directory else name
            if stat.S_ISDIR(facts.st_mode):
                if name not in SKIPPED_NAMES and path not in left_out:
                    queue.append(path)
            else:
                found.entries[path] = _entry(os.path.join(root, path), facts)
    if copies is not None:
        _copy_small(root, found, copies, chosen, end)
    return found


def _list(root: bytes, directory: bytes, room: int) -> list[tuple[bytes, os.stat_result]] | None:
    """The entries of a directory; None if it cannot be read or holds more than there is room for."""
    found: list[tuple[bytes, os.stat_result]] = []
    try:
        with os.scandir(os.path.join(root, directory) if directory else root) as entries:
            for entry in entries:
                if len(found) >= room:
                    return None
                with contextlib.suppress(OSError):  # gone meanwhile
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
    except OSError:
        return None
    return found


def _entry(path: bytes, facts: os.stat_result) -> Entry:
    kind = "f" if stat.S_ISREG(facts.st_mode) else "l" if stat.S_ISLNK(facts.st_mode) else "o"
    target = b""
    if kind == "l":
        with contextlib.suppress(OSError):
            target = os.readlink(path)
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(facts.st_mode),
        size=facts.st_size,
        mtime_ns=facts.st_mtime_ns,
        ctime_ns=facts.st_ctime_ns,
        inode=facts.st_ino,
        target=target,
    )


def _copy_small(root: bytes, found: Snapshot, copies: IO[bytes], limits: SnapshotLimits, end: float) -> None:
    at = 0
    # The smallest first: as many files as possible get a diff.
    for path, entry in sorted(found.entries.items(), key=lambda item: item[1].size):
        if entry.kind != "f" or entry.size > limits.file_bytes:
            continue
        if at + entry.size > limits.copy_bytes or time.monotonic() >= end:
            found.copies_cut = True
            break
        content = read_file(os.path.join(root, path), limits.file_bytes)
        if content is None or len(content) != entry.size or is_binary(content):
            continue
        copies.write(content)
        entry.copy_at = at
        at += len(content)


def read_file(path: bytes, limit_bytes: int) -> bytes | None:
    """The content of a plain file of at most ``limit_bytes``; None for everything else. Never blocks on a
    pipe and never follows a link."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        with open(fd, "rb") as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            content = stream.read(limit_bytes + 1)
    except OSError:
        return None
    return content if len(content) <= limit_bytes else None


def is_binary(content: bytes) -> bool:
    """As git sees it: a NUL byte near the beginning."""
    return b"\0" in content[:_BINARY_LOOK_BYTES]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One path that is not as it was. ``old_path`` is another one only for a move."""

    path: bytes
    old_path: bytes
    before: Entry | None
    after: Entry | None


def compare(before: Snapshot, after: Snapshot, root: bytes, copies: Path) -> Iterator[Difference]:
    """What differs, sorted by path; a file moved as it is comes as one difference."""
    gone: dict[bytes, Entry] = {}
    new: dict[bytes, Entry] = {}
    changed: list[Difference] = []
    unseen_before, unseen_after = frozenset(before.uncovered), frozenset(after.uncovered)
    for path in sorted(before.entries.keys() | after.entries.keys()):
        old, now = before.entries.get(path), after.entries.get(path)
        if old is None and now is not None:
            if not _below(path, unseen_before):
                new[path] = now
        elif now is None and old is not None:
            if not _below(path, unseen_after):
                gone[path] = old
        elif old is not None and now is not None and _differs(old, now, os.path.join(root, path), copies):
            changed.append(Difference(path=path, old_path=path, before=old, after=now))
    sources = {_identity(old): path for path, old in gone.items() if old.kind == "f"}
    for path, now in new.items():
        source = sources.pop(_identity(now), None) if now.kind == "f" else None
        old_entry = gone.pop(source) if source is not None else None
        changed.append(Difference(path=path, old_path=source or path, before=old_entry, after=now))
    changed += [Difference(path=path, old_path=path, before=old, after=None) for path, old in gone.items()]
    yield from sorted(changed, key=lambda difference: difference.path)


def read_copy(copies: Path, entry: Entry) -> bytes | None:
    """The content that a file had when the snapshot was taken; None if it was not copied."""
    if entry.copy_at < 0:
        return None
    try:
        with open(copies, "rb") as stream:
            stream.seek(entry.copy_at)
            content = stream.read(entry.size)
    except OSError:
        return None
    return content if len(content) == entry.size else None


def _differs(old: Entry, now: Entry, path: bytes, copies: Path) -> bool:
    if old.kind != now.kind or old.target != now.target or (old.mode ^ now.mode) & 0o111:
        return True
    if old.kind != "f":
        return False
    if old.size != now.size:
        return True
    if (old.mtime_ns, old.ctime_ns, old.inode) == (now.mtime_ns, now.ctime_ns, now.inode):
        return False
    kept = read_copy(copies, old)
    if kept is None:
        return old.mtime_ns != now.mtime_ns
    return read_file(path, old.size) != kept


def _identity(entry: Entry) -> tuple[int, int, int]:
    """A file that was moved as it is keeps these."""
    return entry.inode, entry.size, entry.mtime_ns


def _below(path: bytes, directories: Collection[bytes]) -> bool:
    if b"" in directories:
        return True
    at = path.rfind(b"/")
    while at > 0:
        if path[:at] in directories:
            return True
        at = path.rfind(b"/", 0, at)
    return False
