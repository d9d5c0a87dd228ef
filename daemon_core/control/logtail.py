"""The end of the log file, and what is added to it, across rotation; works with no daemon running."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

_BLOCK_BYTES: Final = 64 * 1024
_LOOK_S: Final = 0.25
"""Pause between two looks while following: nothing tells of a write on every system, and a person is
watching.
"""


def tail(path: Path, count: int) -> list[bytes]:
    """The last ``count`` lines, without line ends; they may begin in the file rotated last (``<name>.1``)."""
    try:
        with open(path, "rb") as file:
            found = _last_lines(file, file.seek(0, os.SEEK_END), count)
    except FileNotFoundError:
        found = []
    return _older(path, count - len(found)) + found


def follow(path: Path, count: int, stopped: Callable[[], bool] = lambda: False) -> Iterator[bytes]:
    """``tail``, then every line that is added, whole, across rotation, until ``stopped``. None is left out.

    A line is given once its end has been written.
    """
    file: BinaryIO | None = None
    try:
        file = _open(path)
        if file is not None:
            end = _whole(file)
            found = _last_lines(file, end, count)
            file.seek(end)
        else:
            found = []
        yield from _older(path, count - len(found)) + found
        rest = b""
        while True:
            if file is None:
                file = _open(path)
            replaced = file is not None and _replaced(path, file)
            data = file.read() if file is not None else b""
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
            if file is not None and replaced:
                # Looked at before the last read: what the old file still got has been given.
                file.close()
                file = None
            elif not data:
                if stopped():
                    return
                time.sleep(_LOOK_S)
    finally:
        if file is not None:
            file.close()


def _open(path: Path) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None


def _replaced(path: Path, file: BinaryIO) -> bool:
    """Whether the path names another file by now, or this one was cut."""
    mine = os.fstat(file.fileno())
    try:
        theirs = os.stat(path)
    except FileNotFoundError:
        return True
    return (mine.st_dev, mine.st_ino) != (theirs.st_dev, theirs.st_ino) or mine.st_size < file.tell()


def _whole(file: BinaryIO) -> int:
    """The position behind the last line end."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - _BLOCK_BYTES)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def _older(path: Path, count: int) -> list[bytes]:
    file = _open(path.with_name(f"{path.name}.1")) if count > 0 else None
    if file is None:
        return []
    with file:
        return _last_lines(file, file.seek(0, os.SEEK_END), count)


def _last_lines(file: BinaryIO, end: int, count: int) -> list[bytes]:
    if count <= 0:
        return []
    position, data = end, b""
    while position > 0 and data.count(b"\n") <= count:
        step = min(_BLOCK_BYTES, position)
        position = file.seek(position - step)
        data = file.read(step) + data
    return data.splitlines()[-count:]
