"""Exponential back-off with jitter. Pure: it says how long, the caller waits."""

from __future__ import annotations

import random


class Backoff:
    """Pauses that double from ``first_s`` to ``limit_s``, each spread by ± ``jitter`` (a share of it)."""

    def __init__(
        self, first_s: float, limit_s: float, *, jitter: float = 0.2, rng: random.Random | None = None
    ) -> None:
        if not 0 < first_s <= limit_s or not 0 <= jitter < 1:
            raise ValueError(f"no back-off: first {first_s}, limit {limit_s}, jitter {jitter}")
        self._first_s = first_s
        self._limit_s = limit_s
        self._jitter = jitter
        self._rng = rng or random.Random()
        self._next_s = first_s

    def next(self) -> float:
        """The pause before the next attempt."""
        base = self._next_s
        self._next_s = min(base * 2, self._limit_s)
        return base * self._rng.uniform(1 - self._jitter, 1 + self._jitter)

    def reset(self) -> None:
        """It worked: the next pause is the first one again."""
        self._next_s = self._first_s
