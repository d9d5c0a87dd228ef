"""Waiting until something of one task changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class TaskBell:
    """Used on the event loop alone."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    @contextmanager
    def listening(self, task_id: str) -> Iterator[asyncio.Future[None]]:
        """A future that is done when something of a task changes. Begin to listen, then look, then wait:
        so nothing is missed in between."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(task_id, set())
        waiting.add(future)
        try:
            yield future
        finally:
            waiting.discard(future)
            if not waiting:
                self._waiting.pop(task_id, None)

    def ring(self, task_id: str) -> None:
        """Something of it has changed."""
        for future in self._waiting.get(task_id, ()):
            if not future.done():
                future.set_result(None)
