"""The daemon's own id: a UUIDv7, one a profile, kept for ever.

The file holds the id in its first line and, below it, ids that it had before (a server is told those too,
so that it does not keep two machines). A file that cannot be understood is set aside, never overwritten.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon_core.settings.atomic import write_private

_SIZE_LIMIT_BYTES: Final = 64 * 1024
_UUID = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Identity:
    daemon_id: str
    legacy_ids: tuple[str, ...] = ()
    damaged: Path | None = None
    """Where the file went that could not be understood; None where all was well."""


def load_or_create(path: Path) -> Identity:
    """The identity in ``path``; a new one is made where there is none or it is damaged.

    Called by the daemon alone, with its lock held.

    Raises:
        OSError: It can neither be read nor written.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_SIZE_LIMIT_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return _store(path, Identity(new_id()))
    lines = text.split()
    if lines and all(_UUID.fullmatch(line) for line in lines):
        os.chmod(path, 0o600)
        first, *rest = (line.lower() for line in lines)
        return Identity(first, tuple(dict.fromkeys(other for other in rest if other != first)))
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    os.replace(path, aside)
    legacy = tuple(dict.fromkeys(found.lower() for found in _UUID.findall(text)))
    return _store(path, Identity(new_id(), legacy, aside))


def _store(path: Path, identity: Identity) -> Identity:
    write_private(path, "".join(f"{line}\n" for line in (identity.daemon_id, *identity.legacy_ids)).encode())
    return identity


def new_id() -> str:
    """A UUID of version 7 (RFC 9562 section 5.7): 48 bits of milliseconds, then random ones."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
