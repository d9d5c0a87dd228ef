"""One timer for everything that falls due. Nothing polls: it is armed for the next due time there is."""

from __future__ import annotations

import asyncio

from daemon_core.hub.clock import SECOND, Clock


class Timer:
    """Wakes whoever waits for it at the earliest of the times it was armed for."""

    def __init__(self, clock: Clock, longest_sleep_s: float) -> None:
        """``longest_sleep_s`` bounds a sleep, so that a wall clock set back cannot stall what is due."""
        self._clock = clock
        self._longest_sleep_s = longest_sleep_s
        self._rung = asyncio.Event()
        self._handle: asyncio.TimerHandle | None = None
        self.due: int | None = None

    def arm(self, due: int) -> None:
        """Wake at ``due`` (stored time) at the latest. An earlier arming stays."""
        if self.due is not None and self.due <= due:
            return
        self.disarm()
        self.due = due
        delay = (due - self._clock.now()) / SECOND
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(min(max(delay, 0.0), self._longest_sleep_s), self.ring)

    def ring(self) -> None:
        """Wake now."""
        self.disarm()
        self._rung.set()

    def disarm(self) -> None:
        """Forget what it was armed for."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None
        self.due = None

    async def wait(self) -> None:
        """Return when it has rung since the last return."""
        await self._rung.wait()
        self._rung.clear()
