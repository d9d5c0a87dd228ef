"""Reads one run of Claude Code and says to it what there is to say. The rules are in ``claude``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from daemon_core.agents import events as ev
from daemon_core.agents.claude_ends import verdict
from daemon_core.agents.claude_requests import allowed, asked_of, denied
from daemon_core.agents.claude_state import Result, State
from daemon_core.agents.costs import dollars
from daemon_core.agents.events import Event, Outcome
from daemon_core.agents.family import LaunchRequest, StdinWrite
from daemon_core.agents.lenient import understood
from daemon_core.agents.lines import LINE_LIMIT_BYTES, LineBuffer, OverlongLine, cut_output, raw_text
from daemon_core.protocol.wire import Usage

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
                state = msgspec.json.decode(snapshot, type=State)
            except msgspec.DecodeError as error:
                raise ValueError("not a snapshot of a claude-stream-json reader") from error
        else:
            state = State(provider=provider)
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
        return verdict(self._state, exit_code, signal, stderr_tail)

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
        state.result = Result(
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


def user_line(text: str) -> bytes:
    """What a person says, as a line of standard input."""
    clean = text.encode("utf-8", "replace").decode()
    content = [{"type": "text", "text": clean}]
    return msgspec.json.encode({"type": "user", "message": {"role": "user", "content": content}}) + b"\n"


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
