"""What ``/v1/stats`` tells."""

from __future__ import annotations

from typing import Literal

import msgspec

from daemon_core.control.views import View

Kind = Literal["task", "job", "resident"]


class StatView(View, frozen=True, kw_only=True):
    """What one thing uses now, with everything that it has started."""

    kind: Kind
    id: str
    memory: int = 0
    """Bytes that are its own; on Linux without what it shares with others."""
    cpu: float = 0.0
    """Per cent of one processor since the look before."""
    processes: int = 0


class StatsFrame(View, frozen=True, kw_only=True):
    """One look at everything that goes on. ``number``: what to give as ``after`` for the next one."""

    number: int
    at: str
    stats: list[StatView] = msgspec.field(default_factory=list)
