"""Brings a task's transcript onto the screen as it streams, without ever holding up a frame.

A long transcript is opened twice: its end at once, to be looked at, and the whole beside it, which takes the
place of the end when it has caught up. Lines are taken in slices of a few milliseconds.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Final

import msgspec
from PySide6.QtCore import QObject, QTimer, Signal

from daemon_core.control.views import TranscriptLine
from desktop.daemon.http import Failure, LineStream, LocalHttp, Unreachable
from desktop.models.heights import Heights
from desktop.models.transcript import Transcript
from desktop.windows.transcript_view import TranscriptView

TAIL: Final = 400
"""Lines that are enough to fill a screen with the end."""
SLICE_MS: Final = 8
LINES: Final = 64
"""Taken between two looks at the clock."""

_LINE: Final = msgspec.json.Decoder(TranscriptLine)


class _Part:
    """One stream and what was made of it."""

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript
        self.stream: LineStream | None = None
        self.waiting: deque[bytes] = deque()
        self.heights: Heights | None = None
        self.over = False

    def close(self) -> None:
        self.waiting.clear()
        if self.stream is not None:
            self.stream.close()
            self.stream = None


class TranscriptFeed(QObject):
    """Feeds one view.

    Signals:
        failed(object): The transcript cannot be had: a ``Failure``.
        changed(): More is known: lines, errors, or that nothing follows.
    """

    failed = Signal(object)
    changed = Signal()

    def __init__(self, http: LocalHttp, view: TranscriptView, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._http = http
        self._view = view
        self._task = ""
        self._whole: _Part | None = None
        self._end: _Part | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._work)

    @property
    def complete(self) -> bool:
        """Whether everything there is was read and nothing follows."""
        return self._whole is not None and self._whole.over and not self._whole.waiting

    def open(self, task_id: str, *, prompt: str, lines: int, raw: bool) -> None:
        """Show this task from now on; ``lines`` is how many there are already."""
        self.close()
        self._task = task_id
        self._whole = _Part(Transcript(raw=raw))
        if prompt:
            self._whole.transcript.say(prompt)
        if lines > 4 * TAIL:
            self._end = _Part(Transcript(raw=raw))
            self._end.transcript.last_seq = lines - TAIL
            self._view.show_transcript(self._end.transcript)
            self._listen(self._end)
        else:
            self._view.show_transcript(self._whole.transcript)
        self._listen(self._whole)

    def resume(self) -> None:
        """The daemon is there again: go on where it broke off."""
        for part in (self._end, self._whole):
            if part is not None and part.stream is None and not part.over:
                self._listen(part)

    def close(self) -> None:
        """Want nothing more."""
        self._timer.stop()
        for part in (self._end, self._whole):
            if part is not None:
                part.close()
        self._end = self._whole = None

    def _listen(self, part: _Part) -> None:
        path = f"/v1/tasks/{self._task}/transcript?follow=1&after={part.transcript.last_seq}"
        part.stream = self._http.stream(path, self)
        part.stream.lines.connect(lambda lines: self._on_lines(part, lines))
        part.stream.ended.connect(lambda failure: self._on_ended(part, failure))

    def _on_lines(self, part: _Part, lines: list[bytes]) -> None:
        part.waiting.extend(lines)
        if not self._timer.isActive():
            self._timer.start()

    def _on_ended(self, part: _Part, failure: Failure | None) -> None:
        part.stream = None
        part.over = failure is None
        if failure is not None and part is self._whole:
            self.failed.emit(failure)
        elif not self._timer.isActive():
            self._timer.start()

    def _work(self) -> None:
        deadline = monotonic() + SLICE_MS / 1000
        for part in (self._end, self._whole):
            if part is not None:
                self._take(part, deadline)
        whole, end = self._whole, self._end
        if whole is None:
            self._timer.stop()
            return
        caught_up = end is not None and not whole.waiting and not end.waiting
        if end is not None and caught_up and whole.transcript.last_seq >= end.transcript.last_seq:
            end.close()
            self._end = None
            self._view.show_transcript(whole.transcript, whole.heights)
            self.changed.emit()
        if not whole.waiting and (self._end is None or not self._end.waiting):
            self._timer.stop()

    def _take(self, part: _Part, deadline: float) -> None:
        first = len(part.transcript.items)
        took = False
        while part.waiting and monotonic() < deadline:
            some = [part.waiting.popleft() for _each in range(min(LINES, len(part.waiting)))]
            try:
                lines = [_LINE.decode(line) for line in some if line]
            except msgspec.MsgspecError as error:
                part.close()
                part.over = True
                self.failed.emit(Unreachable("broken", f"a line that makes no sense: {error}"))
                break
            first = min(first, part.transcript.take(lines))
            took = True
        ends = part.over and not part.waiting and part.stream is None
        if ends and part.transcript.items and not part.transcript.items[-1].over:
            part.transcript.end()
            first = min(first, max(0, len(part.transcript.items) - 1))
            took = True
        if not took:
            return
        if part is self._end or self._end is None:
            self._view.grown(first)
            self.changed.emit()
        else:
            part.heights = self._view.measure(part.transcript, first, part.heights)
