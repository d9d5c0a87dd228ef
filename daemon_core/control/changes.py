"""The stream of changes: an increasing revision, a bounded memory, and readers that may be slow.

A revision begins at the milliseconds since 1970 of the daemon's start, so it also increases over restarts,
and a reader that comes back with one from before is told to start over. Rules for bounded memory:

- The log remembers the last ``history`` events. A reader that asks for older ones gets ``reset``.
- A reader has at most one pending event for a subject; a newer one takes the place of the older. With more
than
  ``pending`` subjects waiting, all are dropped and it gets ``reset``.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from daemon_core.control.views import ChangeEvent

HISTORY: Final = 2048
PENDING: Final = 1024
_EMPTY: Final = msgspec.Raw(b"{}")


class ChangeLog:
    """Where the daemon publishes and from where each connected client reads. Used in the event loop only."""

    def __init__(self, *, history: int = HISTORY, pending: int = PENDING, first: int | None = None) -> None:
        self.revision = first if first is not None else time.time_ns() // 1_000_000
        """Revision of the newest event; a snapshot taken now carries it."""
        self._oldest = self.revision
        self._events: deque[tuple[str, ChangeEvent]] = deque(maxlen=history)
        self._pending = pending
        self._subscriptions: set[Subscription] = set()
        self._closed = False

    def publish(self, kind: str, subject: str, data: Any = None) -> int:
        """Announce a change.

        Args:
            subject: What it is about, such as ``task:<id>``: a later event of the same subject makes an
            earlier one
                unnecessary, whatever their kinds.
            data: The view after the change, encoded here and now.

        Returns:
            The new revision.
        """
        self.revision += 1
        raw = msgspec.Raw(msgspec.json.encode(data)) if data is not None else _EMPTY
        event = ChangeEvent(revision=self.revision, kind=kind, data=raw)
        if len(self._events) == self._events.maxlen and self._events:
            self._oldest = self._events[0][1].revision
        self._events.append((subject, event))
        for subscription in self._subscriptions:
            subscription.offer(subject, event)
        return self.revision

    @contextmanager
    def subscribe(self, since: int | None = None) -> Iterator[Subscription]:
        """A reader of everything after ``since`` (None: from now on). Nothing is missed in between."""
        subscription = Subscription(self, self._pending)
        if since is not None and not self._oldest <= since <= self.revision:
            subscription.reset("too_old" if since < self._oldest else "ahead")
        elif since is not None:
            for subject, event in self._events:
                if event.revision > since:
                    subscription.offer(subject, event)
        if self._closed:
            subscription.close()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every stream, present and future. May be called again."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()

    @property
    def readers(self) -> int:
        return len(self._subscriptions)


class Subscription:
    """One reader's bounded share of the changes."""

    def __init__(self, log: ChangeLog, limit: int) -> None:
        self._log = log
        self._limit = limit
        self._waiting: OrderedDict[str, ChangeEvent] = OrderedDict()
        self._ready = asyncio.Event()
        self.closed = False

    def offer(self, subject: str, event: ChangeEvent) -> None:
        """Take an event; the newest of a subject is the one that is kept, in the place of the newest."""
        self._waiting.pop(subject, None)
        self._waiting[subject] = event
        if len(self._waiting) > self._limit:
            self.reset("overflow")
        self._ready.set()

    def reset(self, reason: str) -> None:
        """Drop what waits and tell the reader to take a new snapshot."""
        self._waiting.clear()
        data = msgspec.Raw(msgspec.json.encode({"reason": reason}))
        self._waiting["reset"] = ChangeEvent(revision=self._log.revision, kind="reset", data=data)
        self._ready.set()

    def close(self) -> None:
        self.closed = True
        self._ready.set()

    async def next(self, timeout_s: float | None = None) -> list[ChangeEvent]:
        """What has come, oldest first; empty after ``timeout_s`` or when closed. Safe to cancel."""
        if not self._waiting and not self.closed:
            try:
                await asyncio.wait_for(self._ready.wait(), timeout_s)
            except TimeoutError:
                return []
        self._ready.clear()
        events = list(self._waiting.values())
        self._waiting.clear()
        return events
