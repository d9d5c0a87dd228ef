"""The family "gemini-stream-json": ``-o stream-json`` of the Gemini CLI.

Rules, each learned from the real program (0.61.0):

- The prompt goes to standard input, which is closed.
- It is a launcher that starts itself again and ignores signals; ``GEMINI_CLI_NO_RELAUNCH`` keeps it one
  process.
- After SIGTERM it exits with 0 and without a result: only a ``result`` with ``status: success`` is a success.
- A request to the model that failed is a ``result`` with ``status: error``; the exit code is the HTTP status
  modulo 256. To the words of a 429 it adds advice of its own, in which the word quota means nothing.
- Tokens are those of this run, by model; ``input`` is without what came from the cache, and thoughts are only
  in the total.
- Thoughts are not told here. Without ``--yolo`` it does not even offer the tools that would have to be asked
  for.
- MCP servers come only from its settings files: those of the system must belong to root, the others are the
  user's and the project's. So none can be given to a run; Ostler's own are in a directory that is Ostler's
  (such a file may name variables of the environment, so that it holds no secret).
- A session is found only from the directory that it was made in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from daemon_core.agents import events as ev
from daemon_core.agents.events import Event
from daemon_core.agents.family import LaunchPlan, LaunchRequest, Reader
from daemon_core.agents.jsonl import (
    Counts,
    JsonReader,
    State,
    a_count,
    a_dict,
    a_text,
    output_text,
)
from daemon_core.agents.launching import allowed_args, check_mode, chosen, prompt_bytes, warn_without_mcp
from daemon_core.agents.verdicts import Said
from daemon_core.protocol import failures

FAMILY_NAME: Final = "gemini-stream-json"

BLOCKED_ARGS: Final = {
    "-p": "1",
    "--prompt": "1",
    "-i": "1",
    "--prompt-interactive": "1",
    "-o": "1",
    "--output-format": "1",
    "--input-format": "1",
    "-y": "0",
    "--yolo": "0",
    "--approval-mode": "1",
    "-m": "1",
    "--model": "1",
    "-r": "?",
    "--resume": "?",
    "--session-id": "1",
    "--session-file": "1",
    "--list-sessions": "0",
    "--delete-session": "1",
    "--acp": "0",
    "--experimental-acp": "0",
    "-w": "?",
    "--worktree": "?",
    "-l": "0",
    "--list-extensions": "0",
    "-h": "0",
    "--help": "0",
    "-v": "0",
    "--version": "0",
}

_ADVICE: Final = re.compile(r"Please wait and try again later\.|Possible quota limitations")
_STATUS: Final = re.compile(r'"code"\s*:\s*([45]\d\d)\b|\bstatus(?: code)?:? ([45]\d\d)\b|Error: ([45]\d\d) ')
_LEAST_STATUS: Final = 400


class GeminiFamily:
    """Starts and reads the Gemini CLI."""

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
        return GeminiReader(request, snapshot)


class GeminiReader(JsonReader[State]):
    """Reads the output of one run. See ``family.Reader``."""

    provider = "gemini"
    state_type = State
    exit_reasons: ClassVar[Mapping[int, str]] = {
        41: failures.AGENT_AUTH,
        44: failures.AGENT_CONFIG,
        52: failures.AGENT_CONFIG,
        53: failures.ITERATION_LIMIT,
        55: failures.AGENT_CONFIG,
    }

    def line(self, line: dict[str, Any], found: list[Event]) -> None:
        match line.get("type"):
            case "init":
                self.session(a_text(line.get("session_id")), found, a_text(line.get("model")))
            case "message":
                if line.get("role") == "assistant":
                    self.piece("text", a_text(line.get("content")), found)
                    if line.get("delta") is not True:
                        self.settle(found)
            case "tool_use":
                tool = a_text(line.get("tool_name"))
                self.tool_begins(a_text(line.get("tool_id")), tool, line.get("parameters"), found)
            case "tool_result":
                self._tool_ends(line, found)
            case "error":
                self._error(line, found)
            case "result":
                self._result(line, found)

    def _tool_ends(self, line: dict[str, Any], found: list[Event]) -> None:
        failed = line.get("status") == "error"
        output = output_text(line.get("output"))
        if failed and not output:
            output = a_text(a_dict(line.get("error")).get("message"))
        self.tool_ends(a_text(line.get("tool_id")), output, found, is_error=failed)

    def _error(self, line: dict[str, Any], found: list[Event]) -> None:
        """Said in mid-run; the result tells whether it was the end."""
        self.settle(found)
        text = a_text(line.get("message"))
        if line.get("severity") == "warning":
            found.append(ev.Notice(text, "warning"))
        elif text:
            self.state.error = text
            found.append(ev.ErrorText(text))

    def _result(self, line: dict[str, Any], found: list[Event]) -> None:
        stats = a_dict(line.get("stats"))
        models = a_dict(stats.get("models"))
        for model, told in models.items():
            self.used(model, _counts(a_dict(told)), found, total=True)
        if line.get("status") == "success":
            self.turn_ends(True, found)
            return
        error = a_text(a_dict(line.get("error")).get("message"))
        status = _status_in(error)
        advice = _ADVICE.search(error)
        told = error if advice is None else error[: advice.start()].rstrip()
        self.fails(told, found, status=status)
        self.turn_ends(False, found)

    def said(self, exit_code: int | None) -> Said:
        said = super().said(exit_code)
        if said.end == "error" and not said.status and exit_code is not None:
            said.status = status_of_exit(exit_code)
        return said


def status_of_exit(exit_code: int) -> int:
    """The HTTP status of which an exit code is the rest; 0 for what can be none."""
    for status in (exit_code + 256, exit_code + 512):
        if _LEAST_STATUS <= status < 600 and 0 <= exit_code < 256:
            return status
    return 0


def _status_in(error: str) -> int:
    match = _STATUS.search(error)
    return int(next(group for group in match.groups() if group)) if match is not None else 0


def _counts(told: dict[str, Any]) -> Counts:
    whole, cached = a_count(told.get("input_tokens")), a_count(told.get("cached"))
    output = max(a_count(told.get("output_tokens")), a_count(told.get("total_tokens")) - whole)
    return Counts(input=max(0, whole - cached), output=output, cache_read=cached)
