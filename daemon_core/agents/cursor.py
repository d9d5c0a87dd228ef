"""The family "cursor-json": ``-p --output-format stream-json`` of Cursor's agent.

Nobody here has run it; this is what its makers and others who drive it have written:

- The prompt goes to standard input.
- ``assistant`` lines are whole messages; ``thinking`` comes in pieces; a ``tool_call`` is ``started`` and
  ``completed``, with one member that is named after the tool and holds its arguments and its result. Older
  versions have ``tool_use`` and ``tool_result`` lines instead, and may put ``stdout:`` in front of a line.
- MCP servers come from the project's settings, and have to be approved of.
- ``result`` is the last line; ``is_error`` counts for more than the subtype.
"""

from __future__ import annotations

import re
from typing import Any, Final

from daemon_core.agents import cursor_mcp
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
    json_text,
    output_text,
)
from daemon_core.agents.launching import allowed_args, check_mode, chosen, prompt_bytes, warn_without_mcp

FAMILY_NAME: Final = "cursor-json"

BLOCKED_ARGS: Final = {
    "-p": "0",
    "--print": "0",
    "--output-format": "1",
    "--stream-partial-output": "0",
    "--yolo": "0",
    "-f": "0",
    "--force": "0",
    "--workspace": "1",
    "--model": "1",
    "-m": "1",
    "--resume": "?",
    "--continue": "0",
    "--approve-mcps": "0",
}

_PREFIX: Final = re.compile(rb"\A\s*(?:stdout|stderr)\s*[:=]?\s*", re.IGNORECASE)
_TOOL_SUFFIX: Final = "ToolCall"
_OUTPUTS: Final = ("content", "stdout", "interleavedOutput", "output", "message", "error", "reason")
_FAILURES: Final = ("error", "failure", "rejected", "timeout", "permissionDenied", "fileNotFound")


class CursorFamily:
    """Starts and reads Cursor's agent."""

    name = FAMILY_NAME
    cut_by_time = False

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say how to start it. Raises ``LaunchError`` for a policy that it cannot follow."""
        drive = request.drive
        allow = check_mode(request, "allow", "deny")
        warnings: list[str] = []
        extra, dropped = allowed_args(request.extra_args, drive.blocked, BLOCKED_ARGS)
        argv = [request.executable, *drive.args, *extra, "-p", "--output-format", "stream-json"]
        argv += ["--yolo"] if allow else []
        argv += ["--workspace", request.work_dir]
        argv += chosen(request, warnings)
        env = dict(drive.env)
        if cursor_mcp.FILE in request.settings_files:
            # Nobody is there to approve of them. Those of a file that is not ours are nobody's to approve.
            argv += ["--approve-mcps"] if allow else []
            env |= cursor_mcp.variables(request.mcp_servers or {})
        else:
            warn_without_mcp(request, warnings)
        return LaunchPlan(
            argv=tuple(argv),
            env=env,
            drop_env=drive.drop_env,
            stdin=prompt_bytes(request),
            dropped_args=dropped,
            warnings=tuple(warnings),
        )

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A new reader. Raises ``ValueError`` for a snapshot that is none."""
        return CursorReader(request, snapshot)


class CursorReader(JsonReader[State]):
    """Reads the output of one run. See ``family.Reader``."""

    provider = "cursor"
    state_type = State

    def trimmed(self, line: bytes) -> bytes:
        return line if line.startswith(b"{") else _PREFIX.sub(b"", line, count=1)

    def line(self, line: dict[str, Any], found: list[Event]) -> None:
        init = line.get("subtype") == "init"
        self.session(a_text(line.get("session_id")).strip(), found, a_text(line.get("model")) if init else "")
        match line.get("type"):
            case "system":
                if line.get("subtype") == "error":
                    self.fails(_error_in(line), found)
            case "assistant":
                self._assistant(a_dict(line.get("message")), found)
            case "thinking":
                self.piece("thinking", a_text(line.get("text")), found)
                if line.get("subtype") == "completed":
                    self.settle(found)
            case "tool_call":
                self._tool_call(line, found)
            case "tool_use":
                call_id, tool = a_text(line.get("tool_id")), a_text(line.get("tool_name"))
                self.tool_begins(call_id, tool, line.get("parameters"), found)
            case "tool_result":
                self.tool_ends(a_text(line.get("tool_id")), output_text(line.get("output")), found)
            case "error":
                self.fails(_error_in(line), found)
            case "result":
                self._result(line, found)

    def _assistant(self, message: dict[str, Any], found: list[Event]) -> None:
        self.state.end = ""  # it goes on: what went wrong before did not end it
        for part in a_list(message.get("content")):
            fields = a_dict(part)
            match fields.get("type"):
                case "text" | "output_text":
                    self.text(a_text(fields.get("text")), found)
                case "thinking":
                    text = a_text(fields.get("thinking")) or a_text(fields.get("text"))
                    self.text(text, found, kind="thinking")
                case "tool_use":
                    call_id, tool = a_text(fields.get("id")), a_text(fields.get("name"))
                    self.tool_begins(call_id, tool, fields.get("input"), found)

    def _tool_call(self, line: dict[str, Any], found: list[Event]) -> None:
        call_id = a_text(line.get("call_id"))
        name, told = next(iter(a_dict(line.get("tool_call")).items()), ("tool", None))
        fields = a_dict(told)
        tool = name.removesuffix(_TOOL_SUFFIX)
        if name == "function":
            tool = a_text(fields.get("name"))
        if line.get("subtype") == "started":
            given = fields.get("args") if "args" in fields else fields.get("arguments")
            self.tool_begins(call_id, tool, given, found)
        elif line.get("subtype") == "completed":
            output, failed = _result_of(fields.get("result"))
            self.tool_ends(call_id, output, found, is_error=failed, tool=tool)

    def _result(self, line: dict[str, Any], found: list[Event]) -> None:
        usage = a_dict(line.get("usage"))
        counts = Counts(
            input=a_count(usage.get("inputTokens")) or a_count(usage.get("input_tokens")),
            output=a_count(usage.get("outputTokens")) or a_count(usage.get("output_tokens")),
            cache_read=a_count(usage.get("cacheReadTokens")) or a_count(usage.get("cached_input_tokens")),
            cache_write=a_count(usage.get("cacheWriteTokens")),
        )
        if counts != Counts():
            self.used(a_text(line.get("model")), counts, found)
        if line.get("is_error") is not True and line.get("subtype") == "success":
            self.state.answer = self.state.answer or a_text(line.get("result"))
            self.turn_ends(True, found)
        else:
            self.fails(_error_in(line), found)
            self.turn_ends(False, found)


def _error_in(line: dict[str, Any]) -> str:
    for key in ("error", "message", "detail", "result"):
        value = line.get(key)
        text = a_text(value) or a_text(a_dict(value).get("message"))
        if text:
            return text
    return ""


def _result_of(result: Any) -> tuple[str, bool]:
    """A tool's output, and whether it failed. The result has one member, which tells how it went."""
    if not isinstance(result, dict):
        return output_text(result), False
    name, told = next(iter(result.items()), ("", None))
    failed = name in _FAILURES
    if isinstance(told, dict):
        texts = [told[key] for key in _OUTPUTS if isinstance(told.get(key), str) and told[key]]
        return (texts[0] if texts else json_text(told)), failed
    return output_text(told), failed
