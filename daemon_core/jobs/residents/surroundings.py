"""What residents are given by the daemon around them."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from daemon_core.jobs.residents.files import Resident


class Owner(Protocol):
    """Who owns the asyncio tasks."""

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]: ...


class HeldBackError(Exception):
    """Nothing may be started at present. ``params`` say why, as a refusal's."""

    def __init__(self, params: dict[str, Any]) -> None:
        super().__init__(params)
        self.params = params


class Gate(Protocol):
    """Holds starts back while an update is about to happen."""

    def starting(self) -> AbstractContextManager[None]:
        """Around a start, up to when it is known on disk. Raises ``HeldBackError``."""
        ...

    def check(self) -> None:
        """Raises ``HeldBackError`` if nothing may be started now."""
        ...

    async def wait_open(self) -> None: ...


@dataclass(frozen=True)
class Surroundings:
    """See the module."""

    root: Path
    """``state/residents``."""
    locks: Path
    """The user's, for all profiles and homes of Ostler."""
    socket_dir: Path
    holder: str
    """What a lock file says of this daemon."""
    boot_id: str
    owner: Owner
    gate: Gate
    environment: Callable[[], Mapping[str, str]]
    """Of the daemon, before anything of a resident's own."""
    own_environment: Mapping[str, str]
    """What must not be overridden: how `ostler` finds this daemon, say."""
    program_of: Callable[[str], str | None]
    """The program of a provider, if it is here."""
    look: Callable[[str], Resident | None]
    """What the resident's file says now; None if there is none that can be used."""
    changed: Callable[[str], None]
    """Something that is shown of a resident has changed."""
    reach: Callable[[str], None] = lambda _place: None


def text_of(moment: float) -> str:
    """RFC 3339 in UTC of seconds since 1970; empty for 0."""
    if not moment:
        return ""
    stamp = dt.datetime.fromtimestamp(moment, dt.UTC)
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_text() -> str:
    return text_of(time.time())


def seconds_between(first: str, last: str) -> float | None:
    """Seconds from one RFC 3339 time to another; None if one of them is none."""
    try:
        return (dt.datetime.fromisoformat(last) - dt.datetime.fromisoformat(first)).total_seconds()
    except (ValueError, TypeError):
        return None


def boot_id() -> str:
    """What tells one start of the machine from the next."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        import psutil

        return str(round(psutil.boot_time() / 60))
