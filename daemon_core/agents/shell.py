"""The family "plain": a program that prints text and ends with an exit code. Drives the provider ``shell``.

Rules:

- The command goes into a script of its own, so nothing in it (an ``exit``, an open parenthesis, a trailing
  backslash) can reach beyond it.
- Standard output and standard error are one stream; its text is the transcript, with its newlines, so that
  the texts of all events put together are the output.
- Exit code 0 is success, everything else is a failure.
- Text is UTF-8; what is not is replaced, and a NUL becomes U+2400, since no server can store one. A character
  is never split, and ``consumed`` never lies inside one.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from typing import Final

import msgspec

from daemon_core.agents.ends import exit_text
from daemon_core.agents.events import Event, Outcome, PermissionRequest, Text
from daemon_core.agents.family import LaunchError, LaunchPlan, LaunchRequest, Reader, StdinWrite
from daemon_core.agents.lines import cut_tail
from daemon_core.protocol import failures

FAMILY_NAME: Final = "plain"
SCRIPT_NAME: Final = "command.sh"

EVENT_LIMIT_BYTES: Final = 8192
"""Whole lines are put together to events of at most this size; only a longer line makes a longer event."""
PARTIAL_LIMIT_BYTES: Final = 64 * 1024
"""An unfinished line of this size is given in pieces, so that output without newlines needs no memory."""
RESULT_LIMIT_CHARS: Final = 32 * 1024
"""The result of a run is the end of its output; all of it is in the transcript. The snapshot holds this
much.
"""


class ShellFamily:
    """Starts a command with a shell and reads its text."""

    name = FAMILY_NAME
    cut_by_time = True

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """The command as a script in the run directory. Raises ``LaunchError`` for a command with a NUL."""
        if "\0" in request.prompt:
            raise LaunchError("the command holds a NUL character", failures.AGENT_PROCESS)
        # Editors of other systems end lines with CRLF, which a shell takes for part of the last word.
        script = request.prompt.replace("\r\n", "\n")
        return LaunchPlan(
            argv=(request.executable, os.path.join(request.run_dir, SCRIPT_NAME)),
            files={SCRIPT_NAME: (script + "\n").encode("utf-8", "replace")},
            stdin=None,
            merge_stderr=True,
        )

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A new reader. Raises ``ValueError`` for a snapshot that is none."""
        return ShellReader(snapshot)


class _State(msgspec.Struct):
    """What a snapshot holds."""

    consumed: int = 0
    tail: str = ""


class ShellReader:
    """Plain text into ``Text`` events. See ``family.Reader``."""

    session_id = ""
    tools_in_flight = 0
    open_requests: Sequence[PermissionRequest] = ()

    def __init__(self, snapshot: bytes | None = None) -> None:
        state = _State()
        if snapshot is not None:
            try:
                state = msgspec.json.decode(snapshot, type=_State)
            except msgspec.DecodeError as error:
                raise ValueError("not a snapshot of a plain reader") from error
        self.consumed = state.consumed
        self._tail = state.tail
        # Fed, but not yet consumed: the beginning of a line.
        self._held = bytearray()

    def feed(self, data: bytes) -> Sequence[Event]:
        end = data.rfind(b"\n") + 1
        if end == 0:
            self._held += data
            return self.flush() if len(self._held) >= PARTIAL_LIMIT_BYTES else []
        block = bytes(self._held) + data[:end]
        self._held = bytearray(data[end:])
        events: list[Event] = []
        start = 0
        while start < len(block):
            stop = len(block)
            if stop - start > EVENT_LIMIT_BYTES:
                stop = block.rfind(b"\n", start, start + EVENT_LIMIT_BYTES) + 1
                if stop == 0:
                    stop = block.find(b"\n", start) + 1
            self._emit(block[start:stop].decode("utf-8", "replace"), events)
            start = stop
        self.consumed += len(block)
        if len(self._held) >= PARTIAL_LIMIT_BYTES:
            events.extend(self.flush())
        return events

    def flush(self) -> Sequence[Event]:
        return self._take_held(final=False)

    def finish(self) -> Sequence[Event]:
        return self._take_held(final=True)

    def _take_held(self, *, final: bool) -> Sequence[Event]:
        # Not final: the bytes of an incomplete character at the end stay where they are.
        text, used = codecs.utf_8_decode(self._held, "replace", final)
        del self._held[:used]
        self.consumed += used
        events: list[Event] = []
        self._emit(text, events)
        return events

    def _emit(self, text: str, events: list[Event]) -> None:
        if not text:
            return
        if "\0" in text:
            text = text.replace("\0", "\u2400")
        events.append(Text(text))
        self._tail += text
        if len(self._tail) > 4 * RESULT_LIMIT_CHARS:
            self._tail = self._tail[-RESULT_LIMIT_CHARS - 1 :]

    def answer(self, request_id: str, decision: str, text: str = "") -> Sequence[Event]:
        return ()

    def pending_writes(self) -> Sequence[StdinWrite]:
        return []

    def acknowledged(self, number: int) -> None:
        pass

    def interrupt(self) -> Sequence[StdinWrite]:
        return []

    def outcome(self, exit_code: int | None, signal: int | None, stderr_tail: str) -> Outcome:
        output = cut_tail(self._tail, RESULT_LIMIT_CHARS).rstrip("\n")
        if exit_code == 0 and not signal:
            return Outcome(success=True, output=output)
        return Outcome(
            success=False,
            output=output,
            error=exit_text(exit_code, signal),
            reason=failures.AGENT_PROCESS,
        )

    def snapshot(self) -> bytes:
        # One character more than the result needs, so that the cut at a line falls on the same place.
        return msgspec.json.encode(_State(self.consumed, self._tail[-RESULT_LIMIT_CHARS - 1 :]))
