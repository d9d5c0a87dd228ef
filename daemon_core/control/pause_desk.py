"""The user's own pause: claims are held back until the user lets them go on, or a time has come.

It holds over restarts of the daemon, which the journal's meta table is for.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from typing import Final, Protocol

import msgspec

from daemon_core.control.errors import ControlError
from daemon_core.control.views import Barrier, Pause
from daemon_core.journal import Journal, JournalError
from daemon_core.tasks import clock
from daemon_core.tasks.barrier import PAUSE_HOLDER
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.owned import Nursery

log = logging.getLogger(__name__)

PAUSE_META: Final = "pause"
LOOK_AGAIN_S: Final = 3600.0
"""The end of a pause is looked at again after this long: the wall clock may be set meanwhile."""


class Source(Protocol):
    """Where barrier and journal are; the facade is one of these."""

    def ready(self, *, starting: bool = False) -> tuple[Engine, Journal]: ...
    def status_changed(self) -> None: ...


class PauseDesk:
    """Raises the user's barrier and takes it down.

    Args:
        owner: Has the end of a pause whose time has come.
    """

    def __init__(self, source: Source, owner: Nursery) -> None:
        self._source = source
        self._owner = owner
        self.standing: Barrier | None = None
        """The pause that is in force."""
        self._timer: asyncio.TimerHandle | None = None
        self._changing = asyncio.Lock()

    async def pause(self, request: Pause) -> None:
        """Raise the barrier, or change its end; no claim is on its way when this returns,
        unless it was taken back meanwhile."""
        engine, journal = self._source.ready()
        until = None
        if request.until is not None:
            until = clock.parse(request.until)
            if until is None:
                raise ControlError("invalid_input", {"field": "until", "why": "not_a_time"})
            if until <= dt.datetime.now(dt.UTC):
                raise ControlError("invalid_input", {"field": "until", "why": "past"})
        wanted = Barrier(
            reason="user", since=clock.now_text(), until=clock.text(until) if until is not None else None
        )
        async with self._changing:
            # Durable first: on a full disk nothing is said to be paused that is not.
            await journal.set_meta(PAUSE_META, msgspec.json.encode(wanted).decode())
            self.standing = wanted
            engine.barrier.hold(PAUSE_HOLDER)
            self._arm()
        await engine.barrier.wait_settled()
        self._source.status_changed()

    async def resume(self) -> None:
        """Take the barrier down; nothing happens where it is not up."""
        engine, journal = self._source.ready()
        async with self._changing:
            await journal.set_meta(PAUSE_META, None)
            self._lift(engine)

    async def _end(self, pause: Barrier) -> None:
        """Its time has come: that holds also where it cannot be written down, as the end is in the pause."""
        engine, journal = self._source.ready(starting=True)
        async with self._changing:
            if self.standing is pause:
                self._lift(engine)
                try:
                    await journal.set_meta(PAUSE_META, None)
                except JournalError as error:
                    log.warning("the end of the pause cannot be written down: %s", error)

    def _lift(self, engine: Engine) -> None:
        self.standing = None
        if self._timer is not None:
            self._timer.cancel()
        engine.barrier.let_go(PAUSE_HOLDER)
        self._source.status_changed()

    async def restore(self) -> None:
        """Take up the user's pause of before the restart; before anything can be claimed."""
        engine, journal = self._source.ready(starting=True)
        text = await journal.get_meta(PAUSE_META)
        if text is None:
            return
        try:
            pause = msgspec.json.decode(text, type=Barrier)
        except msgspec.DecodeError as error:
            log.error("the pause that was kept cannot be read (%s); claims stay held back", error)
            pause = Barrier(reason="user", since=clock.now_text())
        until = clock.parse(pause.until) if pause.until else None
        if until is not None and until <= dt.datetime.now(dt.UTC):
            return  # over; the next one takes its place
        self.standing = pause
        engine.barrier.hold(PAUSE_HOLDER)
        self._arm()

    def close(self) -> None:
        """The daemon ends: the next one looks after the pause."""
        if self._timer is not None:
            self._timer.cancel()

    def _until(self) -> dt.datetime | None:
        return clock.parse(self.standing.until) if self.standing and self.standing.until else None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        until = self._until()
        if until is None:
            return
        left_s = (until - dt.datetime.now(dt.UTC)).total_seconds()
        delay_s = min(max(left_s, 0.0), LOOK_AGAIN_S)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._due)

    def _due(self) -> None:
        until, standing = self._until(), self.standing
        if until is None or standing is None:
            return
        if until > dt.datetime.now(dt.UTC):
            self._arm()
            return
        log.info("the pause is over")
        self._owner.start(self._end(standing), "resume")
