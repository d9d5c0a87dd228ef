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


class PlanEntry(msgspec.Struct, frozen=True):
    """One line of a plan or to-do list. ``status``: ``pending``, ``in_progress`` or ``completed``."""

    text: str
    status: str = "pending"


class PlanChanged(Event, frozen=True, tag="plan"):
    """The agent's whole plan or to-do list as it is now; replaces the one before."""

    entries: tuple[PlanEntry, ...]


class UsageSeen(Event, frozen=True, tag="usage"):
    """What the run has used so far, by model; cumulative over this run alone, replaces what was told before.
    For show while it runs: the result's usage is the outcome's."""

    usage: tuple[Usage, ...]


class PermissionRequest(Event, frozen=True, tag="permission"):
    """The agent asks before it does something (kind ``permission``), or asks the user something (kind
    ``question``), and waits for ``Reader.answer``. Ids are unique within a run."""

    request_id: str
    tool: str
    input: Any = None
    kind: str = "permission"
    title: str = ""
    """One line for people, where the agent gives one."""
    options: tuple[str, ...] = ()
    """For a question: the answers it offers; free text is possible where empty."""


class PermissionSettled(Event, frozen=True, tag="permission_settled"):
    """A request is open no more: answered, or withdrawn by the agent (its turn ended, say)."""

    request_id: str
    decision: str
    """``allow``, ``allow-task``, ``deny`` or ``withdrawn``."""


class TurnEnded(Event, frozen=True, tag="turn_ended"):
    """The agent's own terminal line. Whether the run succeeded is decided by the reader's ``outcome``."""

    success: bool
    text: str = ""
    error: str = ""


class Limit(msgspec.Struct, frozen=True):
    """The account's limit that a run has met. ``resets_at`` is RFC 3339 in UTC, empty where nobody said."""

    kind: str
    """``usage`` (a plan's quota of hours or days) or ``rate`` (too many requests just now)."""
    resets_at: str = ""


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
    limit: Limit | None = None
    """Set where a limit of the account ended the run, so that it can go on when that has reset."""
