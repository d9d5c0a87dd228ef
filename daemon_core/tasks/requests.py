"""What a run's agent waits to be answered, as the journal keeps it and front ends show it.

The truth is the reader's: a request is open for as long as it is in its snapshot. Beside that stands here, in
the same transactions, since when it waits and how those before it were settled, so that a second answer is
told what the first one was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from daemon_core.agents.events import PermissionRequest
from daemon_core.tasks.translate import bounded_input, storable_text

Decision = Literal["allow", "allow-task", "deny"]

INPUT_LIMIT_BYTES: Final = 16 * 1024
TITLE_LIMIT_CHARS: Final = 500
SETTLED_LIMIT: Final = 50
"""How many settled ones are remembered."""


class OpenRequest(msgspec.Struct, frozen=True):
    """One that waits. ``input`` is bounded."""

    id: str
    kind: str
    tool: str
    input: Any = None
    title: str = ""
    options: tuple[str, ...] = ()
    since: str = ""


class SettledRequest(msgspec.Struct, frozen=True):
    """One that does not wait any more. ``decision``: ``allow``, ``allow-task``, ``deny`` or ``withdrawn``."""

    id: str
    decision: str
    at: str


class RequestBook(msgspec.Struct):
    """The requests of a task's present run."""

    open: list[OpenRequest] = []
    settled: list[SettledRequest] = []

    @classmethod
    def read(cls, text: str) -> RequestBook:
        """From the journal; an empty one for what cannot be understood."""
        try:
            return msgspec.json.decode(text, type=cls) if text else cls()
        except msgspec.DecodeError:
            return cls()

    def text(self) -> str:
        """For the journal."""
        return msgspec.json.encode(self).decode()

    def update(self, waiting: Sequence[PermissionRequest], told: Mapping[str, str], now: str) -> bool:
        """Take over what the reader has open; ``told`` are the decisions since. Whether something changed."""
        wanted = {request.request_id for request in waiting}
        known = {request.id for request in self.open}
        if wanted == known and not told:
            return False
        gone = [request.id for request in self.open if request.id not in wanted]
        # Asked and settled within one stretch counts, too.
        gone += [ident for ident in told if ident not in known and ident not in wanted]
        fresh = [
            SettledRequest(ident, told.get(ident, "withdrawn"), now)
            for ident in gone
            if self.decision(ident) is None
        ]
        self.settled = [*self.settled, *fresh][-SETTLED_LIMIT:]
        self.open = [request for request in self.open if request.id in wanted] + [
            _open(request, now) for request in waiting if request.request_id not in known
        ]
        return True

    def decision(self, ident: str) -> str | None:
        """How a request was settled; None for one that is open or not known."""
        return next((settled.decision for settled in self.settled if settled.id == ident), None)

    @property
    def answered_at(self) -> str:
        """When the last one was settled, or empty."""
        return self.settled[-1].at if self.settled else ""


def _open(request: PermissionRequest, now: str) -> OpenRequest:
    return OpenRequest(
        id=request.request_id,
        kind=request.kind,
        tool=storable_text(request.tool),
        input=bounded_input(request.input, INPUT_LIMIT_BYTES),
        title=storable_text(request.title[:TITLE_LIMIT_CHARS]),
        options=tuple(storable_text(option[:TITLE_LIMIT_CHARS]) for option in request.options[:50]),
        since=now,
    )
