"""A daemon's end reaches its final state whatever fails: each step has its time, then the next begins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

log = logging.getLogger("ostler")

CLOSE_LIMIT_S: Final = 5.0
"""Each step of the end may take this long; then the next one begins all the same."""


async def limited(close: Callable[[], Awaitable[object]], what: str) -> None:
    """One step. Nothing but a cancellation gets out of here.

    Args:
        what: That which is closed, for the log.
    """
    try:
        async with asyncio.timeout(CLOSE_LIMIT_S):
            await close()
    except TimeoutError:
        log.error("%s did not close in time; the end goes on without it", what)
    except Exception:  # the end reaches its final state whatever fails
        log.exception("closing %s failed", what)
