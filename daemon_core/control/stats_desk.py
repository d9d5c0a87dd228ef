"""``/v1/stats``: what the processes of tasks, jobs and residents use, for as long as somebody asks.

An answer is held until the last look is ``PERIOD_S`` old, so whoever asks again at once gets a figure every
two seconds, and however many ask there is one look. Nobody asks: nothing is looked at. One look is one walk
over the processes of the machine, in a thread.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.errors import ControlError
from daemon_core.control.job_desk import JobDesk
from daemon_core.control.resident_desk import ResidentDesk
from daemon_core.control.route import Query, Route
from daemon_core.control.stats_views import Kind, StatsFrame, StatView
from daemon_core.control.web import answer, number
from daemon_core.processes.tree import Identity, families
from daemon_core.tasks import clock
from daemon_core.tasks.engine import Engine

PERIOD_S: Final = 2.0
FIRST_S: Final = 0.3
"""Between the two looks of the first answer: processor time is told against an earlier one."""
FORGOTTEN_S: Final = 10.0
"""An earlier look that is older tells nothing about now."""

STATS_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "stats",
        "GET",
        "/v1/stats",
        "What goes on and what it uses. Held until there is something newer than `after`: ask again at once"
        " for as long as it is wanted; at most one look in two seconds, none when nobody asks.",
        StatsFrame,
        query=(Query("after", "`number` of the frame that is known.", "integer"),),
        refusals=("invalid_input", "not_ready"),
    ),
)


class Source(Protocol):
    """Where that is which goes on; the facade is one of these."""

    @property
    def engine(self) -> Engine | None: ...
    @property
    def job_desk(self) -> JobDesk | None: ...
    @property
    def resident_desk(self) -> ResidentDesk | None: ...


class StatsDesk:
    """Answers the route above. Used on the event loop alone."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = asyncio.Lock()
        self._frame = StatsFrame(number=0, at="")
        self._at = 0.0
        self._cpu: dict[Identity, float] = {}
        self.looks = 0
        """How often processes were looked at."""

    async def frame(self, after: int) -> StatsFrame:
        """The first frame after that one. Raises ``ControlError``: not_ready."""
        if self._source.engine is None:
            raise ControlError("not_ready")
        async with self._lock:
            fresh = time.monotonic() - self._at < PERIOD_S
            if self._frame.number == 0 or not fresh or after >= self._frame.number:
                await self._next()
            return self._frame

    async def _next(self) -> None:
        since = time.monotonic() - self._at
        if self._at == 0.0 or since > FORGOTTEN_S:
            await self._look()
            await asyncio.sleep(FIRST_S)
        elif since < PERIOD_S:
            await asyncio.sleep(PERIOD_S - since)
        stats = await self._look()
        self._frame = StatsFrame(number=self._frame.number + 1, at=clock.now_text(), stats=stats)

    async def _look(self) -> list[StatView]:
        roots = self._roots()
        elapsed = time.monotonic() - self._at
        self.looks += 1
        stats, self._cpu = await asyncio.to_thread(_measure, roots, self._cpu, elapsed)
        self._at = time.monotonic()
        return stats

    def _roots(self) -> list[tuple[Kind, str, int]]:
        found: list[tuple[Kind, str, int]] = []
        engine = self._source.engine
        for life in list(engine.lives.values()) if engine is not None else ():
            if life.driver is not None and life.run.pid:
                found.append(("task", life.record.task_id, life.run.pid))
        jobs = self._source.job_desk
        if jobs is not None and jobs.keeper is not None:
            found += [
                ("job", life.job.id, life.job.pid) for life in jobs.keeper.lives.values() if life.job.pid
            ]
        residents = self._source.resident_desk
        if residents is not None:
            found += [
                ("resident", each.id, each.pid)
                for each in residents.snapshot()
                if each.pid and each.state in ("running", "stopping")
            ]
        return found


def _measure(
    roots: list[tuple[Kind, str, int]], before: Mapping[Identity, float], elapsed_s: float
) -> tuple[list[StatView], dict[Identity, float]]:
    """Blocking: one walk over all processes, then a look at those that matter."""
    import psutil

    trees = families({pid for _kind, _ident, pid in roots}) if roots else {}
    cpu: dict[Identity, float] = {}
    stats = []
    for kind, ident, pid in roots:
        memory, spent = 0, 0.0
        members = trees.get(pid, set())
        for who in members:
            try:
                process = psutil.Process(who.pid)
                times, used = process.cpu_times(), process.memory_info()
            except psutil.Error:
                continue
            now = times.user + times.system
            cpu[who] = now
            spent += max(0.0, now - before[who]) if who in before else 0.0
            memory += used.rss - (used.shared if sys.platform == "linux" else 0)
        share = 100 * spent / elapsed_s if elapsed_s > 0 else 0.0
        stats.append(
            StatView(kind=kind, id=ident, memory=memory, cpu=round(share, 1), processes=len(members))
        )
    return stats, cpu


class HasStats(Protocol):
    """What the route needs of the daemon."""

    @property
    def stats_desk(self) -> StatsDesk | None: ...


def stats_handlers(backend: HasStats) -> Mapping[str, Handler]:
    """The answering function by the name of its route."""

    async def stats(request: web.Request) -> web.Response:
        if backend.stats_desk is None:
            raise ControlError("not_ready")
        return answer(await backend.stats_desk.frame(number(request, "after") or 0))

    return {"stats": stats}
