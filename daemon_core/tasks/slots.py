"""The pool of places for concurrent runs (promise P5).

A slot is taken before a claim, since a claimed task that waits for a slot would time out at its server. It
has a number, which the run keeps over restarts: a re-attached run gets its own number back even if there are
fewer slots now. Waiting is first come, first served among those that the limits allow.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping


class Slot:
    """One place, held by one task. ``release`` gives it back; twice is once."""

    def __init__(self, pool: Slots, number: int, group: str) -> None:
        self._pool: Slots | None = pool
        self.number = number
        self.group = group

    @property
    def held(self) -> bool:
        return self._pool is not None

    def release(self) -> None:
        """Give the slot back and wake the next one in line."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool._released(self)


class Slots:
    """The pool. ``group`` is what a limit of its own applies to (a provider)."""

    def __init__(self, total: int, limits: Mapping[str, int] | None = None) -> None:
        self.total = total
        self.limits = dict(limits or {})
        self._held: dict[int, list[Slot]] = {}
        self._in_group: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[Slot]]] = []

    @property
    def used(self) -> int:
        return sum(len(slots) for slots in self._held.values())

    def in_group(self, group: str) -> int:
        return self._in_group[group]

    def free_for(self, group: str) -> bool:
        """Whether a slot could be had at once."""
        limit = self.limits.get(group)
        return self.used < self.total and (limit is None or self._in_group[group] < limit)

    async def acquire(self, group: str) -> Slot:
        """Wait for a slot. Cancelling gives up the place in line; a slot granted meanwhile goes back."""
        if not any(waiting == group for waiting, _ in self._waiting) and self.free_for(group):
            return self._take(group)
        future: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        entry = (group, future)
        self._waiting.append(entry)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                future.result().release()
            raise
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def adopt(self, number: int, group: str) -> Slot:
        """The slot of a re-attached run, whatever the limits say: the run is there."""
        return self._put(number, group)

    def resize(self, total: int, limits: Mapping[str, int]) -> None:
        """Change the limits; runs above a lowered limit go on."""
        self.total = total
        self.limits = dict(limits)
        self._grant()

    def _take(self, group: str) -> Slot:
        number = 0
        while number in self._held:
            number += 1
        return self._put(number, group)

    def _put(self, number: int, group: str) -> Slot:
        slot = Slot(self, number, group)
        self._held.setdefault(number, []).append(slot)
        self._in_group[group] += 1
        return slot

    def _released(self, slot: Slot) -> None:
        holders = self._held[slot.number]
        holders.remove(slot)
        if not holders:
            del self._held[slot.number]
        self._in_group[slot.group] -= 1
        self._grant()

    def _grant(self) -> None:
        for entry in list(self._waiting):
            group, future = entry
            if self.used >= self.total:
                return
            if not future.done() and self.free_for(group):
                self._waiting.remove(entry)
                future.set_result(self._take(group))
