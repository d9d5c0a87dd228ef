"""What went wrong at a server, sorted by what the caller can do about it.

    ServerError
    ├── TransientError      no answer, or one that may be another next time: try again with back-off
    ├── UnauthorizedError   the credential is refused: sign in again
    ├── WorkspaceGoneError  404 "workspace not found"
    ├── RuntimeGoneError    404 "runtime not found": register again
    ├── TaskGoneError       404 "task not found": stop working on it
    └── PermanentError      any other 4xx: the same request will be refused again

A bare 404 ``not found`` (no access to the workspace) is none of the three "gone" classes and must never
start a self-cleanup.
"""

from __future__ import annotations

import contextlib

import msgspec

BODY_LIMIT_BYTES = 4096


class _Body(msgspec.Struct):
    error: str = ""


class ServerError(Exception):
    """A call to a server failed. ``status`` is 0 where no HTTP status was received."""

    def __init__(self, method: str, path: str, status: int = 0, body: str = "", cause: str = "") -> None:
        self.method = method
        self.path = path
        self.status = status
        self.body = body[:BODY_LIMIT_BYTES].strip()
        self.cause = cause
        super().__init__(method, path, status)

    @property
    def by_server(self) -> bool:
        """Whether the body is an error as the protocol has it. A proxy, a firewall, or whatever else has come
        to be at the server's address says something of its own."""
        return self.body.startswith("{") and '"error"' in self.body

    @property
    def is_verdict(self) -> bool:
        """Whether a refusal says anything about what was asked for. One that is no word of the server's does
        not; nor does a 403, which an account that may do nothing at present gets everywhere."""
        return self.by_server and self.status != 403

    @property
    def said(self) -> str:
        """The reason on one line: the server's own if it gave one."""
        text = ""
        if self.by_server:
            with contextlib.suppress(msgspec.DecodeError):  # of a long body there is the beginning alone
                text = msgspec.json.decode(self.body, type=_Body).error
        fallback = f"status {self.status}" if self.status else self.cause or "no answer"
        return " ".join(text.split())[:300] or fallback

    def __str__(self) -> str:
        what = f"{self.method} {self.path}"
        if self.status:
            return f"{what}: {self.status} {self.body}".rstrip()
        return f"{what}: {self.cause or 'no answer'}"


class TransientError(ServerError):
    """May succeed when tried again. ``retry_after_s`` is the server's own wish, if it gave one.

    ``maybe_applied`` is True where the request may have reached the server although no answer came back:
    before such a request is sent again, ask the server what it has.
    """

    retry_after_s: float | None = None
    maybe_applied: bool = True


class UnauthorizedError(ServerError):
    """The server refused the credential (401)."""


class WorkspaceGoneError(ServerError):
    """The workspace does not exist any more, or is not ours."""


class RuntimeGoneError(ServerError):
    """The server does not know this runtime any more."""


class TaskGoneError(ServerError):
    """The server does not know this task any more."""


class PermanentError(ServerError):
    """The server refused this request and would refuse it again."""


def from_status(method: str, path: str, status: int, body: str) -> ServerError:
    """The error for an HTTP status of 400 and above."""
    lowered = body.lower()
    kind: type[ServerError] = PermanentError
    if status == 401:
        kind = UnauthorizedError
    elif status >= 500 or status in (408, 429):
        kind = TransientError
    elif status == 404 and "workspace not found" in lowered:
        kind = WorkspaceGoneError
    elif status == 404 and "runtime not found" in lowered:
        kind = RuntimeGoneError
    elif status == 404 and "task not found" in lowered:
        kind = TaskGoneError
    return kind(method, path, status, body)
