"""What an agent says, whatever its protocol family: one typed stream of events.

A reader (``daemon_core.agents.family``) turns bytes of an agent's output into these; ``tasks`` turns them
into transcript lines, usage, session pins and the result.
"""

from __future__ import annotations

from typing import Any

import msgspec

from daemon_core.protocol.wire import Usage


class Event(msgspec.Struct, frozen=True, tag_field="event"):
    """Base of all events."""


class SessionStarted(Event, frozen=True, tag="session"):
    """The agent told its session id. May come more than once; the newest counts."""

    session_id: str
    model: str = ""


class Text(Event, frozen=True, tag="text"):
    text: str


class Thinking(Event, frozen=True, tag="thinking"):
    text: str


class ToolUse(Event, frozen=True, tag="tool_use"):
    """A tool call begins. ``call_id`` pairs it with its result."""

    call_id: str
    tool: str
    input: Any = None


class ToolResult(Event, frozen=True, tag="tool_result"):
    """A tool call ended. ``tool`` is its call's name also where the agent left it out."""

    call_id: str
    tool: str
    output: str
    is_error: bool = False


class Notice(Event, frozen=True, tag="notice"):
    """Something worth showing while it lasts (a retry, a warning); not part of the transcript."""

    text: str
    code: str = ""


class Unreadable(Event, frozen=True, tag="unreadable"):
    """Output that could not be understood, kept as it came (cut to a few kilobytes)."""

    raw: str
    why: str


class ErrorText(Event, frozen=True, tag="error"):
    """An error as the agent words it; becomes a transcript line."""

    text: str


class PermissionRequest(Event, frozen=True, tag="permission"):
    request_id: str
    tool: str
    input: Any = None


class TurnEnded(Event, frozen=True, tag="turn_ended"):
    """The agent's own terminal line. Whether the run succeeded is decided by the reader's ``outcome``."""

    success: bool
    text: str = ""
    error: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """What a run came to, decided once its process has ended. Fail closed: only an explicit success is one.

    ``reason`` is a failure reason of ``protocol.failures`` (empty on success). ``resume_refused`` says that
    the run failed because the session to resume does not exist any more, so that a fresh one may be tried.
    """

    success: bool
    output: str = ""
    error: str = ""
    reason: str = ""
    session_id: str = ""
    usage: tuple[Usage, ...] = ()
    resume_refused: bool = False
