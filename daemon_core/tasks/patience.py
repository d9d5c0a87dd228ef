"""Writes that must happen are carried through a full disk (ARCHITECTURE.md): nothing is given up, and
nothing goes on that would need them done.

A write is tried again while the cause is one that passes by itself or by the user's hand: no room, no file
descriptors, no memory, a journal that cannot be written at the moment. Anything else is raised at once.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from daemon_core.journal import JournalError

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_RETRY_S = 0.5
RETRY_LIMIT_S = 30.0
PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)


class Patience:
    """All writes of a daemon that wait for room. ``on_trouble`` hears of the first that has to wait, and
    None when the last of them is through (or was cancelled). Of a damaged journal it hears once, and never
    of its end: that takes a new start."""

    def __init__(self, on_trouble: Callable[[JournalError | None], None]) -> None:
        self._on_trouble = on_trouble
        self._waiting = 0
        self.damaged = False

    @property
    def troubled(self) -> bool:
        """Whether any write waits, or none can be made any more."""
        return self._waiting > 0 or self.damaged

    async def carry(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await ``work()`` until it succeeds; it is one transaction, so trying again is safe.

        Raises ``JournalError`` (damaged, or a mistake of ours) and ``OSError`` for what does not pass.
        """
        try:
            return await work()
        except (JournalError, OSError) as error:
            trouble = self._passing(error)
            if trouble is None:
                raise
        log.error("a write waits and is tried again: %s", trouble)
        self._waiting += 1
        try:
            if self._waiting == 1:
                self._on_trouble(trouble)
            return await self._again(work)
        finally:
            # Also when cancelled: what nobody waits for any more holds nothing up.
            self._waiting -= 1
            if not self.troubled:
                self._on_trouble(None)

    async def _again(self, work: Callable[[], Awaitable[T]]) -> T:
        delay_s = FIRST_RETRY_S
        while True:
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_LIMIT_S)
            try:
                return await work()
            except (JournalError, OSError) as error:
                if self._passing(error) is None:
                    raise

    def _passing(self, error: JournalError | OSError) -> JournalError | None:
        if isinstance(error, JournalError):
            if error.damaged and not self.damaged:
                self.damaged = True
                log.critical("%s; it is set aside and mended when the daemon is started again", error)
                self._on_trouble(error)
            return error if error.full else None
        return JournalError(str(error), full=True) if error.errno in PASSING else None
