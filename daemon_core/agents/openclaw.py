"""The family "openclaw-json": ``agent --local --json`` of OpenClaw, which prints one document at its end.

Nobody here has run it; this is what others who drive it have found:

- The prompt is an argument. The session's id is the caller's choice, also of a new one; the "model" is one of
  the registered agents.
- The document has ``payloads`` (the answer's texts) and ``meta`` with the session, the model and the tokens.
  It may take many lines, and lines of a log may come before it.
- It asks nobody for permission and takes no MCP servers.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from daemon_core.agents import events as ev
from daemon_core.agents.events import Event
from daemon_core.agents.family import LaunchPlan, LaunchRequest, Reader
from daemon_core.agents.jsonl import (
    ID_LIMIT_CHARS,
    Counts,
    JsonReader,
    State,
    a_count,
    a_dict,
    a_list,
    a_text,
    decoded,
)
from daemon_core.agents.launching import (
    allowed_args,
    check_mode,
    option,
    prompt_argument,
    warn_without_mcp,
)
from daemon_core.agents.lines import raw_text
from daemon_core.protocol import failures

FAMILY_NAME: Final = "openclaw-json"
DOCUMENT_LIMIT_BYTES: Final = 32 * 1024 * 1024
"""A longer document is not understood any more."""
STARTS_LIMIT: Final = 200
"""So many beginnings of objects are tried: lines of a log may hold some."""

BLOCKED_ARGS: Final = {
    "--local": "0",
    "--json": "0",
    "--session-id": "1",
    "--session-key": "1",
    "--message": "1",
    "-m": "1",
    "--model": "1",
    "--agent": "1",
    "--system-prompt": "1",
    "--deliver": "0",
    "--to": "1",
    "-t": "1",
}
_SESSIONS: Final = uuid.UUID("6f6cbd8e-95a7-4b6e-a1a8-5a52a0a3c0de")


class OpenclawFamily:
    """Starts and reads OpenClaw."""

    name = FAMILY_NAME
    cut_by_time = False

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say how to start it. Raises ``LaunchError`` for a policy or a prompt that it cannot take."""
        drive = request.drive
        check_mode(request, "allow")
        warnings: list[str] = []
        extra, dropped = allowed_args(request.extra_args, drive.blocked, BLOCKED_ARGS)
        argv = [request.executable, *drive.args, *extra]
        argv += option(drive.resume, _session_id(request), "earlier session", warnings)
        argv += option(drive.model, request.model, "model", warnings)
        argv += option(drive.thinking, request.thinking_level, "thinking level", warnings)
        argv.append(f"--message={prompt_argument(request)}")
        warn_without_mcp(request, warnings)
        return LaunchPlan(
            argv=tuple(argv),
            env=dict(drive.env),
            drop_env=drive.drop_env,
            dropped_args=dropped,
            warnings=tuple(warnings),
        )

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A new reader. Raises ``ValueError`` for a snapshot that is none."""
        return OpenclawReader(request, snapshot)


class OpenclawState(State, kw_only=True):
    """
    Attributes:
        given_id: The session's id that the program was started with.
        overlong: Whether the document was longer than the limit; the rest is dropped.
    """

    given_id: str = ""
    overlong: bool = False


class OpenclawReader(JsonReader[OpenclawState]):
    """Reads the output of one run. See ``family.Reader``. Nothing of a document is consumed before its end,
    so a reader that is restored is fed all of it again."""

    provider = "openclaw"
    state_type = OpenclawState

    def __init__(
        self,
        request: LaunchRequest | None = None,
        snapshot: bytes | None = None,
        *,
        limit_bytes: int = DOCUMENT_LIMIT_BYTES,
    ) -> None:
        super().__init__(request, snapshot)
        self._limit = limit_bytes
        self._held = bytearray()

    def begin(self, request: LaunchRequest | None) -> None:
        """There is no standard input."""
        if request is not None:
            self.state.given_id = _session_id(request)

    def line(self, line: dict[str, Any], found: list[Event]) -> None:
        """There are none; see ``finish``."""

    @property
    def consumed(self) -> int:
        return self.state.consumed

    def snapshot(self) -> bytes:
        return msgspec.json.encode(self.state)

    def feed(self, data: bytes) -> Sequence[Event]:
        state = self.state
        if state.overlong:
            state.consumed += len(data)
            return ()
        self._held += data
        if len(self._held) <= self._limit:
            return ()
        head = bytes(self._held[: self._limit])
        state.overlong = True
        state.consumed += len(self._held)
        self._held = bytearray()
        return [ev.Unreadable(raw_text(head), "the document is too long")]

    def finish(self) -> Sequence[Event]:
        state = self.state
        found: list[Event] = []
        data = bytes(self._held)
        state.consumed += len(data)
        self._held = bytearray()
        document = document_in(data)
        if document is not None:
            self._document(document, found)
        elif data.strip():
            found.append(ev.Unreadable(raw_text(data), "no document of the protocol"))
            state.reason = failures.AGENT_EMPTY
        return found

    def _document(self, document: dict[str, Any], found: list[Event]) -> None:
        state = self.state
        meta = a_dict(document.get("meta"))
        agent = a_dict(meta.get("agentMeta"))
        session = a_text(agent.get("sessionId")) or state.given_id
        self.session(session, found, a_text(agent.get("model")))
        for each in a_list(document.get("payloads")):
            payload = a_dict(each)
            text = a_text(payload.get("text"))
            if payload.get("isError") is True:
                self.fails(text, found)
            elif text:
                self.text(text if not state.answer else f"\n{text}", found)
        usage = a_dict(agent.get("usage"))
        counts = Counts(
            input=a_count(usage.get("input")),
            output=a_count(usage.get("output")),
            cache_read=a_count(usage.get("cacheRead")),
            cache_write=a_count(usage.get("cacheWrite")),
        )
        if counts != Counts():
            self.used("", counts, found)
        error = a_dict(meta.get("error"))
        if meta.get("aborted") is True or error:
            text = a_text(error.get("message")) or "the agent was aborted"
            self.fails(text, found)
        elif not state.end and not state.answer.strip():
            self.fails("the agent returned empty output", found)
        self.turn_ends(state.end != "error", found)


def document_in(data: bytes) -> dict[str, Any] | None:
    """The document in an output that may have other lines before it; None if there is none."""
    whole = decoded(data)
    if whole is not None and _is_document(whole):
        return whole
    text = data.decode("utf-8", "replace")
    reader = json.JSONDecoder()
    at = text.find("{")
    for _ in range(STARTS_LIMIT):
        if at < 0:
            return None
        try:
            found, _end = reader.raw_decode(text, at)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and _is_document(found):
            # Once more by the way that mends what has no UTF-8 form.
            return decoded(json.dumps(found).encode())
        at = text.find("{", at + 1)
    return None


def _is_document(found: dict[str, Any]) -> bool:
    return isinstance(found.get("payloads"), list) or isinstance(found.get("meta"), dict)


def _session_id(request: LaunchRequest) -> str:
    """The session to resume, or a new one's id, which is the same for the same run."""
    new = str(uuid.uuid5(_SESSIONS, os.path.basename(request.run_dir.rstrip("/"))))
    return request.resume_session_id[:ID_LIMIT_CHARS] or new
