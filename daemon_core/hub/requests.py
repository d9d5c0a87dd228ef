"""What a daemon is asked beside tasks: to update itself, what models and skills it has, to hand one over.

A request waits until the runtime's next sign of life takes it along, and then for its result. Both have a
time; what is late has timed out, and a result for what is over changes nothing. Nothing here is stored: a
request does not outlive the hub, whoever asked asks again. (An update ends the hub: the daemon remembers it.)
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from daemon_core.hub.clock import Clock, rfc3339
from daemon_core.hub.errors import RefusedError
from daemon_core.protocol import wire

Kind = Literal["update", "models", "local_skills", "local_skill_import"]
IMPORTS_AT_ONCE: Final = 10
_OPEN: Final = ("pending", "running")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for a sign of life, then for the result, then to keep what is over."""

    pending_s: float
    running_s: float
    kept_s: float


PATIENCE: Final[dict[Kind, Patience]] = {
    "update": Patience(120, 150, 300),
    "models": Patience(30, 60, 120),
    "local_skills": Patience(180, 60, 300),
    "local_skill_import": Patience(180, 60, 300),
}


@dataclass(slots=True)
class Request:
    """One of them. ``asked`` is what it is about, ``result`` what the daemon has said."""

    id: str
    kind: Kind
    runtime_id: str
    asked: dict[str, Any]
    created_at: int
    since: float
    status: str = "pending"
    result: dict[str, Any] = field(default_factory=dict)

    def view(self) -> dict[str, Any]:
        """As whoever asked is told."""
        return {
            "id": self.id,
            "runtime_id": self.runtime_id,
            "status": self.status,
            **self.asked,
            **self.result,
            "created_at": rfc3339(self.created_at),
        }


class Requests:
    """All requests of one hub."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._all: dict[str, Request] = {}

    def add(self, kind: Kind, runtime_id: str, **asked: Any) -> Request:
        """Ask a runtime for something.

        Raises:
            RefusedError: 409 where an update of it is not over.
        """
        self._look()
        if kind == "update" and self._open("update", runtime_id, _OPEN):
            raise RefusedError(409, "an update is already in progress for this runtime")
        made = Request(str(uuid.uuid4()), kind, runtime_id, asked, self._clock.now(), self._clock.monotonic())
        self._all[made.id] = made
        return made

    def restore(self, kind: Kind, runtime_id: str, request_id: str, **asked: Any) -> None:
        """A request of an earlier life of the hub, which the daemon has taken on and not answered yet."""
        now = self._clock.monotonic()
        made = Request(request_id, kind, runtime_id, asked, self._clock.now(), now, status="running")
        self._all.setdefault(request_id, made)

    def get(self, kind: Kind, runtime_id: str, request_id: str) -> Request:
        """One of a runtime's.

        Raises:
            RefusedError: 404.
        """
        self._look()
        found = self._all.get(request_id)
        if found is None or found.kind != kind or found.runtime_id != runtime_id:
            raise RefusedError(404, "update not found" if kind == "update" else "request not found")
        return found

    def waiting(self, runtime_id: str) -> bool:
        """Whether a sign of life would take something along."""
        self._look()
        return any(each.runtime_id == runtime_id and each.status == "pending" for each in self._all.values())

    def hand_out(self, runtime_id: str, *, batch: bool, answer: wire.HeartbeatResponse) -> None:
        """Put what waits for a runtime into the answer to its sign of life; it runs from now on."""
        if not self._all:
            return
        self._look()
        for kind in ("update", "models", "local_skills"):
            found = self._open(kind, runtime_id, ("pending",))
            if not found:
                continue
            first = found[0]
            self._run(first)
            if kind == "update":
                version = str(first.asked.get("target_version", ""))
                answer.pending_update = wire.PendingUpdate(id=first.id, target_version=version)
            elif kind == "models":
                answer.pending_model_list = wire.PendingRequest(id=first.id)
            else:
                answer.pending_local_skills = wire.PendingRequest(id=first.id)
        imports = self._open("local_skill_import", runtime_id, ("pending",))
        imports = imports[: IMPORTS_AT_ONCE if batch else 1]
        if imports:
            for each in imports:
                self._run(each)
            listed = [
                wire.PendingImport(id=each.id, skill_key=str(each.asked.get("skill_key", "")))
                for each in imports
            ]
            answer.pending_local_skill_import = listed[0]
            if batch:
                answer.pending_local_skill_imports = listed

    def report(self, request: Request, status: str, **result: Any) -> bool:
        """What a daemon says of a request; False where it is over already."""
        if request.status not in _OPEN:
            return False
        if status != request.status:
            request.since = self._clock.monotonic()
        request.status = status
        request.result |= result
        return True

    def _open(self, kind: Kind, runtime_id: str, states: tuple[str, ...]) -> list[Request]:
        return [
            each
            for each in self._all.values()
            if each.kind == kind and each.runtime_id == runtime_id and each.status in states
        ]

    def _run(self, request: Request) -> None:
        request.status = "running"
        request.since = self._clock.monotonic()

    def _look(self) -> None:
        """Let what is late time out, and forget what has been over for long."""
        now = self._clock.monotonic()
        for each in list(self._all.values()):
            patience = PATIENCE[each.kind]
            waited = now - each.since
            if each.status in _OPEN:
                limit = patience.pending_s if each.status == "pending" else patience.running_s
                if waited >= limit:
                    each.status = "timeout"
                    each.since = now
                    each.result["error"] = "the daemon did not answer in time"
            elif waited >= patience.kept_s:
                del self._all[each.id]
