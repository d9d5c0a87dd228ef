"""The one place that starts asyncio tasks outside a ``TaskGroup``: every task has a name and an owner.

Nothing here dies in silence: what fails is logged, and what must not stop (``keep_going``) begins again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

RESTART_FIRST_S = 1.0
RESTART_LIMIT_S = 60.0
"""Pauses before something that failed unexpectedly begins again: doubled from the first to the limit."""


class Nursery:
    """Owns tasks that come and go. A task that fails is logged and does not take the others down.

    ``close`` cancels what is left and waits for it; afterwards nothing can be started.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a coroutine under this owner."""
        if self._closed:
            coroutine.close()
            raise RuntimeError(f"{self.name} is closed")
        task = asyncio.get_running_loop().create_task(coroutine, name=f"{self.name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def __len__(self) -> int:
        return len(self._tasks)

    async def close(self) -> None:
        """Cancel all and wait until they have ended. Safe to call twice."""
        self._closed = True
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s ended with an error", task.get_name(), exc_info=error)


@asynccontextmanager
async def beside(coroutine: Coroutine[Any, Any, T], name: str) -> AsyncIterator[asyncio.Task[T]]:
    """Run a coroutine beside the block; at the block's end it is cancelled and waited for.

    An error of it is logged here, unless the block has awaited it and is ending because of it.
    """
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    passing: BaseException | None = None
    try:
        yield task
    except BaseException as error:
        passing = error
        raise
    finally:
        await cancel_and_wait(task)
        if not task.cancelled() and (failed := task.exception()) is not None and failed is not passing:
            log.error("%s ended with an error", name, exc_info=failed)


async def cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancel a task that the caller owns and wait for its end; the caller's own cancellation goes through."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # taken note of; whoever wants to know asks again


async def keep_going(work: Callable[[], Awaitable[T]], what: str) -> T:
    """Await ``work()``; an unexpected error of it is logged, and it begins again after a pause.

    For what the daemon cannot do without: a poller that died would look like a machine without tasks.
    """
    pause_s = RESTART_FIRST_S
    while True:
        try:
            return await work()
        except Exception:  # the boundary of a task that must not end
            log.exception("%s failed; it begins again in %.0f s", what, pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, RESTART_LIMIT_S)
