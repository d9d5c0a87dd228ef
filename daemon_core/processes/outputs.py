"""The output of a run as one stretch of bytes, also where it is in several files.

A run with an output limit has its newest output in ``stdout`` and what came before in ``stdout.START``, where
START is the offset of that file's first byte; the oldest are gone. One whose output is kept up to a size has
a hole in its middle, named in ``stdout.gap``, or files as above whose first one stays. All offsets here are
those of the whole. Reads only, from any process, while the shim goes on writing, renaming and dropping:
whoever asks gets bytes that belong at the offset that is told with them.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

_TRIES = 50
_PAUSE_S = 0.001


class _File(NamedTuple):
    start: int
    path: Path


class Gap(NamedTuple):
    """A stretch in the middle that was dropped: from ``start`` up to ``end``, which is there again."""

    start: int
    end: int


class _Newest(NamedTuple):
    """The file that is being appended to: open, with the offset of its first byte, and those before it."""

    fd: int
    start: int
    older: list[_File]


def size(run_dir: Path, name: str) -> int:
    """How much output there has been, what is gone included; 0 if there is none."""
    newest = _open_newest(run_dir, name)
    if newest is None:
        return 0
    try:
        return newest.start + os.fstat(newest.fd).st_size
    finally:
        os.close(newest.fd)


def first(run_dir: Path, name: str) -> int:
    """Offset of the oldest byte that is still there."""
    older = _older(run_dir, name)
    return older[0].start if older else 0


def gap(run_dir: Path, name: str) -> Gap | None:
    """What was dropped out of the middle. Raises OSError."""
    found = _hole(run_dir, name)
    if found is not None:
        return found
    older = _older(run_dir, name)
    if len(older) < 2 or older[0].start:
        return None
    try:
        end = older[0].path.stat().st_size
    except FileNotFoundError:
        return None
    return Gap(end, older[1].start) if older[1].start > end else None


def read(run_dir: Path, name: str, offset: int, limit: int) -> tuple[int, bytes]:
    """Up to ``limit`` bytes from ``offset`` on, and the offset that they begin at.

    That is a greater one where the output asked for is gone. Empty at the end. Raises OSError.
    """
    for _ in range(_TRIES):
        newest = _open_newest(run_dir, name)
        if newest is None:
            return offset, b""
        try:
            if offset >= newest.start:
                os.lseek(newest.fd, offset - newest.start, os.SEEK_SET)  # no pread on Windows
                data = os.read(newest.fd, limit)
                # Looked at afterwards: what is dropped is said first, so these bytes are none of a hole.
                gone = _hole(run_dir, name) if not newest.older else None
                if gone is None or offset >= gone.end or offset + len(data) <= gone.start:
                    return offset, data
                if offset < gone.start:
                    return offset, data[: gone.start - offset]
                offset = gone.end
                continue
        finally:
            os.close(newest.fd)
        if newest.older:
            offset = max(offset, newest.older[0].start)
        following = newest.start
        for file in reversed(newest.older):
            if offset >= file.start:
                try:
                    with open(file.path, "rb") as stream:
                        stream.seek(offset - file.start)
                        data = stream.read(limit)
                except FileNotFoundError:
                    break  # removed meanwhile: look again at what there is
                if data:
                    return offset, data
                offset = max(offset, following)
                break
            following = file.start
        else:
            offset = newest.start
    return offset, b""


def _hole(run_dir: Path, name: str) -> Gap | None:
    try:
        start, end = (run_dir / f"{name}.gap").read_bytes().split()
        return Gap(int(start), int(end))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:  # written in one piece, so somebody else's doing, or a power cut: as good as none
        return None


def _older(run_dir: Path, name: str) -> list[_File]:
    found = []
    try:
        names = os.listdir(run_dir)
    except (FileNotFoundError, NotADirectoryError):
        return []
    for each in names:
        head, _, start = each.rpartition(".")
        if head == name and start.isascii() and start.isdigit():
            found.append(_File(int(start), run_dir / each))
    return sorted(found)


def _open_newest(run_dir: Path, name: str) -> _Newest | None:
    path = run_dir / name
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    for attempt in range(_TRIES):
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            older = _older(run_dir, name)
            if not older:
                return None
            if attempt < _TRIES - 1:
                time.sleep(_PAUSE_S)  # between two renames of the shim
                continue
            # A shim that died between them.
            return _Newest(os.open(older[-1].path, flags), older[-1].start, older[:-1])
        try:
            older = _older(run_dir, name)
            start = older[-1].start + older[-1].path.stat().st_size if older else 0
            there, ours = os.stat(path), os.fstat(fd)
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                return _Newest(fd, start, older)
        except FileNotFoundError:
            pass  # it went on to another file meanwhile: look again
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise OSError(f"the output {path} changes faster than it can be read")
