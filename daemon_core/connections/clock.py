"""Two clocks and what their difference tells: that the machine slept or its clock was set.

Durations use the monotonic clock, which stands still while a Linux or macOS machine sleeps; the wall clock
does not. Where both go on, a timer that fires much too late tells the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """The time; tests hand in their own."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


class JumpDetector:
    """Compares the clocks whenever it is asked; asks for no timer of its own."""

    def __init__(self, clock: Clock, threshold_s: float) -> None:
        self._clock = clock
        self._threshold_s = threshold_s
        self._difference_s = clock.wall() - clock.monotonic()

    def jumped(self, late_s: float = 0.0) -> bool:
        """Whether time jumped since the last call; ``late_s`` is how late the caller's own timer fired."""
        difference_s = self._clock.wall() - self._clock.monotonic()
        moved_s = abs(difference_s - self._difference_s)
        self._difference_s = difference_s
        return moved_s > self._threshold_s or late_s > self._threshold_s
