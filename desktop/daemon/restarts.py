"""When a daemon that ended is started again: a pure machine, stepped with facts and a clock.

ended by itself (a crash) ─▶ wait (1 s, doubling, ± a quarter, at least 1 and at most 60) ─▶ start
5 crashes within 10 minutes ─▶ give up until the user starts it
up for 10 minutes ─▶ what was is forgotten
ended because it was asked to, or cannot start with these settings ─▶ not started again
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

FIRST_PAUSE_S: Final = 1.0
LAST_PAUSE_S: Final = 60.0
JITTER: Final = 0.25
CRASHES: Final = 5
WITHIN_S: Final = 600.0

EXIT_ASKED: Final = 0
EXIT_USAGE: Final = 2
"""The settings are not valid: another try would end the same."""
EXIT_CONFLICT: Final = 6
"""Another daemon of this profile runs: it is as good."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Start it again after ``pause_s``."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It crashed too often: the user has to look."""


@dataclass(frozen=True, slots=True)
class LeaveIt:
    """It is not to be started again. ``failed``: it could not start as things are."""

    failed: bool


@dataclass(frozen=True, slots=True)
class Adopt:
    """Another one runs."""


Decision = Wait | GiveUp | LeaveIt | Adopt


@dataclass(slots=True)
class Restarts:
    """Attributes:
    crashes: Moments (monotonic seconds) of the crashes that count.
    """

    crashes: list[float] = field(default_factory=list)
    jitter: Callable[[float, float], float] = random.uniform

    def ended(self, code: int | None, now: float, *, wanted: bool = False) -> Decision:
        """The daemon's process is gone.

        Args:
            code: Its exit code (negative: a signal); None where nobody knows.
            wanted: It was asked to stop.
        """
        if code == EXIT_CONFLICT:
            return Adopt()
        if code == EXIT_USAGE:
            return LeaveIt(failed=True)
        if wanted or code == EXIT_ASKED:
            return LeaveIt(failed=False)
        self.crashes = [*(at for at in self.crashes if now - at < WITHIN_S), now]
        if len(self.crashes) >= CRASHES:
            return GiveUp()
        pause_s = min(FIRST_PAUSE_S * 2 ** (len(self.crashes) - 1), LAST_PAUSE_S)
        pause_s *= 1 + self.jitter(-JITTER, JITTER)
        return Wait(min(max(pause_s, FIRST_PAUSE_S), LAST_PAUSE_S))

    def started_by_user(self) -> None:
        """The user wants it started: what was does not count."""
        self.crashes = []
