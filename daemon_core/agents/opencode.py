"""The family "opencode-json": ``run --format json`` of OpenCode and of what was made of it.

Rules, each learned from the real program (1.18.33):

- The prompt goes to standard input, which must be closed, or it waits for ever. (As arguments, several words
  reach the model with quotes around them; ``prompt = "argument"`` is for a program that has no other way.)
- A tool call is one line, written when the tool has *ended*.
- There is no last line: the end is a ``step_finish`` with the reason ``stop``. A stream that ends with an
  open or an empty step, or after ``tool-calls`` (a refused tool ends a run so, with exit code 0), has failed.
- Tokens are told step by step and added up; ``input`` is without what came from the cache, ``output`` without
  the reasoning. The model is not told.
- A signal ends it without a line, and its tools live on.
- A session of another directory is never to be resumed: it would run there, print nothing and never end.
- Requests that are refused for a while are tried again in silence.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

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
    json_text,
    output_text,
)
from daemon_core.agents.launching import (
    McpServer,
    allowed_args,
    check_mode,
    chosen,
    mcp_servers,
    prompt_argument,
    prompt_bytes,
    warn_without_mcp,
)
from daemon_core.protocol import failures

FAMILY_NAME: Final = "opencode-json"
PERMISSION_VARIABLE: Final = "OPENCODE_PERMISSION"

BLOCKED_ARGS: Final = {
    "--format": "1",
    "--dir": "1",
    "--variant": "1",
    "--auto": "0",
    "--dangerously-skip-permissions": "0",
    "--thinking": "0",
    "-m": "1",
    "--model": "1",
    "-s": "1",
    "--session": "1",
    "-c": "0",
    "--continue": "0",
    "--fork": "0",
    "--share": "0",
    "-f": "*",
    "--file": "*",
    "--attach": "1",
    "-i": "0",
    "--interactive": "0",
    "-h": "0",
    "--help": "0",
    "-v": "0",
    "--version": "0",
}

# Everything that changes something or reaches beyond the directory is refused.
_DENIED: Final = {
    "*": "deny",
    "read": "allow",
    "glob": "allow",
    "grep": "allow",
    "list": "allow",
    "todowrite": "allow",
    "todoread": "allow",
    "skill": "allow",
}

_REASONS: Final = {
    "ProviderAuthError": failures.AGENT_AUTH,
    "ContextOverflowError": failures.AGENT_CONTEXT,
    "ProviderModelNotFoundError": failures.AGENT_MODEL,
}


class OpencodeFamily:
    """Starts and reads OpenCode. Words of ``Drive.options``: ``prompt = "argument"``, ``allow`` (the option
    that allows everything), ``thinking = false`` (no ``--thinking``)."""

    name = FAMILY_NAME
    cut_by_time = False

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say how to start it. Raises ``LaunchError`` for a policy or a prompt that it cannot take."""
        drive = request.drive
        allow = check_mode(request, "allow", "deny")
        warnings: list[str] = []
        extra, dropped = allowed_args(request.extra_args, drive.blocked, BLOCKED_ARGS)
        argv = [request.executable, *drive.args, "run", *extra, "--format", "json"]
        env = {**drive.env, "PWD": request.work_dir}
        if allow:
            argv.append(str(drive.options.get("allow", "--auto")))
        else:
            env[PERMISSION_VARIABLE] = msgspec.json.encode(_DENIED).decode()
        if drive.options.get("thinking", True):
            argv.append("--thinking")
        argv += ["--dir", request.work_dir]
        argv += chosen(request, warnings)
        settings: dict[str, dict[str, object]] = {}
        if drive.mcp:
            servers = mcp_servers(request, warnings)
            if servers:
                # The variable may hold settings of the agent's already.
                settings[drive.mcp] = {"mcp": {server.name: _server(server) for server in servers}}
        else:
            warn_without_mcp(request, warnings)
        stdin = None
        if drive.options.get("prompt") == "argument":
            argv += ["--", prompt_argument(request)]
        else:
            stdin = prompt_bytes(request)
        return LaunchPlan(
            argv=tuple(argv),
            env=env,
            json_env=settings,
            drop_env=drive.drop_env,
            stdin=stdin,
            dropped_args=dropped,
            warnings=tuple(warnings),
        )

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A new reader. Raises ``ValueError`` for a snapshot that is none."""
        return OpencodeReader(request, snapshot)


class OpencodeState(State, kw_only=True):
    """
    Attributes:
        step_open: Whether a step has begun and not ended.
        step_said: Whether the step has said or done anything.
        last_reason: How the last step ended.
    """

    step_open: bool = False
    step_said: bool = False
    last_reason: str = ""


class OpencodeReader(JsonReader[OpencodeState]):
    """Reads the output of one run. See ``family.Reader``."""

    provider = "opencode"
    state_type = OpencodeState

    def line(self, line: dict[str, Any], found: list[Event]) -> None:
        state = self.state
        part = a_dict(line.get("part"))
        self.session(a_text(line.get("sessionID")), found)
        match line.get("type"):
            case "step_start":
                state.step_open, state.step_said, state.last_reason = True, False, ""
                # It goes on: what went wrong before did not end it.
                state.end = ""
            case "text":
                text = a_text(part.get("text"))
                state.step_said = state.step_said or bool(text.strip())
                self.text(text, found)
            case "reasoning":
                text = a_text(part.get("text"))
                state.step_said = state.step_said or bool(text.strip())
                self.text(text, found, kind="thinking")
            case "tool_use":
                state.step_said = True
                self._tool(part, found)
            case "step_finish":
                self._step_ends(part, found)
            case "error":
                self._error(a_dict(line.get("error")), found)

    def _tool(self, part: dict[str, Any], found: list[Event]) -> None:
        told = a_dict(part.get("state"))
        call_id = a_text(part.get("callID"))
        self.tool_begins(call_id, a_text(part.get("tool")), told.get("input"), found)
        failed = told.get("status") == "error"
        output = told.get("error") if failed else told.get("output")
        tool = a_text(part.get("tool"))
        self.tool_ends(call_id, output_text(output), found, is_error=failed, tool=tool)

    def _step_ends(self, part: dict[str, Any], found: list[Event]) -> None:
        state = self.state
        tokens = a_dict(part.get("tokens"))
        cache = a_dict(tokens.get("cache"))
        counts = Counts(
            input=a_count(tokens.get("input")),
            output=a_count(tokens.get("output")) + a_count(tokens.get("reasoning")),
            cache_read=a_count(cache.get("read")),
            cache_write=a_count(cache.get("write")),
            cost=dollars(part.get("cost")) or 0.0,
        )
        self.used(state.model, counts, found)
        state.step_open = False
        state.last_reason = a_text(part.get("reason")) or "an unknown reason"
        if state.last_reason == "stop" and state.step_said and state.end != "error":
            self.turn_ends(True, found)

    def _error(self, error: dict[str, Any], found: list[Event]) -> None:
        name, data = a_text(error.get("name")), a_dict(error.get("data"))
        text = a_text(data.get("message")) or a_text(error.get("message")) or name or json_text(error)
        body = a_text(data.get("responseBody"))
        status = a_count(data.get("statusCode"))
        headers = {key.lower(): value for key, value in a_dict(data.get("responseHeaders")).items()}
        reason = "" if status else _REASONS.get(name, "")
        if not reason and not status and "model" in text.lower() and "not found" in text.lower():
            reason = failures.AGENT_MODEL
        said = f"{text}: {body}" if status and body and not body.lstrip().startswith("<") else text
        self.state.retry_after_s = a_number(headers.get("retry-after"))
        self.fails(said, found, status=status, reason=reason)

    def ended(self, found: list[Event]) -> None:
        state = self.state
        if state.end:
            return
        if state.step_open:
            state.error = "its last step did not end"
        elif state.last_reason == "stop":
            state.error = "its last step is empty"
        elif state.last_reason == "tool-calls":
            state.error = "it ended after a tool call, without an answer"
        elif state.last_reason:
            state.error = f"its last step ended with {state.last_reason[:100]}"
            if state.last_reason == "length":
                state.error = "its answer was cut: the limit of output tokens is reached"


def _server(server: McpServer) -> dict[str, Any]:
    if server.kind == "stdio":
        command = [server.command, *server.args]
        return {"type": "local", "command": command, "environment": server.env, "enabled": True}
    return {"type": "remote", "url": server.url, "headers": server.headers, "enabled": True}
