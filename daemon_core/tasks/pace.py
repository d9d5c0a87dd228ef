"""How often a run's output is looked at: at once while it says little, in batches when it chatters.

A look costs a transaction and a request to the server, so an agent that writes line after line is read in
batches. Holding back the first few lines would only make every answer of a short turn late.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

COALESCE_S: Final = 0.04
"""What a small stretch is given to grow, once the looks at once are used up."""
AT_ONCE: Final = 32
"""Looks in a row that wait for nothing: a short turn of the most talkative agent."""
EACH_S: Final = 0.5
"""Until one of them is had again."""


class Pace:
    """Tells how long to wait after a small stretch."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._left = float(AT_ONCE)
        self._at = now()

    def pause_s(self) -> float:
        """Called after each small stretch: 0 where the next one is to be read as soon as it comes."""
        now = self._now()
        self._left = min(float(AT_ONCE), self._left + (now - self._at) / EACH_S)
        self._at = now
        if self._left < 1.0:
            return COALESCE_S
        self._left -= 1.0
        return 0.0
