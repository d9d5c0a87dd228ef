"""The family "pi-json": ``-p --mode json`` of Pi and of what was made of it.

Nobody here has run it; this is what its makers and others who drive it have written:

- The prompt goes to standard input.
- The first line is the header of the session, with its id; ``--session`` takes that (or the session's file).
- Texts come as pieces in ``message_update``; a line can hold the whole message so far, so lines are long.
- ``turn_end`` holds the message with its tokens and why it stopped; the end of all is ``agent_end``. One that
  stopped with ``error`` or ``aborted`` is no answer.
- It asks nobody for permission and has no MCP servers.
"""

from __future__ import annotations

from typing import Any, Final

from daemon_core.agents import events as ev
from daemon_core.agents.costs import dollars
from daemon_core.agents.events import Event
from daemon_core.agents.family import LaunchPlan, LaunchRequest, Reader
from daemon_core.agents.jsonl import (
    Counts,
    JsonReader,
    State,
    a_count,
    a_dict,
    a_number,
    a_text,
    output_text,
)
from daemon_core.agents.launching import allowed_args, check_mode, option, prompt_bytes, warn_without_mcp

FAMILY_NAME: Final = "pi-json"

BLOCKED_ARGS: Final = {
    "-p": "0",
    "--print": "0",
    "--mode": "1",
    "--session": "1",
    "--no-session": "0",
    "-c": "0",
    "--continue": "0",
    "-r": "0",
    "--resume": "0",
    "--fork": "1",
    "--model": "1",
    "--thinking": "1",
}


class PiFamily:
    """Starts and reads Pi."""

    name = FAMILY_NAME
    cut_by_time = False

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say how to start it. Raises ``LaunchError`` for a policy that it cannot follow."""
        drive = request.drive
        check_mode(request, "allow")
        warnings: list[str] = []
        extra, dropped = allowed_args(request.extra_args, drive.blocked, BLOCKED_ARGS)
        argv = [request.executable, *drive.args, *extra, "-p", "--mode", "json"]
        argv += option(drive.resume, request.resume_session_id, "earlier session", warnings)
        argv += option(drive.model, request.model, "model", warnings)
        argv += option(drive.thinking, request.thinking_level, "thinking level", warnings)
        warn_without_mcp(request, warnings)
        return LaunchPlan(
            argv=tuple(argv),
            env=dict(drive.env),
            drop_env=drive.drop_env,
            stdin=prompt_bytes(request),
            dropped_args=dropped,
            warnings=tuple(warnings),
        )

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A new reader. Raises ``ValueError`` for a snapshot that is none."""
        return PiReader(request, snapshot)


class PiState(State, kw_only=True):
    """
    Attributes:
        stopped: Why the newest message of the model stopped.
    """

    stopped: str = ""


class PiReader(JsonReader[PiState]):
    """Reads the output of one run. See ``family.Reader``."""

    provider = "pi"
    state_type = PiState

    def line(self, line: dict[str, Any], found: list[Event]) -> None:
        match line.get("type"):
            case "session":
                self.session(a_text(line.get("id")), found)
            case "message_update":
                told = a_dict(line.get("assistantMessageEvent"))
                if told.get("type") == "text_delta":
                    self.piece("text", a_text(told.get("delta")), found)
                elif told.get("type") == "thinking_delta":
                    self.piece("thinking", a_text(told.get("delta")), found)
            case "message_end":
                self.settle(found)
            case "tool_execution_start":
                call_id, tool = a_text(line.get("toolCallId")), a_text(line.get("toolName"))
                self.tool_begins(call_id, tool, line.get("args"), found)
            case "tool_execution_end":
                failed = line.get("isError") is True
                output = output_text(line.get("result"))
                tool = a_text(line.get("toolName"))
                self.tool_ends(a_text(line.get("toolCallId")), output, found, is_error=failed, tool=tool)
            case "turn_end":
                self._turn_ends(a_dict(line.get("message")), found)
            case "auto_retry_start":
                self.settle(found)
                tries = f"try {a_count(line.get('attempt'))} of {a_count(line.get('maxAttempts'))}"
                wait_s = a_number(line.get("delayMs")) / 1000
                found.append(
                    ev.Notice(f"{a_text(line.get('errorMessage'))[:500]} ({tries}, in {wait_s:.0f} s)")
                )
            case "auto_retry_end":
                if line.get("success") is not True:
                    text = a_text(line.get("finalError")) or "the agent has given up trying again"
                    self.fails(text, found)
            case "error":
                message = line.get("message")
                self.fails(a_text(message) or output_text(message) or a_text(line.get("error")), found)
            case "agent_start":
                self.state.end = ""
            case "agent_end":
                if self.state.end != "error" and self.state.stopped in ("stop", "end_turn"):
                    self.turn_ends(True, found)

    def _turn_ends(self, message: dict[str, Any], found: list[Event]) -> None:
        self.settle(found)
        usage = a_dict(message.get("usage"))
        counts = Counts(
            input=a_count(usage.get("input")),
            output=a_count(usage.get("output")),
            cache_read=a_count(usage.get("cacheRead")),
            cache_write=a_count(usage.get("cacheWrite")),
            cost=dollars(a_dict(usage.get("cost")).get("total")) or 0.0,
        )
        if counts != Counts():
            self.used(a_text(message.get("model")), counts, found)
        self.state.stopped = a_text(message.get("stopReason")) or "stop"
        if self.state.stopped in ("error", "aborted"):
            text = a_text(message.get("errorMessage"))
            self.fails(text or f"the model's answer was {self.state.stopped}", found)
        else:
            self.state.end = ""  # it goes on: what went wrong before did not end it

    def ended(self, found: list[Event]) -> None:
        if not self.state.end and self.state.stopped not in ("", "stop"):
            self.state.error = f"the model's answer ended with {self.state.stopped[:100]}"
