"""What a reader has to say to its agent: numbered, kept in the snapshot until the shim has it.

A run is interrupted from another thread than the one that feeds its reader, so numbers are given under a
lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import msgspec

from daemon_core.agents.family import StdinWrite


class WritesState(msgspec.Struct):
    """The part of a reader's snapshot that is this.

    Attributes:
        next_number: Number of the next write; 1 is the launch plan's.
        pending: Made and not known to have reached the agent, in order.
        closed: Whether the end of standard input is among what was said or is pending.
    """

    next_number: int = 2
    pending: list[StdinWrite] = []
    closed: bool = False


class Writes:
    """Writes of one run. Safe to use from several threads."""

    def __init__(self, state: WritesState | None = None) -> None:
        self._state = state or WritesState()
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        return self._state.closed

    def say(self, data: bytes, files: tuple[str, ...] = ()) -> None:
        """Append a write; nothing happens once standard input is closed. ``files`` are those that ``data``
        names."""
        with self._lock:
            if not self._state.closed:
                self._append(data, files)

    def close(self) -> None:
        """Close standard input after everything said before; once."""
        with self._lock:
            if not self._state.closed:
                self._append(None)
                self._state.closed = True

    def pending(self) -> Sequence[StdinWrite]:
        """What is not known to have arrived, in order."""
        with self._lock:
            return list(self._state.pending)

    def acknowledged(self, number: int) -> None:
        """All up to ``number`` have arrived."""
        with self._lock:
            self._state.pending = [write for write in self._state.pending if write.number > number]

    def state(self) -> WritesState:
        """A copy for the snapshot."""
        with self._lock:
            return WritesState(self._state.next_number, list(self._state.pending), self._state.closed)

    def _append(self, data: bytes | None, files: tuple[str, ...] = ()) -> None:
        state = self._state
        state.pending = [*state.pending, StdinWrite(state.next_number, data, files)]
        state.next_number += 1


def named(file: str) -> str:
    """What stands, as a JSON string, for the content of a file of the plan."""
    return f"@{file}@"


def whole(write: StdinWrite, read: Callable[[str], bytes]) -> bytes | None:
    """What is really said: ``read`` gives the content of a file of the plan."""
    data = write.data
    if data is None:
        return None
    for file in write.files:
        data = data.replace(msgspec.json.encode(named(file)), read(file), 1)
    return data
