"""What is asked of residents and answered, beyond one of them (which is ``views.ResidentView``)."""

from __future__ import annotations

from typing import Any

import msgspec

from daemon_core.control.views import Request, ResidentView, View


class ResidentStart(Request, frozen=True, kw_only=True):
    build: bool = False
    """Run its build first, whatever has changed."""
    adopt: bool = False
    """Take on the one that runs already and was not started here, instead of starting another."""


class ResidentRestart(Request, frozen=True, kw_only=True):
    build: bool = False


class ResidentClear(Request, frozen=True, kw_only=True):
    """Which of the directories that its file names are to be emptied."""

    memory: bool = False
    cache: bool = False


class ResidentCleared(View, frozen=True, kw_only=True):
    id: str
    paths: tuple[str, ...] = ()
    freed_bytes: int = 0
    left: tuple[str, ...] = ()
    """What could not be removed."""


class ResidentRefusal(View, frozen=True, kw_only=True):
    """Why one of several was not started, as a refusal of it alone would say."""

    id: str
    code: str
    params: dict[str, Any] = msgspec.field(default_factory=dict)


class ResidentsAnswer(View, frozen=True, kw_only=True):
    """What became of all of them."""

    residents: tuple[ResidentView, ...] = ()
    refused: tuple[ResidentRefusal, ...] = ()


class ResidentStats(View, frozen=True, kw_only=True):
    """What a resident uses, with everything that it has started; of all together where ``id`` is empty."""

    id: str = ""
    state: str = ""
    uptime: float = 0.0
    memory: int = 0
    """Bytes."""
    cpu: float = 0.0
    """Per cent of one processor, since it was asked for last, or over a moment."""
    cpu_time: float = 0.0
    """Seconds of processor time of the processes that live."""
    processes: int = 0
    instances: int = 0
    """A launcher and the process it wraps are one; more than one: it was started elsewhere, too."""
    restarts: int = 0
    log_bytes: int = 0


class ResidentsStats(View, frozen=True, kw_only=True):
    residents: tuple[ResidentStats, ...] = ()
    total: ResidentStats = ResidentStats()


class ResidentLogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a resident's log."""

    text: str
    resident: str = ""
    """Whose it is, where several are read together."""
