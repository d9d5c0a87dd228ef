"""The link to the daemon: a snapshot, then every change, as one state after another.

The link alone holds the connection. It is told of changes and never asks again and again: while no daemon is
there it watches the directory of its socket. A change is shown within ``BATCH_MS`` of its coming; a flood of
them costs one repaint a batch.

    absent ──socket appears──▶ connecting ──snapshot──▶ connected ──stream ends──▶ connecting …
                                   └── no answer in time ──▶ hung (asked again after a growing pause)

A daemon that is asked whether it is there, and takes its time, is ``unsure`` meanwhile: nobody is shown that
all is well while that is not known.
"""

from __future__ import annotations

import datetime as dt
import os
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import msgspec
from PySide6.QtCore import QElapsedTimer, QFileSystemWatcher, QObject, QTimer, Signal

from daemon_core.control import pipes
from daemon_core.control.errors import ControlError
from daemon_core.control.views import API_VERSIONS, ChangeEvent, DaemonStatus, Snapshot
from daemon_core.settings.directories import Directories
from desktop.daemon.http import TIMEOUT_MS, Call, Failure, LineStream, LocalHttp, Unreachable
from desktop.models.state import (
    DesktopState,
    LinkPhase,
    ResetNeededError,
    apply,
    from_snapshot,
)

T = TypeVar("T")

BATCH_MS: Final = 30
FIRST_PAUSE_MS: Final = 250
LAST_PAUSE_MS: Final = 30_000
HUNG_AFTER: Final = 2
"""Answers that did not come in time, one after the other, before the daemon is said to hang."""
FOREIGN_AFTER: Final = 3
"""Connections that break off or say what makes no sense, one after the other: it is not our daemon."""
SILENCE_MS: Final = 75_000
"""A daemon that says nothing for so long is asked whether it is there. It says so itself once a minute, so
one that is well is never asked."""
ANSWER_MS: Final = TIMEOUT_MS
"""So long an answer to whether it is there may take."""
DOUBT_MS: Final = 1_500
"""An answer that takes longer than this is waited for in sight of everybody."""
STALE_MS: Final = 2_000
"""What somebody looks at is made sure of if the daemon was last heard longer ago than this."""
MISSING_MS: Final = 2_000
"""A daemon that ends has removed its socket and is gone within this time."""
STARTING_PAUSE_MS: Final = 1_000
"""A daemon that starts is asked so often at least: it is shown as soon as it runs."""
HINT_MS: Final = 5_000
"""So long after a sign of a daemon it is tried again at once: its socket is there before it listens."""
HINT_PAUSE_MS: Final = 100

_PHASES: Final = {"absent": LinkPhase.ABSENT, "foreign": LinkPhase.FOREIGN}


class Link(QObject):
    """The daemon of one profile.

    Attributes:
        state: What is known now.
        http: For requests of windows; ``call`` is the short way.

    Signals:
        changed(DesktopState, DesktopState): The state before and the state now.
        transcript(str, int): A task has lines up to this number.
        happened(ChangeEvent): Every change as it came, for those who want more than the state.
        fresh(): A snapshot was taken: what was told before it by ``happened`` may have been missed.
    """

    changed = Signal(object, object)
    transcript = Signal(str, int)
    happened = Signal(object)
    fresh = Signal()

    def __init__(self, directories: Directories, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.directories = directories
        self.state = DesktopState(since=now_text())
        socket_path = directories.checked_socket()
        self.http = LocalHttp(socket_path, self)
        self._socket_path = socket_path
        self._snapshot: Call[Snapshot] | None = None
        self._asked: Call[DaemonStatus] | None = None
        self._heard = QElapsedTimer()
        self._stream: LineStream | None = None
        self._fields: dict[bytes, bytes] = {}
        self._events: list[ChangeEvent] = []
        self._pause_ms = FIRST_PAUSE_MS
        self._unanswered = 0
        self._nonsense = 0
        self._hint = QElapsedTimer()
        self._untold: deque[tuple[DesktopState, DesktopState]] = deque()
        self._batch = _timer(self, BATCH_MS, self._on_batch)
        self._again = _timer(self, FIRST_PAUSE_MS, self.connect_now)
        self._silence = _timer(self, SILENCE_MS, self._make_sure)
        self._doubt = _timer(self, DOUBT_MS, self._on_doubt)
        self._missing = _timer(self, MISSING_MS, self._on_missing)
        self._watcher = QFileSystemWatcher(self)
        self._watcher.directoryChanged.connect(self._on_directory_changed)

    # --- from outside ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; ``changed`` tells what comes of it."""
        self._watch()
        self.connect_now()

    def stop(self) -> None:
        """Let go of everything; nothing is emitted any more."""
        for timer in (self._batch, self._again, self._silence, self._doubt, self._missing):
            timer.stop()
        self._drop()
        if self._snapshot is not None:
            self._snapshot.cancel()
            self._snapshot = None

    def look(self) -> None:
        """Somebody looks at what is known: make sure that it is still so. A daemon that hangs while nothing
        is asked of it would be found out only after ``SILENCE_MS``, and one that is back after a pause."""
        if self._stream is None:
            self.connect_now()
        elif self._heard.hasExpired(STALE_MS):
            self._make_sure()

    def connect_now(self) -> None:
        """Ask for a snapshot now, unless one is on its way or the link is up."""
        self._again.stop()
        if self._snapshot is None and self._stream is None:
            if pipes.is_foreign(self._socket_path):
                self._on_no_snapshot(Unreachable("foreign"))
                return
            self._wait_in_doubt()
            self._snapshot = self.http.call(
                Snapshot, "GET", "/v1/snapshot", done=self._on_snapshot, failed=self._on_no_snapshot,
                timeout_ms=ANSWER_MS,
            )  # fmt: skip

    def call(
        self,
        kind: type[T],
        method: str,
        path: str,
        body: Any = None,
        *,
        failed: Callable[[Failure], None] | None = None,
        **options: Any,
    ) -> Call[T]:
        """``LocalHttp.call``. An answer that does not come has the daemon looked at: it may hang, or its
        socket may be gone."""

        def tell(failure: Failure) -> None:
            if isinstance(failure, Unreachable) and self.state.connected:
                if failure.why == "timeout":
                    self._on_no_answer()
                else:
                    self._make_sure()
            if failed is not None:
                failed(failure)

        return self.http.call(kind, method, path, body, failed=tell, **options)

    def tell(self, **changes: Any) -> None:
        """What the supervisor knows goes into the state through here."""
        self._become(replace(self.state, **changes))

    # --- coming up ---------------------------------------------------------------------------------

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        self._snapshot = None
        self._doubt.stop()
        self._unanswered = self._nonsense = 0
        oldest, newest = snapshot.status.api
        if oldest > API_VERSIONS[1] or newest < API_VERSIONS[0]:
            phase = LinkPhase.TOO_NEW if oldest > API_VERSIONS[1] else LinkPhase.TOO_OLD
            self._lost(phase, f"{snapshot.status.version}")
            return
        self._pause_ms = FIRST_PAUSE_MS
        self._stream = self.http.stream(f"/v1/events?since={snapshot.revision}", self)
        self._stream.lines.connect(self._on_lines)
        self._stream.ended.connect(self._on_stream_ended)
        self._on_heard()
        since = self.state.since if self.state.connected else now_text()
        fresh = replace(
            self.state, link=LinkPhase.CONNECTED, since=since, unsure=False, next_try_at="", detail=""
        )
        self._become(from_snapshot(fresh, snapshot))
        self.fresh.emit()

    def _on_no_snapshot(self, failure: Failure) -> None:
        self._snapshot = None
        self._doubt.stop()
        if isinstance(failure, ControlError):
            # It starts or stops: it is there, and the next try is soon.
            self._pause_ms = min(self._pause_ms, STARTING_PAUSE_MS)
            self._lost(LinkPhase.CONNECTING, failure.code)
        elif failure.why == "timeout":
            self._unanswered += 1
            hung = self._unanswered >= HUNG_AFTER or self.state.link is LinkPhase.HUNG
            self._lost(LinkPhase.HUNG if hung else LinkPhase.CONNECTING, failure.detail)
        elif failure.why == "broken":
            self._nonsense += 1
            strange = self._nonsense >= FOREIGN_AFTER
            self._lost(LinkPhase.FOREIGN if strange else LinkPhase.CONNECTING, failure.detail)
        else:
            self._lost(_PHASES[failure.why], failure.detail)

    def _lost(self, phase: LinkPhase, detail: str) -> None:
        """No link now: say so, and try again when something hints at a daemon, or after a pause."""
        there = phase is not LinkPhase.ABSENT
        """Something listens, and no directory will tell when it comes to answer."""
        if phase is LinkPhase.CONNECTING and self.state.link is LinkPhase.ABSENT:
            phase = LinkPhase.ABSENT
        next_try = ""
        hinted = self._hint.isValid() and not self._hint.hasExpired(HINT_MS)
        if phase is LinkPhase.ABSENT:
            self._watch()
        else:
            next_try = now_text(self._pause_ms)
        if phase is LinkPhase.ABSENT and hinted:
            self._again.start(HINT_PAUSE_MS)
        elif there:
            self._again.start(self._pause_ms)
            self._pause_ms = min(self._pause_ms * 2, LAST_PAUSE_MS)
        since = self.state.since if self.state.link is phase else now_text()
        self._become(
            replace(
                self.state, link=phase, since=since, unsure=False, detail=detail, next_try_at=next_try
            )
        )  # fmt: skip

    def _watch(self) -> None:
        """Be told when the socket appears. Its directory may not be there yet: then what would hold it."""
        place = self._socket_path.parent
        while not place.is_dir() and place != place.parent:
            place = place.parent
        wanted = str(place)
        for watched in self._watcher.directories():
            if watched != wanted:
                self._watcher.removePath(watched)
        if wanted not in self._watcher.directories():
            self._watcher.addPath(wanted)

    def _on_directory_changed(self, path: str) -> None:
        self._watch()
        there = os.path.exists(self._socket_path)
        if self.state.connected:
            if not there:
                self._missing.start()
            return
        if there:
            self._hint.start()
            self._pause_ms = FIRST_PAUSE_MS
            self._again.start(0)

    def _on_missing(self) -> None:
        """Somebody has removed the socket of a daemon that lives: what is connected goes on, and nothing else
        can be asked any more."""
        if self.state.connected and not os.path.exists(self._socket_path):
            self.http.forget()
            self._make_sure()

    # --- the stream --------------------------------------------------------------------------------

    def _on_lines(self, lines: list[bytes]) -> None:
        self._on_heard()
        for line in lines:
            if line:
                name, _, value = line.partition(b":")
                self._fields[name] = value.removeprefix(b" ")
                continue
            data = self._fields.get(b"data")
            self._fields = {}
            if data is None:
                continue
            try:
                self._events.append(msgspec.json.decode(data, type=ChangeEvent))
            except msgspec.MsgspecError:
                self._start_over()
                return
        if self._events and not self._batch.isActive():
            self._batch.start()

    def _on_batch(self) -> None:
        events, self._events = self._events, []
        try:
            state = apply(self.state, events)
        except (ResetNeededError, msgspec.MsgspecError):
            self._start_over()
            return
        self._become(state)
        for event in events:
            if event.kind == "transcript":
                told = msgspec.json.decode(event.data, type=dict[str, Any])
                self.transcript.emit(str(told.get("task_id", "")), int(told.get("seq", 0)))
            self.happened.emit(event)

    def _on_stream_ended(self, failure: Failure | None) -> None:
        self._stream = None
        self._batch.stop()
        if self._events:
            self._on_batch()  # its last words: that it stops because somebody wants it to, above all
        self._drop()
        # The daemon may be on its way back already; what is shown stays until that is known.
        self._pause_ms = FIRST_PAUSE_MS
        self._hint.start()
        self.connect_now()

    def _on_heard(self) -> None:
        self._heard.start()
        self._silence.start()
        self._doubt.stop()
        if self.state.unsure:
            self._become(replace(self.state, unsure=False))

    def _make_sure(self) -> None:
        """Ask whether it is there, unless that is on its way."""
        if self._stream is not None and self._asked is None:
            self._silence.stop()
            self._wait_in_doubt()
            self._asked = self.http.call(
                DaemonStatus, "GET", "/v1/status", done=self._on_there, failed=self._on_not_there,
                timeout_ms=ANSWER_MS,
            )  # fmt: skip

    def _wait_in_doubt(self) -> None:
        """What is shown as being well now is so only if an answer comes soon."""
        if self.state.connected and not self._doubt.isActive():
            self._doubt.start()

    def _on_doubt(self) -> None:
        if self.state.connected:
            self._become(replace(self.state, unsure=True))

    def _on_there(self, _status: DaemonStatus) -> None:
        self._asked = None
        self._on_heard()

    def _on_not_there(self, _failure: Failure) -> None:
        self._asked = None
        self._on_no_answer()

    def _on_no_answer(self) -> None:
        """It does not answer what it was asked: either it does not hang, and a snapshot shows that, or it
        does, and that is said."""
        self._drop()
        self._unanswered += 1
        self._on_doubt()
        self.connect_now()

    def _start_over(self) -> None:
        self._drop()
        self.connect_now()

    def _drop(self) -> None:
        self._silence.stop()
        if self._asked is not None:
            self._asked.cancel()
            self._asked = None
        self._events = []
        self._fields = {}
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _become(self, state: DesktopState) -> None:
        before, self.state = self.state, state
        if before == state:
            return
        # A receiver may make the next change: everybody hears of both, and in order.
        self._untold.append((before, state))
        if len(self._untold) == 1:
            while self._untold:
                self.changed.emit(*self._untold[0])
                self._untold.popleft()


def is_unreachable(failure: Failure) -> bool:
    """Whether a request got no answer, rather than a refusal."""
    return isinstance(failure, Unreachable)


def _timer(parent: QObject, interval_ms: int, slot: Any) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(interval_ms)
    timer.timeout.connect(slot)
    return timer


def now_text(later_ms: int = 0) -> str:
    """The present (or ``later_ms`` from it) as RFC 3339 in UTC."""
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(milliseconds=later_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
