"""The family "claude-stream-json": Claude Code in print mode, JSON lines in both directions.

Rules, each learned from the real program (2.1.197):

- The prompt is the first line of standard input, never an argument. Standard input must be a pipe. The
  program lives until its standard input is closed, so the reader closes it after a ``result``, unless it
  holds: then another line of standard input is another turn.
- Secrets and long texts never get into ``argv``, where every user of the machine can read them: MCP
  configuration and instructions are files of the run directory.
- One ``assistant`` line a content block; a tool's result comes in a ``user`` line, as a string or a list of
  parts.
- Usage is ``modelUsage`` of the newest result: it counts all turns of the process. The ``usage`` of a message
  repeats its beginning and is never added up.
- A failed request to the model is a result with ``subtype: success``: look at ``is_error``. A run is a
  success only with exit code 0 **and** a terminal line that says so explicitly **and** no turn begun after it
  **and** an output that is no poison.
- After SIGTERM it exits with 143 and without a result.
- An unknown session is told in the ``errors`` of a result (which may carry a fresh session id) or on stderr
  only.

- Under the policy "ask" it asks over its control protocol, also the questions of ``AskUserQuestion``; see
  ``claude_requests``.

What cannot be understood becomes ``Unreadable`` and the stream goes on; types that nobody knows are passed
over.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from daemon_core.agents import events as ev
from daemon_core.agents.claude_live import Live
from daemon_core.agents.claude_requests import QUESTION_TOOL, Asked, allowed, asked_of, denied
from daemon_core.agents.costs import dollars
from daemon_core.agents.ends import exit_text, signal_of
from daemon_core.agents.events import Event, Outcome
from daemon_core.agents.family import LaunchError, LaunchPlan, LaunchRequest, Reader, StdinWrite
from daemon_core.agents.launching import argument_text
from daemon_core.agents.lenient import understood
from daemon_core.agents.limits import limit_of
from daemon_core.agents.lines import LINE_LIMIT_BYTES, LineBuffer, OverlongLine, cut_output, raw_text
from daemon_core.agents.placeholders import filled
from daemon_core.agents.statuses import reason_of_status
from daemon_core.protocol import failures
from daemon_core.protocol.wire import Usage

FAMILY_NAME: Final = "claude-stream-json"

INSTRUCTIONS_OPTION: Final = "instructions"
"""``[drive.options]``: an option that takes the instructions as a text, where there is none for a file."""
DISALLOWED_OPTION: Final = "disallowed_tools"
"""``[drive.options]``: tools that need somebody to answer, where they are others."""

MCP_FILE: Final = "spec.mcp.json"
INSTRUCTIONS_FILE: Final = "spec.instructions.md"

# Inherited from a Claude Code session that the daemon (or its terminal) may have been started in; with
# them the child would think that it is part of that session.
DROPPED_ENV: Final = (
    "CLAUDECODE*",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_CODE_EXECPATH",
    "CLAUDE_CODE_SSE_PORT",
)

# Options of ours (or that end the program at once, or take the session elsewhere), with how many values they
# take: "?" is one that may be absent, "*" all up to the next option.
BLOCKED_ARGS: Final[Mapping[str, str]] = {
    "-p": "0",
    "--print": "0",
    "--input-format": "1",
    "--output-format": "1",
    "--permission-mode": "1",
    "--permission-prompt-tool": "1",
    "--dangerously-skip-permissions": "0",
    "--allow-dangerously-skip-permissions": "0",
    "--mcp-config": "*",
    "--strict-mcp-config": "0",
    "--effort": "1",
    "-r": "?",
    "--resume": "?",
    "-c": "0",
    "--continue": "0",
    "--from-pr": "?",
    "--fork-session": "0",
    "--session-id": "1",
    "--no-session-persistence": "0",
    "--replay-user-messages": "0",
    "--include-partial-messages": "0",
    "--remote-control": "?",
    "--bg": "0",
    "--background": "0",
    "--tmux": "0",
    "-w": "?",
    "--worktree": "?",
    "-v": "0",
    "--version": "0",
    "-h": "0",
    "--help": "0",
}

RESULT_LIMIT_BYTES: Final = 1024 * 1024
"""The final text is kept up to this; the transcript has all of it."""
ERROR_LIMIT_BYTES: Final = 16 * 1024
ID_LIMIT_CHARS: Final = 256
CALLS_LIMIT: Final = 256
"""Tool calls without a result that are remembered; the oldest are forgotten first."""
COUNT_LIMIT: Final = 2**53
REQUESTS_LIMIT: Final = 64
"""Requests that may be open at once; what comes above is refused."""

# terminal_reason of a turn that did not come to its own end, whatever else the line says.
_BAD_ENDS: Final = frozenset(
    {
        "prompt_too_long",
        "max_turns",
        "model_error",
        "image_error",
        "blocking_limit",
        "aborted_streaming",
        "aborted_tools",
    }
)
_REFUSED: Final = ("no conversation found", "--resume requires a valid session")


class ClaudeFamily:
    """Starts and reads Claude Code and programs that speak its protocol.

    Args:
        provider: The provider named in the usage.
    """

    name = FAMILY_NAME
    cut_by_time = False

    def __init__(self, provider: str = "claude") -> None:
        self._provider = provider

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say how to start the program. Raises ``LaunchError`` for a permission mode that it does not
        have.
        """
        drive = request.drive
        extra, dropped = allowed_args(request.extra_args, drive.blocked)
        # Ours come last: where an option can be given once, the last one counts.
        argv = [request.executable, *filled(drive.args, request), *extra, "-p"]
        argv += ["--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
        if request.permission_mode == "allow":
            argv += ["--permission-mode", "bypassPermissions"]
        elif request.permission_mode in ("ask", "deny"):
            # Without somebody to ask, the program refuses in silence; this way the reader answers and shows
            # it.
            argv += ["--permission-mode", "default", "--permission-prompt-tool", "stdio"]
        else:
            raise LaunchError(
                f"permission mode {request.permission_mode!r} is not supported", failures.AGENT_CONFIG
            )
        argv += _option(drive.model or "--model", request.model)
        argv += _option(drive.thinking or "--effort", request.thinking_level)
        argv += _option(drive.resume or "--resume", request.resume_session_id)
        files: dict[str, bytes] = {}
        if request.mcp_servers is not None or request.added_mcp_servers:
            servers = {**(request.mcp_servers or {}), **request.added_mcp_servers}
            files[MCP_FILE] = msgspec.json.encode({"mcpServers": servers})
            # Without servers of the task, the program's own stay beside ours.
            argv += [] if request.mcp_servers is None else ["--strict-mcp-config"]
            argv += ["--mcp-config", os.path.join(request.run_dir, MCP_FILE)]
        way = drive.options.get(INSTRUCTIONS_OPTION)
        if request.instructions and isinstance(way, str) and way:
            argv += _option(way, argument_text(request.instructions, "brief"))
        elif request.instructions:
            files[INSTRUCTIONS_FILE] = request.instructions.encode("utf-8", "replace")
            argv += ["--append-system-prompt-file", os.path.join(request.run_dir, INSTRUCTIONS_FILE)]
        if request.permission_mode != "ask":
            # Nobody is there to answer its questions.
            tools = drive.options.get(DISALLOWED_OPTION, ())
            argv += [
                "--disallowedTools",
                *(tools if isinstance(tools, tuple) and tools else (QUESTION_TOOL,)),
            ]
        # As root, bypassPermissions is refused unless this is exactly "1".
        as_root = hasattr(os, "geteuid") and os.geteuid() == 0
        return LaunchPlan(
            argv=tuple(argv),
            env={**({"IS_SANDBOX": "1"} if as_root else {}), **drive.env},
            drop_env=(*DROPPED_ENV, *drive.drop_env),
            files=files,
            stdin=user_line(request.prompt),
            dropped_args=dropped,
        )

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A new reader. Raises ``ValueError`` for a snapshot that is none."""
        named = request.provider if request is not None else ""
        return ClaudeReader(request, snapshot, provider=named or self._provider)


def user_line(text: str) -> bytes:
    """What a person says, as a line of standard input."""
    clean = text.encode("utf-8", "replace").decode()
    content = [{"type": "text", "text": clean}]
    return msgspec.json.encode({"type": "user", "message": {"role": "user", "content": content}}) + b"\n"


def allowed_args(
    extra: Sequence[str], more: Mapping[str, str] = MappingProxyType({})
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Extra arguments without the blocked ones, ``more`` included: (what is passed on, what was dropped)."""
    kept: list[str] = []
    dropped: list[str] = []
    rest = list(extra)
    while rest:
        arg = rest.pop(0)
        if arg == "--":
            # What follows would be taken for the prompt.
            dropped += [arg, *rest]
            break
        name, has_value, _ = arg.partition("=")
        arity = BLOCKED_ARGS.get(name) or more.get(name)
        if arity is None:
            kept.append(arg)
            continue
        dropped.append(arg)
        if has_value or arity == "0":
            continue
        while rest and (arity == "1" or not rest[0].startswith("-")):
            dropped.append(rest.pop(0))
            if arity != "*":
                break
    return tuple(kept), tuple(dropped)


def _option(name: str, value: str) -> list[str]:
    """An option with a value from outside, which may look like an option itself."""
    if not value:
        return []
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


class _Message(msgspec.Struct, gc=False):
    content: Any = None
    model: Any = None
    id: Any = None
    usage: Any = None


class _Line(msgspec.Struct, gc=False):
    """The fields of a line that matter, of any type: nothing a line holds may make the reader fail."""

    type: Any = None
    subtype: Any = None
    session_id: Any = None
    message: _Message | None = None
    parent_tool_use_id: Any = None
    error: Any = None
    model: Any = None
    mcp_servers: Any = None
    request_id: Any = None
    request: Any = None
    response: Any = None
    attempt: Any = None
    max_retries: Any = None
    error_status: Any = None
    is_error: Any = None
    api_error_status: Any = None
    result: Any = None
    errors: Any = None
    terminal_reason: Any = None
    model_usage: Any = msgspec.field(name="modelUsage", default=None)
    permission_denials: Any = None
    rate_limit_info: Any = None


_decode_line = msgspec.json.Decoder(_Line).decode


def _understand(line: bytes) -> _Line | None:
    """The fields of a line, or None if it is not a JSON object."""
    return understood(line, _decode_line, _without_strange_message)


def _without_strange_message(found: dict[str, Any]) -> None:
    if not isinstance(found.get("message"), dict):
        found.pop("message", None)


class _Result(msgspec.Struct, gc=False):
    """The newest terminal line."""

    success: bool = False
    subtype: str = ""
    text: str = ""
    error: str = ""
    status: int = 0
    terminal: str = ""
    session_id: str = ""


class _State(msgspec.Struct):
    """What a snapshot holds: all that later events and the outcome depend on.

    Attributes:
        provider: The provider named in the usage.
        resume: The session that was asked for.
        deny: Whether requests for permission are refused.
        ask: Whether they wait for the user.
        asked: Those that wait, oldest first.
        allowed: Tools that the user has allowed for the rest of the task.
        calls: Tool calls that wait for their result: id → name.
        progress: Whether the model has said or done anything.
        turn_open: Whether a turn goes on; False only between a result and whatever the model says next.
        next_number: Number of the next write to standard input; 1 is the launch plan's.
        closed: Whether the last write of all has been made.
        holds: Whether standard input stays open at the end of a turn until somebody decides.
        waiting: Whether somebody is to decide now.
        turns: Turns that the model was seen to answer.
        taken_up: Whether the present one is among them.
        earlier: What the model said at the end of the turns before the newest result.
        live: What is shown of the run while it goes on.
        resets_at: When the account's limit resets, where the program has said that it is reached.
    """

    provider: str = "claude"
    consumed: int = 0
    skipping: bool = False
    resume: str = ""
    deny: bool = False
    ask: bool = False
    asked: list[Asked] = []
    allowed: list[str] = []
    session_id: str = ""
    model: str = ""
    calls: dict[str, str] = {}
    progress: bool = False
    turn_open: bool = True
    result: _Result | None = None
    usage: tuple[Usage, ...] = ()
    next_number: int = 2
    pending: list[StdinWrite] = []
    closed: bool = False
    holds: bool = False
    waiting: bool = False
    turns: int = 0
    taken_up: bool = False
    earlier: str = ""
    interrupted: bool = False
    live: Live = msgspec.field(default_factory=Live)
    resets_at: int = 0


class ClaudeReader:
    """Reads the output of one run. See ``family.Reader``."""

    def __init__(
        self,
        request: LaunchRequest | None = None,
        snapshot: bytes | None = None,
        *,
        provider: str = "claude",
        line_limit_bytes: int = LINE_LIMIT_BYTES,
    ) -> None:
        if snapshot is not None:
            try:
                state = msgspec.json.decode(snapshot, type=_State)
            except msgspec.DecodeError as error:
                raise ValueError("not a snapshot of a claude-stream-json reader") from error
        else:
            state = _State(provider=provider)
            if request is not None:
                state.resume = request.resume_session_id
                state.deny = request.permission_mode == "deny"
                state.ask = request.permission_mode == "ask"
        self._state = state
        self._lines = LineBuffer(state.consumed, state.skipping, line_limit_bytes)
        # A run is interrupted from another thread than the one that feeds; numbers must stay unique.
        self._writing = threading.Lock()

    @property
    def consumed(self) -> int:
        return self._lines.consumed

    @property
    def session_id(self) -> str:
        return self._state.session_id

    @property
    def tools_in_flight(self) -> int:
        return len(self._state.calls)

    @property
    def open_requests(self) -> Sequence[ev.PermissionRequest]:
        return [asked.event() for asked in self._state.asked]

    def answer(self, request_id: str, decision: str, text: str = "") -> Sequence[Event]:
        state = self._state
        asked = next((each for each in state.asked if each.request_id == request_id), None)
        if asked is None:
            return []
        state.asked = [each for each in state.asked if each is not asked]
        self._respond(request_id, denied(asked, text) if decision == "deny" else allowed(asked, text))
        found: list[Event] = [ev.PermissionSettled(request_id, decision)]
        if decision == "allow-task" and asked.kind == "permission" and asked.tool not in state.allowed:
            state.allowed = [*state.allowed, asked.tool]
            # What else waits for the same is answered with it.
            for other in [each for each in state.asked if each.tool == asked.tool]:
                found += self.answer(other.request_id, "allow")
        return found

    def feed(self, data: bytes) -> Sequence[Event]:
        return self._read(self._lines.feed(data))

    def flush(self) -> Sequence[Event]:
        return []

    def finish(self) -> Sequence[Event]:
        found = self._read(self._lines.finish())
        self._withdraw(found)
        self._state.calls.clear()
        return found

    def pending_writes(self) -> Sequence[StdinWrite]:
        with self._writing:
            return list(self._state.pending)

    def acknowledged(self, number: int) -> None:
        with self._writing:
            self._state.pending = [write for write in self._state.pending if write.number > number]

    def interrupt(self) -> Sequence[StdinWrite]:
        """Ask for the end of the turn, then close standard input: the program stops its tool and exits."""
        if not self._state.closed:
            self._state.interrupted = True
            request = {
                "type": "control_request",
                "request_id": "ostler-interrupt",
                "request": {"subtype": "interrupt"},
            }
            self._write(request)
            self._close()
        return self.pending_writes()

    @property
    def turn_over(self) -> bool:
        return self._state.waiting and not self._state.closed

    @property
    def turns(self) -> int:
        return self._state.turns

    def hold(self) -> None:
        self._state.holds = True

    def say_more(self, text: str) -> None:
        if self.turn_over:
            self._begin_turn()
            self._append(user_line(text))

    def no_more(self) -> None:
        if self.turn_over:
            self._state.waiting = False
            self._close()

    def snapshot(self) -> bytes:
        self._state.consumed = self._lines.consumed
        self._state.skipping = self._lines.skipping
        with self._writing:
            return msgspec.json.encode(self._state)

    def outcome(self, exit_code: int | None, signal: int | None, stderr_tail: str) -> Outcome:
        return _judge(self._state, exit_code, signal, stderr_tail)

    # --- reading -------------------------------------------------------------------------------

    def _read(self, lines: Sequence[bytes | OverlongLine]) -> list[Event]:
        found: list[Event] = []
        for line in lines:
            if isinstance(line, OverlongLine):
                found.append(ev.Unreadable(raw_text(line.head), "the line is too long"))
                continue
            if not line or line.isspace():
                continue
            fields = _understand(line)
            if fields is None or not isinstance(fields.type, str):
                found.append(ev.Unreadable(raw_text(line), "not a line of the protocol"))
                continue
            handler = _HANDLERS.get(fields.type)
            if handler is not None:
                handler(self, fields, found)
        return found

    def _assistant(self, line: _Line, found: list[Event]) -> None:
        self._see_session(line, found)
        state = self._state
        if line.parent_tool_use_id is None:
            self._seen_at_work()
        message = line.message
        if message is None:
            return
        if state.live.message_seen(message.id, message.model, message.usage):
            found.append(ev.UsageSeen(state.live.usage(state.provider)))
        content = message.content
        # What the program itself says instead of the model, after a request that failed.
        failed = isinstance(line.error, str) and line.error != ""
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list):
            return
        if content and not failed and not state.taken_up:
            state.taken_up = True
            state.turns += 1
        for part in content:
            if not isinstance(part, dict):
                continue
            kind = part.get("type")
            if kind == "text":
                text = part.get("text")
                if isinstance(text, str) and text:
                    if failed:
                        found.append(ev.ErrorText(text))
                    else:
                        state.progress = True
                        found.append(ev.Text(text))
            elif kind == "thinking":
                text = part.get("thinking")
                if isinstance(text, str) and text:
                    state.progress = True
                    found.append(ev.Thinking(text))
            elif isinstance(kind, str) and kind.endswith("tool_use"):
                state.progress = True
                call_id = _id(part.get("id"))
                tool = _id(part.get("name")) or "tool"
                if call_id:
                    state.calls[call_id] = tool
                    if len(state.calls) > CALLS_LIMIT:
                        del state.calls[next(iter(state.calls))]
                found.append(ev.ToolUse(call_id, tool, part.get("input")))
                if state.live.tool_used(call_id, tool, part.get("input")):
                    found.append(ev.PlanChanged(state.live.plan()))
            elif isinstance(kind, str) and kind.endswith("tool_result"):
                self._tool_result(part, found)

    def _user(self, line: _Line, found: list[Event]) -> None:
        self._see_session(line, found)
        content = line.message.content if line.message is not None else None
        if not isinstance(content, list):
            return
        for part in content:
            if isinstance(part, dict):
                kind = part.get("type")
                if isinstance(kind, str) and kind.endswith("tool_result"):
                    self._tool_result(part, found)

    def _tool_result(self, part: dict[str, Any], found: list[Event]) -> None:
        call_id = _id(part.get("tool_use_id"))
        known = self._state.calls.pop(call_id, "")
        tool = _id(part.get("name")) or known or "tool"
        output = _output_text(part.get("content"))
        found.append(ev.ToolResult(call_id, tool, output, part.get("is_error") is True))
        if self._state.live.making and self._state.live.tool_ended(call_id, output):
            found.append(ev.PlanChanged(self._state.live.plan()))

    def _system(self, line: _Line, found: list[Event]) -> None:
        if line.subtype == "init":
            state = self._state
            model = _id(line.model)
            session = _id(line.session_id)
            if session and (session != state.session_id or model != state.model):
                state.session_id = session
                state.model = model
                found.append(ev.SessionStarted(session, model))
            for server in line.mcp_servers if isinstance(line.mcp_servers, list) else ():
                if isinstance(server, dict) and server.get("status") in ("failed", "needs-auth"):
                    name = _id(server.get("name"))
                    found.append(ev.Notice(f"MCP server {name}: {server['status']}", "mcp_server_failed"))
        elif line.subtype == "api_retry":
            why = line.error if isinstance(line.error, str) else "error"
            tries = f"try {_count(line.attempt)} of {_count(line.max_retries)}"
            text = f"{cut_output(why, ERROR_LIMIT_BYTES)} ({_count(line.error_status)}), {tries}"
            found.append(ev.Notice(text, "api_retry"))

    def _rate_limit(self, line: _Line, found: list[Event]) -> None:
        """The program tells how much of the plan is used; only that nothing is left counts."""
        info = line.rate_limit_info if isinstance(line.rate_limit_info, dict) else {}
        status = info.get("status")
        if status == "rejected":
            self._state.resets_at = _count(info.get("resetsAt"))
        elif status in ("allowed", "allowed_warning"):
            self._state.resets_at = 0

    def _see_session(self, line: _Line, found: list[Event]) -> None:
        """Sessions are told by ``init``; a line of the conversation counts as well if that was missed."""
        session = line.session_id
        if session == self._state.session_id:
            return
        session = _id(session)
        if session and session != self._state.session_id:
            self._state.session_id = session
            found.append(ev.SessionStarted(session, self._state.model))

    def _result(self, line: _Line, found: list[Event]) -> None:
        state = self._state
        subtype = _id(line.subtype)
        terminal = _id(line.terminal_reason)
        success = subtype == "success" and line.is_error is False and terminal not in _BAD_ENDS
        text = line.result if isinstance(line.result, str) else ""
        error = "" if success else _error_text(line, text, subtype, terminal)
        state.result = _Result(
            success=success,
            subtype=subtype,
            text=cut_output(text, RESULT_LIMIT_BYTES),
            error=error,
            status=_count(line.api_error_status),
            terminal=terminal,
            session_id=_id(line.session_id),
        )
        if isinstance(line.model_usage, dict):
            state.usage = _usage(line.model_usage, state.provider)
            if state.usage:
                found.append(ev.UsageSeen(state.usage))
        state.turn_open = False
        state.calls.clear()
        self._withdraw(found)
        denials = line.permission_denials
        if isinstance(denials, list) and denials:
            tools = sorted({_id(denial.get("tool_name")) for denial in denials if isinstance(denial, dict)})
            names = cut_output(", ".join(tools), ERROR_LIMIT_BYTES)
            found.append(ev.Notice(f"permission denied: {names}", "permission_denied"))
        found.append(ev.TurnEnded(success, text, error))
        if success and state.holds and not state.interrupted:
            state.waiting = True
        else:
            self._close()

    def _control_request(self, line: _Line, found: list[Event]) -> None:
        """The program asks; every question is answered, or the run would wait for ever."""
        request_id = line.request_id
        if not isinstance(request_id, str):
            return
        request = line.request if isinstance(line.request, dict) else {}
        if request.get("subtype") != "can_use_tool":
            given = request.get("input")
            updated = given if isinstance(given, dict) else {}
            self._respond(request_id, {"behavior": "allow", "updatedInput": updated})
            return
        state = self._state
        asked = asked_of(request_id, request)
        if any(each.request_id == request_id for each in state.asked):
            return  # told again
        if state.ask and (asked.kind == "question" or asked.tool not in state.allowed):
            if len(state.asked) < REQUESTS_LIMIT:
                state.asked = [*state.asked, asked]
                found.append(asked.event())
                return
            self._respond(request_id, denied(asked, "Too many requests are open."))
        elif state.deny:
            text = f"Not allowed: the policy of this run denies {asked.tool}."
            self._respond(request_id, denied(asked, text))
            found.append(ev.Notice(f"permission denied: {asked.tool}", "permission_denied"))
        else:
            self._respond(request_id, allowed(asked))

    def _control_cancel(self, line: _Line, found: list[Event]) -> None:
        """The program does not wait for an answer any more."""
        self._withdraw(found, line.request_id)

    def _withdraw(self, found: list[Event], request_id: Any = None) -> None:
        """A request (or all of them, when a turn is over) has nobody left who waits for it."""
        state = self._state
        gone = [each for each in state.asked if request_id in (None, each.request_id)]
        if gone:
            state.asked = [each for each in state.asked if each not in gone]
            found += [ev.PermissionSettled(each.request_id, "withdrawn") for each in gone]

    def _respond(self, request_id: str, answer: dict[str, Any]) -> None:
        response = {"subtype": "success", "request_id": request_id, "response": answer}
        self._write({"type": "control_response", "response": response})

    def _control_response(self, line: _Line, found: list[Event]) -> None:
        response = line.response if isinstance(line.response, dict) else {}
        if response.get("subtype") == "error":
            text = response.get("error")
            found.append(ev.Notice(text if isinstance(text, str) else "refused", "control_refused"))

    # --- turns ---------------------------------------------------------------------------------

    def _begin_turn(self) -> None:
        """Another turn of the same process: the result of the one before is not the last."""
        state = self._state
        said = state.result.text if state.result is not None and state.result.success else ""
        parts = [part for part in (state.earlier, said) if part.strip()]
        state.earlier = cut_output("\n\n".join(parts), RESULT_LIMIT_BYTES)
        state.waiting = False
        state.turn_open = True
        state.taken_up = False

    def _seen_at_work(self) -> None:
        state = self._state
        if state.waiting:
            # It was told something that this reader, restored from an older state, does not know of.
            self._begin_turn()
            state.next_number += 1
        state.turn_open = True

    # --- writing -------------------------------------------------------------------------------

    def _write(self, message: dict[str, Any]) -> None:
        if not self._state.closed:
            self._append(msgspec.json.encode(message) + b"\n")

    def _close(self) -> None:
        if not self._state.closed:
            self._append(None)
            self._state.closed = True

    def _append(self, data: bytes | None) -> None:
        state = self._state
        with self._writing:
            state.pending = [*state.pending, StdinWrite(state.next_number, data)]
            state.next_number += 1


_HANDLERS: Final[Mapping[str, Callable[[ClaudeReader, _Line, list[Event]], None]]] = {
    "assistant": ClaudeReader._assistant,
    "user": ClaudeReader._user,
    "system": ClaudeReader._system,
    "result": ClaudeReader._result,
    "control_request": ClaudeReader._control_request,
    "control_response": ClaudeReader._control_response,
    "control_cancel_request": ClaudeReader._control_cancel,
    "rate_limit_event": ClaudeReader._rate_limit,
}


def _id(value: Any) -> str:
    """A name or an id, within bounds."""
    return value[:ID_LIMIT_CHARS] if isinstance(value, str) else ""


def _count(value: Any) -> int:
    """A count, whatever was given; never below zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 < value < COUNT_LIMIT else 0


def _output_text(content: Any) -> str:
    """A tool's output as text: texts joined, everything else named."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    parts: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            parts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            parts.append(part["text"])
        elif isinstance(part, dict):
            source = part.get("source")
            media = _id(source.get("media_type")) if isinstance(source, dict) else ""
            kind = _id(part.get("type")) or "part"
            parts.append(f"[{kind} {media}]" if media else f"[{kind}]")
        else:
            parts.append(f"[{type(part).__name__}]")
    return "\n".join(parts)


def _usage(models: dict[str, Any], provider: str) -> tuple[Usage, ...]:
    """Usage by model, without the models that took nothing."""
    found = []
    for model, counts in models.items():
        if not isinstance(counts, dict):
            continue
        entry = Usage(
            provider=provider,
            model=_id(model),
            input_tokens=_count(counts.get("inputTokens")),
            output_tokens=_count(counts.get("outputTokens")),
            cache_read_tokens=_count(counts.get("cacheReadInputTokens")),
            cache_write_tokens=_count(counts.get("cacheCreationInputTokens")),
            cost_usd=dollars(counts.get("costUSD")),
        )
        if entry.input_tokens or entry.output_tokens or entry.cache_read_tokens or entry.cache_write_tokens:
            found.append(entry)
    return tuple(found[:CALLS_LIMIT])


def _error_text(line: _Line, text: str, subtype: str, terminal: str) -> str:
    """The best words that a failed result has."""
    said: list[str] = []
    if isinstance(line.errors, list):
        said = [error for error in line.errors if isinstance(error, str) and error]
    error = text or "; ".join(said)
    if not error:
        error = f"the agent ended its turn with {subtype or 'an error'}"
        if terminal:
            error += f" ({terminal})"
    return cut_output(error, ERROR_LIMIT_BYTES)


# --- judging -----------------------------------------------------------------------------------


def _judge(state: _State, exit_code: int | None, signal: int | None, stderr_tail: str) -> Outcome:
    result = state.result
    ended = result is not None and not state.turn_open
    error = ""
    reason = ""
    if result is not None and ended and result.success:
        if exit_code == 0 and not signal:
            reason = failures.poison_of(result.text) or ""
            if not reason:
                output = "\n\n".join(part for part in (state.earlier, result.text) if part.strip())
                return Outcome(success=True, output=output, session_id=state.session_id, usage=state.usage)
            error = result.text.strip()
        else:
            error = f"the agent said that it was done, but then {exit_text(exit_code, signal)}"
            reason = failures.AGENT_PROCESS
    elif result is not None and ended:
        error = result.error
        reason = _reason_of(result)
    else:
        error, reason = _without_result(exit_code, signal, stderr_tail)
    if state.interrupted:
        reason = failures.CANCELLED
    refused = _resume_refused(state, error, stderr_tail)
    limit = None
    if not refused and not state.interrupted and not (result is not None and ended and result.success):
        limit = limit_of(
            error,
            status=result.status if result is not None and ended else 0,
            kind="usage" if state.resets_at else "",
            resets_at=state.resets_at or None,
        )
        if limit is not None and reason in (failures.AGENT_PROCESS, failures.AGENT_UNKNOWN):
            reason = failures.AGENT_QUOTA if limit.kind == "usage" else failures.AGENT_RATE_LIMIT
    return Outcome(
        success=False,
        output=result.text if result is not None and result.success else "",
        error=error,
        reason=reason,
        session_id="" if refused else state.session_id,
        usage=state.usage,
        resume_refused=refused,
        limit=limit,
    )


def _reason_of(result: _Result) -> str:
    """The failure reason of a failed result. The HTTP status counts for more than numbers in the text."""
    if result.subtype == "error_max_turns" or result.terminal == "max_turns":
        return failures.ITERATION_LIMIT
    if result.terminal == "prompt_too_long":
        return failures.AGENT_CONTEXT
    said = failures.classify(result.error)
    reason = reason_of_status(result.status, said)
    if reason is not None:
        return reason
    if said == failures.AGENT_UNKNOWN and result.terminal.startswith("aborted_"):
        return failures.AGENT_PROCESS
    return said


def _without_result(exit_code: int | None, signal: int | None, stderr_tail: str) -> tuple[str, str]:
    """Error and reason where the program has not told how it ended."""
    said = stderr_tail.strip()[-2000:]
    error = f"the agent gave no result: {exit_text(exit_code, signal)}"
    if said:
        error += f": {said}"
    if exit_code == 0 and not signal:
        return error, failures.AGENT_EMPTY
    if signal_of(exit_code, signal) is not None or exit_code is None:
        return error, failures.AGENT_PROCESS
    reason = failures.classify(said)
    return error, failures.AGENT_PROCESS if reason == failures.AGENT_UNKNOWN else reason


def _resume_refused(state: _State, error: str, stderr_tail: str) -> bool:
    """Whether a failed run failed because its session is gone, so that a fresh one may be tried.

    Never after the model has said or done anything: a second try would do it again.
    """
    if not state.resume or state.progress:
        return False
    told = f"{error}\n{stderr_tail}".lower()
    if any(phrase in told for phrase in _REFUSED):
        return True
    shown = state.session_id or (state.result.session_id if state.result is not None else "")
    return shown not in ("", state.resume)
