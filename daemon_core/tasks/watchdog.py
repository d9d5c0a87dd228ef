"""When a run has been silent for too long: three budgets, for an agent that thinks, one with a tool at work
and one that waits for the user's answer; and a fourth for one that thinks and says something, but does not
get on, where its reader tells. Before the end there is a warning, and the user can give more time.

Silence counts from the last output (the shim keeps its time, so a restart is not activity), or from the last
answer to a request if that is later. Output that nobody has read yet is not silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from daemon_core.agents.family import Reader, TellsProgress
from daemon_core.processes.client import Shim
from daemon_core.processes.errors import LostError, UnreachableError
from daemon_core.tasks import clock

WARN_SHARE: Final = 0.8
"""Of a budget of silence; then the user is told."""
UNREACHABLE_PAUSE_S: Final = 1.0

Kind = Literal["idle", "progress", "tool", "request"]
"""Which budget counts; ``progress``: the time in which an agent that thinks has to get on is over first."""


@dataclass(frozen=True, kw_only=True)
class WatchLimits:
    """Seconds of silence allowed without and with a tool in flight and while an answer is waited for, without
    progress and without a tool in flight, and for the whole run; 0 is no limit."""

    idle_s: float = 30 * 60.0
    tool_s: float = 2 * 3600.0
    request_s: float = 0.0
    progress_s: float = 10 * 60.0
    run_s: float = 0.0

    def budget_s(self, kind: Kind) -> float:
        """The silence allowed to a run of this kind."""
        budgets = {"idle": self.idle_s, "tool": self.tool_s, "request": self.request_s}
        return self.progress_s if kind == "progress" else budgets[kind]


@dataclass(frozen=True, kw_only=True)
class Watching:
    """What is told of the watchdog. ``ends_at`` is empty where nothing ends the run by itself."""

    kind: Kind
    budget_s: float
    silent_since: str
    ends_at: str
    warned: bool


class Watchdog:
    """Watches one run.

    Args:
        extended_until: a time (RFC 3339) until which the user has given it, in this life or an earlier one.
        answered_at: when a request was answered last, likewise.
        progress_at: when the agent was last seen to get on, likewise.
        on_warning: hears that the end of a budget is near, and that it is not any more.
    """

    def __init__(
        self,
        reader: Reader,
        limits: WatchLimits,
        *,
        started_wall: float,
        extended_until: str = "",
        answered_at: str = "",
        progress_at: str = "",
        on_warning: Callable[[], None] = lambda: None,
    ) -> None:
        self._reader = reader
        self.limits = limits
        # From here on by the monotonic clock: one that is set is no time that has passed.
        self._began = time.monotonic() - max(0.0, time.time() - started_wall)
        self._on_warning = on_warning
        self._changed = asyncio.Event()
        self._heard = time.monotonic()
        self._answered = _monotonic_of(answered_at)
        self._progressed = max(self._began, _monotonic_of(progress_at))
        self._extended_until = _monotonic_of(extended_until)
        self.warned = False

    # --- what happens --------------------------------------------------------------------------

    def heard(self) -> None:
        """The agent has said something just now."""
        self._heard = time.monotonic()
        if self.warned and self.kind != "progress":
            self._warn(False)
        self._changed.set()

    def progressed(self) -> None:
        """The agent has got on just now."""
        self._progressed = time.monotonic()
        if self.warned:
            self._warn(False)

    def answered(self) -> None:
        """The user has answered: from now on the agent is to say something again."""
        self._answered = time.monotonic()
        self.heard_of()

    def heard_of(self) -> None:
        """Something about the run is different (a tool ended, say)."""
        self._changed.set()

    def extend(self, seconds: float) -> str:
        """More time from now on, or from the end of what was given before; gives until when."""
        self._extended_until = max(self._extended_until, time.monotonic()) + seconds
        if self.warned:
            self._warn(False)
        self._changed.set()
        return _text_of(self._extended_until)

    # --- what is so ----------------------------------------------------------------------------

    @property
    def kind(self) -> Kind:
        """Which budget counts."""
        if self._reader.open_requests:
            return "request"
        if self._reader.tools_in_flight:
            return "tool"
        limits = self.limits
        if not isinstance(self._reader, TellsProgress) or limits.progress_s <= 0:
            return "idle"
        until = self._progressed + limits.progress_s
        return "idle" if limits.idle_s > 0 and self._heard + limits.idle_s < until else "progress"

    def view(self) -> Watching:
        """As it is now."""
        kind = self.kind
        budget_s = self.limits.budget_s(kind)
        since = self._since(kind)
        ends: list[float] = []
        if budget_s > 0:
            ends.append(max(since + budget_s, self._extended_until))
        if self.limits.run_s > 0:
            ends.append(self._began + self.limits.run_s)
        return Watching(
            kind=kind,
            budget_s=budget_s,
            silent_since=_text_of(since),
            ends_at=_text_of(min(ends)) if ends else "",
            warned=self.warned,
        )

    # --- watching ------------------------------------------------------------------------------

    async def watch(self, shim: Shim, position: Callable[[], int]) -> Literal["silence", "time_limit"]:
        """Wait until a budget is used up; gives which. Wakes only when something may be due."""
        while True:
            self._changed.clear()
            try:
                status = await shim.status()
            except (UnreachableError, LostError):
                await asyncio.sleep(UNREACHABLE_PAUSE_S)  # who reads sees a lost one, and ends this
                continue
            now = time.monotonic()
            # Output that nobody has read is not silence, nor is an agent held up by a full disk.
            unread = status.stdout_bytes > position() or status.stalled_on_disk
            self._heard = now if unread else now - status.idle_s
            if unread:
                self._progressed = now
            kind, waits = self.kind, []
            budget_s = self.limits.budget_s(kind)
            if budget_s > 0:
                since = self._since(kind)
                left = max(since + budget_s, self._extended_until) - now
                if left <= 0:
                    return "silence"
                to_warning = left - (1 - WARN_SHARE) * budget_s
                if to_warning <= 0 and not self.warned:
                    self._warn(True)
                waits.append(left if self.warned else to_warning)
            if self.limits.run_s > 0:
                left = self._began + self.limits.run_s - now
                if left <= 0:
                    return "time_limit"
                waits.append(left)
            deadline = now + min(waits) if waits else None
            warned, limits = self.warned, self.limits
            while self.kind == kind and self.warned == warned and self.limits is limits:
                left_s = None if deadline is None else deadline - time.monotonic()
                if left_s is not None and left_s <= 0:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._changed.wait()
                self._changed.clear()

    def _since(self, kind: Kind) -> float:
        return max(self._progressed if kind == "progress" else self._heard, self._answered)

    def _warn(self, warned: bool) -> None:
        self.warned = warned
        self._on_warning()


def _monotonic_of(text: str) -> float:
    """A recorded time on this process's clock; long ago where there is none."""
    moment = clock.parse(text) if text else None
    return float("-inf") if moment is None else time.monotonic() + moment.timestamp() - time.time()


def _text_of(moment: float) -> str:
    return clock.text(dt.datetime.fromtimestamp(time.time() + moment - time.monotonic(), dt.UTC))
