"""The family "qwen-stream-json": ``-o stream-json`` of Qwen Code, whose lines are like Claude Code's.

Rules, each learned from the real program (0.24.4, and 0.15.10 where said):

- The prompt goes to standard input, which is closed. ``QWEN_CODE_NO_RELAUNCH`` keeps it one process.
- A request to the model that failed is told twice: as a text of the model that begins with ``[API Error:``,
  and as a result with ``is_error``. Versions below 0.20 tell it only as the text, in a "successful" result.
- The tokens of a result are those of the whole session, also of runs before this one: those of the messages
  are added up instead. ``input_tokens`` includes what came from the cache.
- Between tries of a refused request it waits for minutes; ``system/retry`` lines say so.
- Without ``--yolo`` it does not even offer the tools that would have to be asked for.
- An MCP server at an address is ``httpUrl``; its tools are found by a search.
- A session is found only from the directory that it was made in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from daemon_core.agents import events as ev
from daemon_core.agents.events import Event
from daemon_core.agents.family import LaunchPlan, LaunchRequest, Reader
from daemon_core.agents.gemini import BLOCKED_ARGS as GEMINI_BLOCKED
from daemon_core.agents.jsonl import (
    Counts,
    JsonReader,
    State,
    a_count,
    a_dict,
    a_list,
    a_number,
    a_text,
    output_text,
)
from daemon_core.agents.launching import (
    allowed_args,
    check_mode,
    chosen,
    mcp_servers,
    prompt_bytes,
    settings_form,
    warn_without_mcp,
)
from daemon_core.agents.verdicts import Said
from daemon_core.protocol import failures

FAMILY_NAME: Final = "qwen-stream-json"
MCP_FILE: Final = "spec.mcp.json"

BLOCKED_ARGS: Final = GEMINI_BLOCKED | {
    "--mcp-config": "1",
    "--safe-mode": "0",
    "--core-tools": "*",
    "-c": "0",
    "--continue": "0",
    "--include-partial-messages": "0",
}

_FAILED: Final = re.compile(r"\s*\[API Error:\s*(?P<text>.*?)\]?\s*(?:\n|$)", re.DOTALL)
_STATUS: Final = re.compile(r"(?<!\d)([45]\d\d)(?!\d)")


class QwenFamily:
    """Starts and reads Qwen Code."""

    name = FAMILY_NAME
    cut_by_time = False

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say how to start it. Raises ``LaunchError`` for a policy that it cannot follow."""
        drive = request.drive
        allow = check_mode(request, "allow", "deny")
        warnings: list[str] = []
        extra, dropped = allowed_args(request.extra_args, drive.blocked, BLOCKED_ARGS)
        argv = [request.executable, *drive.args, *extra, "-o", "stream-json"]
        argv += ["--yolo"] if allow else ["--approval-mode", "default"]
        argv += chosen(request, warnings)
        files: dict[str, bytes] = {}
        if drive.mcp:
            servers = mcp_servers(request, warnings)
            if servers:
                files[MCP_FILE] = msgspec.json.encode({"mcpServers": settings_form(servers, trust=allow)})
                argv += [drive.mcp, os.path.join(request.run_dir, MCP_FILE)]
        else:
            warn_without_mcp(request, warnings)
        return LaunchPlan(
            argv=tuple(argv),
            env=dict(drive.env),
            drop_env=drive.drop_env,
            files=files,
            stdin=prompt_bytes(request),
            dropped_args=dropped,
            warnings=tuple(warnings),
        )

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A new reader. Raises ``ValueError`` for a snapshot that is none."""
        return QwenReader(request, snapshot)


class QwenReader(JsonReader[State]):
    """Reads the output of one run. See ``family.Reader``."""

    provider = "qwen"
    state_type = State
    exit_reasons: ClassVar[Mapping[int, str]] = {53: failures.ITERATION_LIMIT}

    def line(self, line: dict[str, Any], found: list[Event]) -> None:
        if line.get("subtype") != "init":
            self.session(a_text(line.get("session_id")), found)
        match line.get("type"):
            case "system":
                self._system(line, found)
            case "assistant":
                self._assistant(line, found)
            case "user":
                for part in a_list(a_dict(line.get("message")).get("content")):
                    if isinstance(part, dict) and part.get("type") == "tool_result":
                        self._tool_result(part, found)
            case "result":
                self._result(line, found)

    def _system(self, line: dict[str, Any], found: list[Event]) -> None:
        subtype = line.get("subtype")
        if subtype == "init":
            self.session(a_text(line.get("session_id")), found, a_text(line.get("model")))
            for server in a_list(line.get("mcp_servers")):
                status = a_text(a_dict(server).get("status"))
                if status in ("disconnected", "failed"):
                    name = a_text(a_dict(server).get("name"))[:200]
                    found.append(ev.Notice(f"MCP server {name}: {status}", "mcp_server_failed"))
        elif subtype == "retry":
            self.settle(found)
            told = a_dict(line.get("data"))
            text = f"the model's server refuses; try {a_count(told.get('attempt'))}"
            text += f" of {a_count(told.get('maxRetries'))}"
            wait_s = a_number(told.get("delayMs")) / 1000
            found.append(ev.Notice(f"{text} in {wait_s:.0f} s" if wait_s else text, "api_retry"))

    def _assistant(self, line: dict[str, Any], found: list[Event]) -> None:
        message = a_dict(line.get("message"))
        content = message.get("content")
        for part in a_list(content) if not isinstance(content, str) else [{"type": "text", "text": content}]:
            fields = a_dict(part)
            match fields.get("type"):
                case "text":
                    text = a_text(fields.get("text"))
                    failed = _FAILED.match(text)
                    if failed is None:
                        if text.strip():
                            self.state.end = ""  # it goes on: what went wrong before did not end it
                        self.text(text, found)
                    else:
                        self._request_failed(failed["text"], found)
                case "thinking":
                    self.text(a_text(fields.get("thinking")), found, kind="thinking")
                case "tool_use":
                    self.state.end = ""
                    call_id, name = a_text(fields.get("id")), a_text(fields.get("name"))
                    self.tool_begins(call_id, name, fields.get("input"), found)
        usage = a_dict(message.get("usage"))
        cached = a_count(usage.get("cache_read_input_tokens"))
        counts = Counts(
            input=max(0, a_count(usage.get("input_tokens")) - cached),
            output=a_count(usage.get("output_tokens")),
            cache_read=cached,
            cache_write=a_count(usage.get("cache_creation_input_tokens")),
        )
        if counts != Counts():
            self.used(a_text(message.get("model")), counts, found)

    def _tool_result(self, part: dict[str, Any], found: list[Event]) -> None:
        failed = part.get("is_error") is True
        call_id = a_text(part.get("tool_use_id"))
        self.tool_ends(call_id, output_text(part.get("content")), found, is_error=failed)

    def _request_failed(self, text: str, found: list[Event]) -> None:
        status = _STATUS.search(text[:200])
        self.fails(text, found, status=int(status[1]) if status is not None else 0)

    def _result(self, line: dict[str, Any], found: list[Event]) -> None:
        state = self.state
        if state.end == "error" and state.error:
            # Already told, in a text of the model; an old version calls it a success.
            self.turn_ends(False, found)
            return
        if line.get("subtype") == "success" and line.get("is_error") is False:
            result = a_text(line.get("result"))
            failed = _FAILED.match(result)
            if failed is None:
                state.answer = result or state.answer
                self.turn_ends(True, found)
                return
            self._request_failed(failed["text"], found)
        else:
            error = line.get("error")
            text = a_text(a_dict(error).get("message")) or a_text(error) or a_text(line.get("result"))
            text = text or f"the agent ended its turn with {a_text(line.get('subtype')) or 'an error'}"
            failed = _FAILED.match(text)
            self._request_failed(failed["text"] if failed is not None else text, found)
            if line.get("subtype") == "error_max_turns":
                state.reason = failures.ITERATION_LIMIT
        self.turn_ends(False, found)

    def said(self, exit_code: int | None) -> Said:
        said = super().said(exit_code)
        if said.end == "error" and exit_code == 53:
            said.reason = failures.ITERATION_LIMIT
        return said
