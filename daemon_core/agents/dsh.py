"""The family "dsh": frames of JSON in both directions, one a line.

Nobody here has run it; this is what others who drive it have found:

- One ``execute`` frame on standard input begins the run: directory, prompt, session, model, MCP servers. A
  ``cancel`` frame ends it. Frames of other requests are not ours.
- A model is ``provider/id``, both percent-encoded.
- The ``result`` frame is the last word; ``resume_rejected`` says that the session is gone.
- Tokens are told request by request.
- It asks nobody for permission. MCP servers that send events (``sse``) are not for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from daemon_core.agents.events import Event
from daemon_core.agents.family import LaunchPlan, LaunchRequest, Reader, StdinWrite
from daemon_core.agents.jsonl import (
    ID_LIMIT_CHARS,
    Counts,
    JsonReader,
    State,
    a_count,
    a_dict,
    a_text,
    decoded,
)
from daemon_core.agents.launching import (
    McpServer,
    allowed_args,
    check_mode,
    mcp_servers,
    prompt_text,
    warn_without_mcp,
)
from daemon_core.agents.verdicts import Said

FAMILY_NAME: Final = "dsh"
MCP_FILE: Final = "spec.mcp.json"
VERSION: Final = 1


class DshFamily:
    """Starts, reads and cancels it."""

    name = FAMILY_NAME
    cut_by_time = False

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say how to start it. Raises ``LaunchError`` for a policy that it cannot follow."""
        drive = request.drive
        check_mode(request, "allow")
        warnings: list[str] = []
        extra, dropped = allowed_args(request.extra_args, drive.blocked)
        frame: dict[str, Any] = {
            "v": VERSION,
            "type": "execute",
            "request_id": _request_id(request),
            "cwd": request.work_dir,
            "prompt": prompt_text(request),
            "mcp_servers": [],
        }
        if request.resume_session_id:
            frame["resume_session_id"] = request.resume_session_id
        if request.model:
            provider, _, name = request.model.partition("/")
            if provider and name:
                frame["model"] = {"provider": unquote(provider), "id": unquote(name)}
            else:
                warnings.append(
                    f"the model {request.model!r} is left out: it is not of the form provider/model"
                )
        if request.thinking_level:
            frame["reasoning_effort"] = request.thinking_level
        files: dict[str, bytes] = {}
        if drive.mcp:
            servers = _servers(mcp_servers(request, warnings), warnings)
            if servers:
                frame["mcp_servers"] = servers
                # What is in such a file is taken out of the record of what was said when the run is over.
                files[MCP_FILE] = msgspec.json.encode(servers)
        else:
            warn_without_mcp(request, warnings)
        return LaunchPlan(
            argv=(request.executable, *drive.args, *extra),
            env=dict(drive.env),
            drop_env=drive.drop_env,
            files=files,
            stdin=_line(frame),
            dropped_args=dropped,
            warnings=tuple(warnings),
        )

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A new reader. Raises ``ValueError`` for a snapshot that is none."""
        return DshReader(request, snapshot)


class DshState(State, kw_only=True):
    """
    Attributes:
        request_id: Of the run's ``execute`` frame; empty: not known, any will do.
        refused: Whether the program has said that the session to resume is gone.
    """

    request_id: str = ""
    refused: bool = False


class DshReader(JsonReader[DshState]):
    """Reads the output of one run. See ``family.Reader``."""

    provider = "dsh"
    state_type = DshState

    def begin(self, request: LaunchRequest | None) -> None:
        """Standard input stays open: a ``cancel`` may have to be said."""
        if request is not None:
            self.state.request_id = _request_id(request)

    def line(self, line: dict[str, Any], found: list[Event]) -> None:
        state = self.state
        if line.get("v") != VERSION:
            self.fails(f"unsupported version of the protocol: {str(line.get('v'))[:100]}", found)
            return
        request_id = a_text(line.get("request_id"))[:ID_LIMIT_CHARS]
        if request_id and state.request_id and request_id != state.request_id:
            return
        state.request_id = state.request_id or request_id
        match line.get("type"):
            case "session":
                self.session(a_text(line.get("session_id")), found)
            case "text":
                self.piece("text", a_text(line.get("content")), found)
            case "thinking":
                self.piece("thinking", a_text(line.get("content")), found)
            case "tool_call":
                raw = a_text(line.get("arguments"))
                given = decoded(raw.encode("utf-8", "replace"))
                call_id, name = a_text(line.get("call_id")), a_text(line.get("name"))
                self.tool_begins(call_id, name, given if given is not None else {"raw": raw}, found)
            case "tool_result":
                failed = line.get("is_error") is True
                output, name = a_text(line.get("output")), a_text(line.get("name"))
                self.tool_ends(a_text(line.get("call_id")), output, found, is_error=failed, tool=name)
            case "usage":
                self._usage(line, found)
            case "protocol_error":
                self.fails(f"{a_text(line.get('code'))}: {a_text(line.get('message'))}".strip(": "), found)
                self.writes.close()
            case "result":
                self._result(line, found)

    def _usage(self, line: dict[str, Any], found: list[Event]) -> None:
        counts = Counts(
            input=a_count(line.get("input_tokens")),
            output=a_count(line.get("output_tokens")),
            cache_read=a_count(line.get("cache_read_tokens")),
            cache_write=a_count(line.get("cache_write_tokens")),
        )
        provider, model = a_text(line.get("provider")), a_text(line.get("model"))
        self.used(f"{provider}/{model}" if provider and model else model, counts, found)

    def _result(self, line: dict[str, Any], found: list[Event]) -> None:
        state = self.state
        self.session(a_text(line.get("session_id")), found)
        state.refused = line.get("resume_rejected") is True
        if line.get("status") == "completed":
            state.answer = a_text(line.get("output")) or state.answer
            self.turn_ends(True, found)
        else:
            error = a_dict(line.get("error"))
            text = f"{a_text(error.get('code'))}: {a_text(error.get('message'))}".strip(": ")
            status = a_text(line.get("status"))[:100] or "an error"
            self.fails(text or f"the agent ended its turn with {status}", found)
            self.turn_ends(False, found)
        self.writes.close()

    def interrupt(self) -> Sequence[StdinWrite]:
        """Ask for the end of the run, then close standard input."""
        if not self.writes.closed:
            self.writes.say(_line({"v": VERSION, "type": "cancel", "request_id": self.state.request_id}))
            self.writes.close()
        return self.writes.pending()

    def said(self, exit_code: int | None) -> Said:
        said = super().said(exit_code)
        said.refused = self.state.refused
        return said


def _request_id(request: LaunchRequest) -> str:
    return f"ostler-{os.path.basename(request.run_dir.rstrip('/'))}"


def _line(frame: dict[str, Any]) -> bytes:
    return msgspec.json.encode(frame) + b"\n"


def _servers(servers: Sequence[McpServer], warnings: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for server in servers:
        entry: dict[str, Any] = {"name": server.name}
        if server.kind == "sse":
            warnings.append(
                f"MCP server {server.name!r} is left out: this agent knows no servers of that kind"
            )
            continue
        if server.kind == "stdio":
            entry |= {
                "transport": "stdio",
                "command": server.command,
                "args": list(server.args),
                "env": server.env,
            }
        else:
            entry |= {"transport": "streamable-http", "url": server.url, "headers": server.headers}
        found.append(entry)
    return found
