"""The family "copilot-json": ``-p PROMPT --output-format json`` of the Copilot CLI.

Nobody here has run it; this is what others who drive it have found:

- The prompt is an argument; there is no other way.
- Lines are ``{"type": "dotted.name", "data": {…}}``. A message comes in pieces and then once more as a whole,
  with the tools that it calls; what the pieces have shown is not shown again.
- The last line is ``result``, with ``sessionId`` and ``exitCode`` beside its type.
"""

from __future__ import annotations

from typing import Any, Final

from daemon_core.agents import events as ev
from daemon_core.agents.events import Event
from daemon_core.agents.family import LaunchPlan, LaunchRequest, Reader
from daemon_core.agents.jsonl import (
    Counts,
    JsonReader,
    State,
    a_count,
    a_dict,
    a_list,
    a_text,
    output_text,
)
from daemon_core.agents.launching import (
    allowed_args,
    check_mode,
    chosen,
    prompt_argument,
    warn_without_mcp,
)

FAMILY_NAME: Final = "copilot-json"

BLOCKED_ARGS: Final = {
    "-p": "1",
    "--prompt": "1",
    "-i": "1",
    "--interactive": "1",
    "--output-format": "1",
    "--allow-all": "0",
    "--allow-all-tools": "0",
    "--allow-all-paths": "0",
    "--allow-all-urls": "0",
    "--allow-tool": "*",
    "--allow-url": "*",
    "--yolo": "0",
    "--no-ask-user": "0",
    "--model": "1",
    "--resume": "?",
    "--continue": "0",
    "--acp": "0",
}


class CopilotFamily:
    """Starts and reads the Copilot CLI."""

    name = FAMILY_NAME
    cut_by_time = False

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say how to start it. Raises ``LaunchError`` for a policy or a prompt that it cannot take."""
        drive = request.drive
        allow = check_mode(request, "allow", "deny")
        warnings: list[str] = []
        extra, dropped = allowed_args(request.extra_args, drive.blocked, BLOCKED_ARGS)
        argv = [request.executable, *drive.args, *extra, "-p", prompt_argument(request)]
        argv += ["--output-format", "json"]
        argv += ["--allow-all"] if allow else []
        argv += ["--no-ask-user"]
        argv += chosen(request, warnings)
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
        return CopilotReader(request, snapshot)


class CopilotState(State, kw_only=True):
    """
    Attributes:
        shown_chars: How much of the message that comes now its pieces have shown.
        thought_chars: The same of its reasoning.
        billed: Whether the program tells usage as such; else the messages' output tokens count.
    """

    shown_chars: int = 0
    thought_chars: int = 0
    billed: bool = False


class CopilotReader(JsonReader[CopilotState]):
    """Reads the output of one run. See ``family.Reader``."""

    provider = "copilot"
    state_type = CopilotState

    def begin(self, request: LaunchRequest | None) -> None:
        """There is no standard input."""

    def line(self, line: dict[str, Any], found: list[Event]) -> None:
        state = self.state
        data = a_dict(line.get("data"))
        match line.get("type"):
            case "session.start" | "session.resume":
                self.session(a_text(data.get("sessionId")), found, a_text(data.get("selectedModel")))
            case "session.model_change":
                state.model = a_text(data.get("newModel")) or state.model
            case "assistant.message_delta":
                text = a_text(data.get("deltaContent"))
                state.shown_chars += len(text)
                self.piece("text", text, found)
            case "assistant.reasoning_delta":
                text = a_text(data.get("deltaContent"))
                state.thought_chars += len(text)
                self.piece("thinking", text, found)
            case "assistant.reasoning":
                self._rest("thinking", a_text(data.get("content")), state.thought_chars, found)
                state.thought_chars = 0
            case "assistant.message":
                self._message(data, found)
            case "assistant.usage":
                self._usage(data, found)
            case "tool.execution_start":
                call_id = a_text(data.get("toolCallId"))
                if call_id not in state.calls:
                    self.tool_begins(call_id, a_text(data.get("toolName")), data.get("arguments"), found)
            case "tool.execution_complete":
                self._tool_ends(data, found)
            case "session.error":
                self.fails(a_text(data.get("message")), found, status=a_count(data.get("statusCode")))
            case "session.warning":
                self.settle(found)
                found.append(ev.Notice(a_text(data.get("message")), "warning"))
            case "result":
                self._result(line, found)

    def _rest(self, kind: str, whole: str, shown: int, found: list[Event]) -> None:
        """A whole text after its pieces: what they have not shown."""
        self.piece(kind, whole[shown:], found)
        self.settle(found)

    def _message(self, data: dict[str, Any], found: list[Event]) -> None:
        state = self.state
        state.end = ""  # it goes on: what went wrong before did not end it
        reasoning = a_text(data.get("reasoningText"))
        if reasoning and not state.shown_chars:
            self._rest("thinking", reasoning, state.thought_chars, found)
        self._rest("text", a_text(data.get("content")), state.shown_chars, found)
        state.shown_chars = state.thought_chars = 0
        output = a_count(data.get("outputTokens"))
        if output and not state.billed:
            self.used(state.model, Counts(output=output), found)
        for each in a_list(data.get("toolRequests")):
            tool = a_dict(each)
            call_id, name = a_text(tool.get("toolCallId")), a_text(tool.get("name"))
            self.tool_begins(call_id, name, tool.get("arguments"), found)

    def _usage(self, data: dict[str, Any], found: list[Event]) -> None:
        state = self.state
        if not state.billed:
            state.billed = True
            state.usage = {}
        cached = a_count(data.get("cacheReadTokens"))
        counts = Counts(
            input=max(0, a_count(data.get("inputTokens")) - cached),
            output=a_count(data.get("outputTokens")),
            cache_read=cached,
            cache_write=a_count(data.get("cacheWriteTokens")),
        )
        self.used(a_text(data.get("model")), counts, found)

    def _tool_ends(self, data: dict[str, Any], found: list[Event]) -> None:
        failed = data.get("success") is False
        output = output_text(data.get("result"))
        if failed:
            output = a_text(a_dict(data.get("error")).get("message")) or output
        self.tool_ends(a_text(data.get("toolCallId")), output, found, is_error=failed)

    def _result(self, line: dict[str, Any], found: list[Event]) -> None:
        self.session(a_text(line.get("sessionId")), found)
        code = line.get("exitCode", 0)
        if code == 0 and self.state.end != "error":
            self.turn_ends(True, found)
        else:
            self.turn_ends(False, found, error=self.state.error or f"the agent ended with exit status {code}")
