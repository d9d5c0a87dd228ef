"""The servers that this profile is connected to, beside the hub: ``state/servers.json``, no secrets.

The name of a server is chosen once, from its host, and stays: the journal's rows and the names of tasks have
it in them. A file that cannot be understood is set aside, never overwritten.
"""

from __future__ import annotations

import os
import re
import time
import urllib.parse
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from daemon_core.settings.atomic import write_private
from daemon_core.settings.credentials import Place

RESERVED: Final = frozenset({"hub"})
_UNFIT = re.compile(r"[^a-z0-9.-]+")
_NAME_LIMIT: Final = 64


class ServerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One server. ``url`` empty: known from its tasks alone, until somebody signs in there again.

    Attributes:
        account: by which the keyring knows the credential.
        place: where the credential is.
    """

    name: str
    url: str = ""
    account: str = ""
    place: Place = "file"
    backend: str = ""
    added_at: str = ""


class _Stored(msgspec.Struct, kw_only=True):
    version: int = 1
    servers: list[ServerEntry] = []


@dataclass(frozen=True, slots=True)
class Loaded:
    entries: tuple[ServerEntry, ...]
    damaged: Path | None = None
    """Where the file went that could not be understood; None where all was well."""


def load(path: Path) -> Loaded:
    """What is stored; one that cannot be understood is set aside. Called by the daemon alone.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return Loaded(read(path))
    except ValueError:
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        os.replace(path, aside)
        return Loaded((), aside)


def read(path: Path) -> tuple[ServerEntry, ...]:
    """What is stored; nothing where there is no file.

    Raises:
        OSError: it cannot be read.
        ValueError: it cannot be understood.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ()
    try:
        stored = msgspec.json.decode(raw, type=_Stored)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError("this is no list of servers") from error
    found: dict[str, ServerEntry] = {}
    for entry in stored.servers:
        if entry.name and entry.name == fit_name(entry.name) and entry.name not in RESERVED:
            found.setdefault(entry.name, entry)
    return tuple(found.values())


def store(path: Path, entries: Iterable[ServerEntry]) -> None:
    """Replace the list. Raises ``OSError``; the old one is then still there."""
    stored = _Stored(servers=list(entries))
    write_private(path, msgspec.json.format(msgspec.json.encode(stored), indent=2) + b"\n")


def fit_name(text: str) -> str:
    """``text`` with nothing in it that a name of a connection cannot have; may be empty."""
    return _UNFIT.sub("-", text.lower()).strip("-.")[:_NAME_LIMIT]


def name_for(url: str, taken: Collection[str]) -> str:
    """A name for a server that is not among ``taken``: its host, and what is needed to tell it apart."""
    parts = urllib.parse.urlsplit(url)
    plain = fit_name(f"{parts.hostname or ''}-{parts.port}" if parts.port else parts.hostname or "")
    base = plain or "server"
    name, number = base, 1
    while name in taken or name in RESERVED:
        number += 1
        name = f"{base}-{number}"
    return name
