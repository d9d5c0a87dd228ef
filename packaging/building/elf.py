"""Takes places of the builder's machine out of shared libraries (Linux).

A Python that was installed below somebody's home has that place as the search path of all its libraries. In
a payload it is at best useless. It becomes the payload's own ``_internal``, relative to the library.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

_MAGIC: Final = b"\x7fELF\x02\x01"  # 64 bits, little endian: all that is built for
_DYNAMIC: Final = 2
_LOAD: Final = 1
_STRTAB: Final = 5
_RPATHS: Final = (15, 29)


def make_relative(path: Path, internal: Path) -> None:
    """Replace an absolute search path of a library by where ``internal`` is. Others stay as they are."""
    data = bytearray(path.read_bytes())
    place = search_path(data)
    if place is None:
        return
    start, old = place
    if all(part.startswith(b"$ORIGIN") for part in old.split(b":") if part):
        return
    way = os.path.relpath(internal, path.parent)
    new = b"$ORIGIN" if way == "." else f"$ORIGIN/{way}".encode()
    if len(new) > len(old):
        raise ValueError(f"{path}: there is no room for {new.decode()} in place of {old.decode()}")
    data[start : start + len(old)] = new.ljust(len(old), b"\0")
    path.write_bytes(data)


def search_path(data: bytearray) -> tuple[int, bytes] | None:
    """Where in the file the search path is, and what it is."""
    if data[: len(_MAGIC)] != _MAGIC:
        return None
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    loads: list[tuple[int, int, int]] = []
    dynamic: tuple[int, int] | None = None
    for number in range(count):
        kind, _flags, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, table + number * size)
        if kind == _LOAD:
            loads.append((address, offset, length))
        elif kind == _DYNAMIC:
            dynamic = (offset, length)
    if dynamic is None:
        return None
    strings, name = 0, -1
    for at in range(dynamic[0], dynamic[0] + dynamic[1], 16):
        tag, value = struct.unpack_from("<QQ", data, at)
        if tag == _STRTAB:
            strings = next(value - a + o for a, o, length in loads if a <= value < a + length)
        elif tag in _RPATHS:
            name = value
    if name < 0:
        return None
    start = strings + name
    return start, bytes(data[start : data.index(0, start)])
