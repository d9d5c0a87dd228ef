"""Time as the hub sees it: the wall clock in microseconds for what is stored, the monotonic for liveness."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

SECOND: Final = 1_000_000
"""Microseconds in a second: the unit of every stored time."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What tests put in the place of the real clocks."""

    def now(self) -> int:
        """Microseconds since 1970, UTC."""

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps and stands still while the machine sleeps."""


class SystemClock:
    """The real clocks."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


def rfc3339(at: int) -> str:
    """A stored time as the wire has it."""
    moment = _EPOCH + timedelta(microseconds=at)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def rfc3339_or_none(at: int | None) -> str | None:
    """Like :func:`rfc3339`, for a time that may not have come."""
    return None if at is None else rfc3339(at)
