"""The daemon's own id: a UUIDv7, one a profile, kept for ever.

The file holds the id in its first line and, below it, ids that it had before: a server is told those as
legacy ids, so that it does not keep two machines. It depends on nothing of the machine, so it survives
another host name, and a copy among the data survives what clears the state. A file that cannot be understood
is set aside, never overwritten.

Names of the host are no legacy ids of ours, although the server's own daemon once used them: a server merges
what had a legacy id into whoever reports it, and that daemon may live beside this one.
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


def load_or_create(path: Path, copy: Path | None = None) -> Identity:
    """The identity in ``path``, else in ``copy``; a new one is made where there is none in either.

    Called by the daemon alone, with its lock held. Afterwards both files say the same.

    Raises:
        OSError: It can neither be read nor written.
    """
    text = _read(path)
    found = _understood(text or "")
    if found is not None:
        os.chmod(path, 0o600)
    else:
        aside = None
        if text is not None:
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            os.replace(path, aside)
        kept = _understood(_read(copy) or "") if copy is not None else None
        named = tuple(dict.fromkeys(each.lower() for each in _UUID.findall(text or "")))
        if kept is not None:
            legacy = dict.fromkeys((*kept.legacy_ids, *named))
            found = Identity(kept.daemon_id, tuple(each for each in legacy if each != kept.daemon_id), aside)
        else:
            found = Identity(new_id(), named, aside)
        _store(path, found)
    if copy is not None and _read(copy) != _text(found):
        _store(copy, found)
    return found


def _read(path: Path) -> str | None:
    """The text of a file, None where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(_SIZE_LIMIT_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def _understood(text: str) -> Identity | None:
    lines = text.split()
    if not lines or not all(_UUID.fullmatch(line) for line in lines):
        return None
    first, *rest = (line.lower() for line in lines)
    return Identity(first, tuple(dict.fromkeys(other for other in rest if other != first)))


def _text(identity: Identity) -> str:
    return "".join(f"{line}\n" for line in (identity.daemon_id, *identity.legacy_ids))


def _store(path: Path, identity: Identity) -> None:
    write_private(path, _text(identity).encode())


def new_id() -> str:
    """A UUID of version 7 (RFC 9562 section 5.7): 48 bits of milliseconds, then random ones."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
