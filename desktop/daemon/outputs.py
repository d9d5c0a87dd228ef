"""Brings the output of jobs and residents here as it grows. The daemon is asked to hold the question until
there is more, so nothing is polled; large outputs come in pieces with a pause for the screen in between.
"""

from __future__ import annotations

from time import monotonic
from typing import Final
from urllib.parse import quote

import msgspec
from PySide6.QtCore import QObject, QTimer, Signal

from daemon_core.control.errors import ControlError
from daemon_core.control.job_views import JobOutput
from daemon_core.control.resident_views import ResidentLogLine
from desktop.daemon.http import Call, Failure, LineStream, LocalHttp
from desktop.models.output import Output
from desktop.text import _

FIRST_BYTES: Final = 96 * 1024
"""Of the end of an output that is there already, and of what stands before it when that is wanted."""
PIECE_BYTES: Final = 128 * 1024
SLICE_BYTES: Final = 4 * 1024
"""Taken between two looks at the clock."""
SLICE_MS: Final = 8
BEHIND_BYTES: Final = 4 * 1024 * 1024
"""An output that is further ahead is followed from its end on; what was passed over can be scrolled to."""
PAUSE_MS: Final = 15
HOLD_S: Final = 30
HOLD_TIMEOUT_MS: Final = 45_000
TAIL_LINES: Final = 2_000

_LINE: Final = msgspec.json.Decoder(ResidentLogLine)


class OutputFeed(QObject):
    """Feeds one ``Output``.

    Signals:
        replaced(): ``output`` is another one now.
        grown(int): Lines from this one on are others, or new.
        went(int): So many lines went from the top; negative: came there.
        ended(): Nothing follows.
        failed(object): A refusal: nothing can be had. A daemon that is away is asked again by ``resume``.
    """

    replaced = Signal()
    grown = Signal(int)
    went = Signal(int)
    ended = Signal()
    failed = Signal(object)

    def __init__(self, http: LocalHttp, parent: QObject | None = None) -> None:
        super().__init__(parent)
        # Requests that are held must not stand in the way of a click: connections of their own.
        self._http = LocalHttp(http.socket_path, self)
        self.output = Output()
        self._path = ""
        self._log = ""
        self._begun = False
        self._over = False
        self._held: Call[JobOutput] | None = None
        self._earlier: Call[JobOutput] | None = None
        self._earlier_from = 0
        self._stream: LineStream | None = None
        self._piece: JobOutput | None = None
        """What came and is being taken, from ``_taken`` on."""
        self._taken = 0
        self._work = QTimer(self)
        self._work.setInterval(0)
        self._work.timeout.connect(self._take)
        self._next = QTimer(self)
        self._next.setSingleShot(True)
        self._next.setInterval(PAUSE_MS)
        self._next.timeout.connect(self._ask)

    @property
    def over(self) -> bool:
        """Whether everything is here and nothing follows."""
        return self._over

    def open_job(self, job_id: str, size: int, stream: str = "stdout") -> None:
        """The output of a job, of which there are ``size`` bytes already."""
        self.close()
        self._path = f"/v1/jobs/{quote(job_id, safe='')}/output?stream={stream}"
        self.output.next = max(0, size - FIRST_BYTES)
        self._ask()

    def open_log(self, resident_id: str) -> None:
        """The log of a resident."""
        self.close()
        self._log = f"/v1/residents/{quote(resident_id, safe='')}/log?follow=1&tail={TAIL_LINES}"
        self._listen()

    def resume(self) -> None:
        """Go on where it broke off."""
        if self._path and self._held is None and self._piece is None and not self._over:
            self._ask()
        elif self._log and self._stream is None:
            # A log is told from its end on: begun again, with its last lines.
            self.output = Output()
            self.replaced.emit()
            self._listen()

    def pause(self) -> None:
        """Nobody looks: want nothing until ``resume``."""
        self._next.stop()
        self._work.stop()
        self._piece = None
        if self._held is not None:
            self._held.cancel()
        if self._earlier is not None:
            self._earlier.cancel()
        self._held = self._earlier = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def close(self) -> None:
        """Want nothing more of it."""
        self.pause()
        self.output = Output()
        self._path = self._log = ""
        self._begun = self._over = False

    def ask_earlier(self) -> None:
        """What stands before the first line."""
        start = self.output.start
        if self._path and start and self._begun and self._earlier is None:
            offset = self._earlier_from = max(0, start - FIRST_BYTES)
            self._earlier = self._http.call(
                JobOutput, "GET", f"{self._path}&offset={offset}&limit={start - offset}",
                done=self._on_earlier, failed=self._on_no_earlier,
            )  # fmt: skip

    # --- jobs --------------------------------------------------------------------------------------

    def _ask(self) -> None:
        if not self._path or self._held is not None or self._piece is not None:
            return
        limit = PIECE_BYTES if self._begun else FIRST_BYTES
        self._held = self._http.call(
            JobOutput, "GET", f"{self._path}&offset={self.output.next}&limit={limit}&wait={HOLD_S}",
            done=self._on_piece, failed=self._on_no_piece, timeout_ms=HOLD_TIMEOUT_MS,
        )  # fmt: skip

    def _on_piece(self, piece: JobOutput) -> None:
        self._held = None
        if self._begun and piece.offset > self.output.next:
            # What comes next was dropped, since the output is longer than is kept: begun anew behind it.
            self.output, self._begun = Output(), False
        if not self._begun:
            self._begun = True
            self.output.begin(piece.data, piece.offset)
            self.replaced.emit()
        elif piece.data:
            self._piece, self._taken = piece, 0
            self._work.start()
            return
        self._after(piece)

    def _take(self) -> None:
        """Some of the piece that came, for as long as a frame allows."""
        piece = self._piece
        if piece is None:
            self._work.stop()
            return
        deadline = monotonic() + SLICE_MS / 1000
        first = len(self.output.lines)
        while self._taken < len(piece.data) and monotonic() < deadline:
            end = self._taken + SLICE_BYTES
            first = min(first, self.output.feed(piece.data[self._taken : end]))
            self._taken = end
        self._tell_grown(first)
        if self._taken >= len(piece.data):
            self._piece = None
            self._work.stop()
            self._after(piece)

    def _tell_grown(self, first: int) -> None:
        gone = self.output.trim()
        if gone:
            self.went.emit(gone)
        self.grown.emit(max(0, first - gone))

    def _after(self, piece: JobOutput) -> None:
        """A piece was taken as a whole: go on."""
        if piece.size - piece.next_offset > BEHIND_BYTES:
            self.output = Output()
            self.output.next = piece.size - FIRST_BYTES
            self._begun = False
        if piece.ended and piece.next_offset >= piece.size:
            self._over = True
            self.ended.emit()
        elif self._path:
            self._next.start()

    def _on_no_piece(self, failure: Failure) -> None:
        self._held = None
        if isinstance(failure, ControlError):
            self.failed.emit(failure)

    def _on_earlier(self, piece: JobOutput) -> None:
        self._earlier = None
        start = self.output.start
        hole, behind = piece.dropped_from, piece.dropped_to
        if hole is not None and behind is not None and hole < start and self._earlier_from < behind:
            # Up to what was dropped; what stands before that is asked for next.
            left = piece.data[: max(0, start - piece.offset)] if piece.offset >= behind else b""
            said = _("[… a part is not here: the output is longer than is kept …]")
            came = self.output.put_before(f"{said}\n".encode() + left, 0)
            self.output.start = hole
        elif piece.next_offset == start:
            came = self.output.put_before(piece.data, piece.offset)
        else:
            return
        self.went.emit(-came)
        self.grown.emit(0)

    def _on_no_earlier(self, _failure: Failure) -> None:
        self._earlier = None  # asked again when somebody scrolls there again

    # --- logs --------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._stream = self._http.stream(self._log, self)
        self._stream.lines.connect(self._on_lines)
        self._stream.ended.connect(self._on_stream_ended)

    def _on_lines(self, lines: list[bytes]) -> None:
        texts = [_LINE.decode(line).text for line in lines if line]
        if texts:
            self._tell_grown(self.output.feed("".join(f"{text}\n" for text in texts).encode()))

    def _on_stream_ended(self, failure: Failure | None) -> None:
        self._stream = None
        if isinstance(failure, ControlError):
            self.failed.emit(failure)
