"""The claim barrier (promise P4): nothing is claimed while it is up, and it goes up only between claims.

State machine (``TRANSITIONS``): *down* → *raising* when a holder asks while claims are in flight → *up* when
the last of them is through; *up* or *raising* → *down* when the last holder lets go. Holders are named (the
user's pause, an update); the barrier is down only when none is left. A claim counts as in flight until it is
in the journal.

What is begun without a claim (jobs, wake-ups, residents) counts in the same way, but the user's pause is not
against it: so a start may be in flight while the barrier is up for that, and whoever holds it next waits
for the start (*up* → *raising*).
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PAUSE_HOLDER: Final = "user"
"""The user's pause: it holds claims, and nothing that tasks begin by themselves."""


class BarrierState(enum.Enum):
    DOWN = "down"
    RAISING = "raising"
    UP = "up"


class BarrierEvent(enum.Enum):
    HOLD = "hold"
    """The first holder asks for it, or a further one while something is in flight."""
    DRAINED = "drained"
    """Nothing is in flight."""
    LET_GO = "let_go"
    """The last holder is gone."""


TRANSITIONS: dict[tuple[BarrierState, BarrierEvent], BarrierState] = {
    (BarrierState.DOWN, BarrierEvent.HOLD): BarrierState.RAISING,
    (BarrierState.RAISING, BarrierEvent.DRAINED): BarrierState.UP,
    (BarrierState.RAISING, BarrierEvent.LET_GO): BarrierState.DOWN,
    (BarrierState.UP, BarrierEvent.HOLD): BarrierState.RAISING,
    (BarrierState.UP, BarrierEvent.LET_GO): BarrierState.DOWN,
}


class BarrierUpError(Exception):
    """A claim was refused. ``holders`` are the names of those who hold the barrier."""

    def __init__(self, holders: tuple[str, ...]) -> None:
        self.holders = holders
        super().__init__(f"claims are held back by: {', '.join(holders)}")


class Barrier:
    """See the module. Not thread-safe: used on the event loop alone."""

    def __init__(self) -> None:
        self.state = BarrierState.DOWN
        self.in_flight = 0
        self._holders: dict[str, None] = {}
        self._waiters: list[tuple[tuple[BarrierState, ...], asyncio.Future[None]]] = []
        self._start_waiters: list[asyncio.Future[None]] = []

    @property
    def holders(self) -> tuple[str, ...]:
        return tuple(self._holders)

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Around a claim up to its entry in the journal. Raises ``BarrierUpError`` unless down."""
        if self.state is not BarrierState.DOWN:
            raise BarrierUpError(self.holders)
        with self._in_flight():
            yield

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around the start of a job (or of what else is begun without a claim) up to its entry in the journal
        and its process. Raises ``BarrierUpError`` where another one than the user's pause is against it."""
        against = tuple(holder for holder in self._holders if holder != PAUSE_HOLDER)
        if against:
            raise BarrierUpError(against)
        with self._in_flight():
            yield

    @contextmanager
    def _in_flight(self) -> Iterator[None]:
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._settle()

    def hold(self, holder: str) -> None:
        """Ask for the barrier; it is up once ``wait_up`` returns. Asking twice is asking once."""
        self._holders[holder] = None
        if self.state is BarrierState.DOWN or (self.state is BarrierState.UP and self.in_flight):
            self._step(BarrierEvent.HOLD)
        self._settle()

    def let_go(self, holder: str) -> None:
        """Give up one's hold; a holder that holds nothing changes nothing."""
        if holder in self._holders:
            del self._holders[holder]
            if not self._holders:
                self._step(BarrierEvent.LET_GO)
            for future in self._start_waiters:
                if not future.done():
                    future.set_result(None)

    async def wait_up(self) -> None:
        """Until the barrier is up: no claim in flight, none possible."""
        await self._wait(BarrierState.UP)

    async def wait_settled(self) -> None:
        """Until the barrier is up, or down again since nobody holds it any more."""
        await self._wait(BarrierState.UP, BarrierState.DOWN)

    async def wait_down(self) -> None:
        """Until claims are possible."""
        await self._wait(BarrierState.DOWN)

    async def wait_startable(self) -> None:
        """Until ``starting`` is possible."""
        while any(holder != PAUSE_HOLDER for holder in self._holders):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._start_waiters.append(future)
            try:
                await future
            finally:
                self._start_waiters.remove(future)

    def assert_valid(self) -> None:
        """The invariants, for tests and for doubt."""
        assert self.in_flight >= 0
        assert bool(self._holders) == (self.state is not BarrierState.DOWN)
        if self.holders != (PAUSE_HOLDER,):
            assert not (self.state is BarrierState.UP and self.in_flight)

    def _settle(self) -> None:
        if self.state is BarrierState.RAISING and self.in_flight == 0:
            self._step(BarrierEvent.DRAINED)

    def _step(self, event: BarrierEvent) -> None:
        self.state = TRANSITIONS[self.state, event]
        for wanted, future in self._waiters:
            if self.state in wanted and not future.done():
                future.set_result(None)

    async def _wait(self, *wanted: BarrierState) -> None:
        while self.state not in wanted:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry = (wanted, future)
            self._waiters.append(entry)
            try:
                await future
            finally:
                self._waiters.remove(entry)
