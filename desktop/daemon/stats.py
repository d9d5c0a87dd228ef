"""What tasks, jobs and residents use, for as long as somebody on the screen shows it.

The daemon holds each question until it has looked again, so this is told every two seconds and asks for
nothing when nobody looks or nothing runs.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from PySide6.QtCore import QObject, QTimer, Signal

from daemon_core.control.errors import ControlError
from daemon_core.control.stats_views import StatsFrame, StatView
from desktop.daemon.http import Call, Failure, LocalHttp, Unreachable
from desktop.daemon.link import Link
from desktop.models.jobs import AT_WORK
from desktop.models.state import ACTIVE, DesktopState

KEPT: Final = 60
"""Figures of one thing: two minutes."""
AGAIN_MS: Final = 2_000
"""After a refusal: a daemon that starts has nothing to tell yet."""


class Series:
    """The last figures of one thing."""

    def __init__(self) -> None:
        self.cpu: deque[float] = deque(maxlen=KEPT)
        self.memory: deque[int] = deque(maxlen=KEPT)
        self.processes = 0

    def add(self, stat: StatView) -> None:
        """One more."""
        self.cpu.append(stat.cpu)
        self.memory.append(stat.memory)
        self.processes = stat.processes


class StatsFeed(QObject):
    """One for each link. Whoever shows figures says so with ``watch`` and ``leave``.

    Signals:
        came(): There are newer figures.
    """

    came = Signal()

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._link = link
        self._http = LocalHttp(link.http.socket_path, self)
        self._series: dict[tuple[str, str], Series] = {}
        self._watchers: set[int] = set()
        self._call: Call[StatsFrame] | None = None
        self._after = 0
        self._again = QTimer(self)
        self._again.setSingleShot(True)
        self._again.setInterval(AGAIN_MS)
        self._again.timeout.connect(self._ask)
        link.changed.connect(self._on_state)

    @staticmethod
    def of(link: Link) -> StatsFeed:
        """The one of this link, made now if need be."""
        found = link.findChild(StatsFeed)
        return found if isinstance(found, StatsFeed) else StatsFeed(link)

    @property
    def asking(self) -> bool:
        """Whether the daemon is asked at this moment."""
        return self._call is not None

    def watch(self, who: QObject) -> None:
        """Somebody looks from now on."""
        self._watchers.add(id(who))
        self._ask()

    def leave(self, who: QObject) -> None:
        """Somebody looks no more."""
        self._watchers.discard(id(who))
        if not self._watchers:
            self._again.stop()
            if self._call is not None:
                self._call.cancel()
                self._call = None

    def series(self, kind: str, ident: str) -> Series | None:
        """The figures of one thing; None while there are none."""
        return self._series.get((kind, ident))

    def take(self, frame: StatsFrame) -> None:
        """Newer figures."""
        self._after = frame.number
        seen = {(stat.kind, stat.id): stat for stat in frame.stats}
        for key in [key for key in self._series if key not in seen]:
            del self._series[key]
        for key, stat in seen.items():
            self._series.setdefault(key, Series()).add(stat)
        self.came.emit()

    def _on_state(self, before: DesktopState, state: DesktopState) -> None:
        if not state.connected:
            self._after = 0
        elif self._watchers and self._call is None:
            self._ask()

    def _goes_on(self) -> bool:
        state = self._link.state
        return (
            any(task.status in ACTIVE for task in state.tasks.values())
            or any(job.ended_at is None for job in state.jobs.values())
            or any(resident.state in AT_WORK for resident in state.residents.values())
        )

    def _ask(self) -> None:
        if self._watchers and self._call is None and self._link.state.connected and self._goes_on():
            self._call = self._http.call(
                StatsFrame, "GET", f"/v1/stats?after={self._after}", done=self._on_frame, failed=self._on_none
            )

    def _on_frame(self, frame: StatsFrame) -> None:
        self._call = None
        self.take(frame)
        self._ask()

    def _on_none(self, failure: Failure) -> None:
        self._call = None
        if isinstance(failure, ControlError) and failure.code == "not_found":
            return  # an older daemon knows no such thing and is not asked again
        if isinstance(failure, Unreachable):
            self._link.look()  # somebody sees these figures, and all the rest that may be old
        self._again.start()
