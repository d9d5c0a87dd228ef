"""Providers whose account has met a limit: nothing is claimed for them until it resets.

Otherwise one task after the other would be claimed to fail. It is bounded, since what was said may be wrong:
after a while one task is tried; and the user can lift it at any time. Kept over restarts. The wall clock
decides (it is what resets go by), looked at again now and then, since it may be set and machines sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from daemon_core.agents.events import Limit
from daemon_core.tasks import clock

log = logging.getLogger(__name__)

META_NAME: Final = "account_limits"
USAGE_UNKNOWN_S: Final = 15 * 60.0
"""For how long claims are held where nobody said when a usage limit resets."""
LONGEST_S: Final = 12 * 3600.0
LONGEST_RATE_S: Final = 3600.0
LOOK_AGAIN_S: Final = 300.0


class Held(msgspec.Struct, frozen=True):
    """Claims of one provider are held ``until`` then; ``resets_at`` is what was said, empty for nothing."""

    kind: str
    until: str
    since: str
    resets_at: str = ""


class AccountLimits:
    """All that are held.

    Args:
        keep: makes the state durable.
        on_change: hears of a provider and what holds it now, None for nothing any more.
    """

    def __init__(
        self,
        keep: Callable[[str], Awaitable[None]],
        on_change: Callable[[str, Held | None], None] = lambda provider, held: None,
    ) -> None:
        self._keep = keep
        self._on_change = on_change
        self._held: dict[str, Held] = {}
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def restore(self, text: str | None) -> None:
        """Take up what was kept."""
        if text is None:
            return
        try:
            self._held = msgspec.json.decode(text, type=dict[str, Held])
        except msgspec.DecodeError as error:
            log.error("the limits of accounts that were kept cannot be read: %s", error)
            return
        for provider in list(self._held):
            held = self.held(provider)
            if held is not None:
                self._on_change(provider, held)
        self._arm()

    def held(self, provider: str) -> Held | None:
        """What holds claims of a provider now."""
        held = self._held.get(provider)
        if held is None:
            return None
        if _left_s(held) > 0:
            return held
        del self._held[provider]
        self._on_change(provider, None)
        return None

    async def met(self, provider: str, limit: Limit) -> None:
        """A run has met a limit."""
        now = dt.datetime.now(dt.UTC)
        resets = clock.parse(limit.resets_at) if limit.resets_at else None
        if limit.kind == "usage":
            left_s = USAGE_UNKNOWN_S if resets is None else min((resets - now).total_seconds(), LONGEST_S)
        elif resets is not None:
            left_s = min((resets - now).total_seconds(), LONGEST_RATE_S)
        else:
            return
        if left_s <= 0:
            return
        until = clock.text(now + dt.timedelta(seconds=left_s))
        held = Held(limit.kind, until, clock.text(now), limit.resets_at)
        self._held = {**self._held, provider: held}
        log.warning("no tasks are claimed for %s until %s: its account has met a limit", provider, until)
        self._on_change(provider, held)
        self._arm()
        await self._save()

    async def lift(self, provider: str) -> None:
        """It works again, or the user wants it to be tried."""
        if self._held.pop(provider, None) is None:
            return
        self._changed.set()
        self._on_change(provider, None)
        await self._save()

    async def wait(self, provider: str) -> None:
        """Until nothing holds claims of a provider."""
        while (held := self.held(provider)) is not None:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(_left_s(held), 0.01), LOOK_AGAIN_S)):
                    await self._changed.wait()

    def close(self) -> None:
        """Look at the clock no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        """Look again when something may be over, so that what is shown is true, whoever asks or not."""
        self.close()
        left_s = [_left_s(held) for held in self._held.values()]
        if left_s:
            delay_s = min(max(min(left_s), 0.01), LOOK_AGAIN_S)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _look(self) -> None:
        for provider in list(self._held):
            self.held(provider)
        self._arm()

    async def _save(self) -> None:
        await self._keep(msgspec.json.encode(self._held).decode())


def _left_s(held: Held) -> float:
    until = clock.parse(held.until)
    since = clock.parse(held.since)
    now = dt.datetime.now(dt.UTC)
    if until is None or since is None or now < since - dt.timedelta(hours=1):
        return 0.0  # a clock that was set back says nothing about how long it still takes
    return (until - now).total_seconds()
