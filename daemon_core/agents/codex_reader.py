"""Reads one run of ``codex app-server`` and leads its conversation. The rules are in ``codex``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

import msgspec

from daemon_core import __version__
from daemon_core.agents import codex_asking, codex_ends, codex_items
from daemon_core.agents import events as ev
from daemon_core.agents.codex_ends import TurnError
from daemon_core.agents.codex_items import ident, text_of
from daemon_core.agents.codex_state import (
    Counts,
    Policy,
    Result,
    State,
    Stream,
    counts_of,
    said,
    usage_of,
    verdict,
)
from daemon_core.agents.events import Event, Outcome
from daemon_core.agents.family import LaunchRequest, StdinWrite
from daemon_core.agents.lines import LINE_LIMIT_BYTES, LineBuffer, OverlongLine, cut_output
from daemon_core.agents.rpc import Notification, Outstanding, Request, Response, Rpc, RpcState, encoded
from daemon_core.agents.writes import Writes, named

PROMPT_FILE: Final = "spec.prompt.json"
INSTRUCTIONS_FILE: Final = "spec.instructions.json"

RESULT_LIMIT_BYTES: Final = 1024 * 1024
"""The final text is kept up to this; the transcript has all of it."""
CALLS_LIMIT: Final = 256
"""Tool calls without a result that are remembered; the oldest are forgotten first."""
REQUESTS_LIMIT: Final = 64
"""Open requests; a further one is refused."""
STREAMS_LIMIT: Final = 16
MODELS_LIMIT: Final = 64
PLAN_LIMIT: Final = 256
PIECE_CHARS: Final = 1024
"""A text that is being written is told in whole lines of at least this together."""
LONG_LINE_CHARS: Final = 16 * 1024
"""What has no line's end for this long is told as it is."""

# What nobody here reads and can be much: the output of commands as it comes (the whole is in the item), the
# difference of the whole turn after each change.
UNWANTED: Final = (
    "item/commandExecution/outputDelta",
    "item/commandExecution/terminalInteraction",
    "item/fileChange/outputDelta",
    "item/fileChange/patchUpdated",
    "item/plan/delta",
    "turn/diff/updated",
    "command/exec/outputDelta",
    "process/outputDelta",
    "thread/settings/updated",
    "fs/changed",
    "skills/changed",
    "app/list/updated",
)
# What tells that it gets on: items and their pieces, plans, turns; also that it tries a request again. Of
# tokens, limits, warnings and the state of threads and MCP servers tells one that stands still, too.
_PROGRESS: Final = ("item/", "turn/", "error")
_THREAD: Final = ("thread/start", "thread/resume")
_EARLY: Final = "not initialized"
"""Of a program that does not take up in order what is said at once: then it is said once more."""
_STEP_STATUS: Final[Mapping[str, str]] = {"inProgress": "in_progress", "completed": "completed"}


def opening(request: LaunchRequest, policy: Policy) -> StdinWrite:
    """The launch plan's write: what the conversation begins with.

    All that needs no answer before it is said at once, since each answer that is waited for costs the task
    some milliseconds: the program takes its lines one after the other.
    """
    client = {"name": "ostler", "title": "Ostler", "version": __version__}
    capabilities = {"experimentalApi": True, "optOutNotificationMethods": UNWANTED}
    method, params, files = _thread_request(_state_of(request, policy))
    lines = (
        {"id": 1, "method": "initialize", "params": {"clientInfo": client, "capabilities": capabilities}},
        {"method": "initialized"},
        {"id": 2, "method": method, "params": params},
    )
    return StdinWrite(1, b"".join(map(encoded, lines)), files)


def _state_of(request: LaunchRequest, policy: Policy) -> State:
    state = State(policy=policy)
    state.provider = request.provider or state.provider
    state.work_dir = request.work_dir
    state.resume = request.resume_session_id
    state.model = request.model
    state.effort = request.thinking_level
    state.tier = request.service_tier
    state.instructions = bool(request.instructions)
    state.mode = request.permission_mode
    return state


def _thread_request(state: State) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """What asks for the thread: method, parameters, and the files that these name."""
    params: dict[str, Any] = {
        "cwd": state.work_dir,
        "approvalPolicy": state.policy.approval,
        "sandbox": state.policy.sandbox,
    }
    if state.model:
        params["model"] = state.model
    if state.tier:
        params["serviceTier"] = state.tier  # the thread's, so that of each turn
    files: tuple[str, ...] = ()
    if state.instructions:
        params["developerInstructions"] = named(INSTRUCTIONS_FILE)
        files = (INSTRUCTIONS_FILE,)
    if not state.resume:
        return "thread/start", params, files
    # Without its history, which can be one line of many megabytes.
    return "thread/resume", params | {"threadId": state.resume, "excludeTurns": True}, files


class CodexReader:
    """Reads the output of one run. See ``family.Reader``."""

    def __init__(self, state: State, *, line_limit_bytes: int = LINE_LIMIT_BYTES) -> None:
        self._state = state
        self._writes = Writes(state.writes)
        self._rpc = Rpc(self._writes, state.rpc, versioned=False)
        self._lines = LineBuffer(state.consumed, state.skipping, line_limit_bytes)
        # A run is interrupted from another thread than the one that feeds.
        self._lock = threading.RLock()

    @classmethod
    def at_the_beginning(
        cls,
        request: LaunchRequest | None = None,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        *,
        line_limit_bytes: int = LINE_LIMIT_BYTES,
    ) -> Self:
        """A reader at the start of the output: what ``opening`` has is said."""
        if request is None:
            state = State(policy=policy, rpc=RpcState(2, {1: Outstanding("initialize")}))
        else:
            state = _state_of(request, policy)
            method, _, _ = _thread_request(state)
            state.rpc = RpcState(3, {1: Outstanding("initialize"), 2: Outstanding(method)})
        if not state.resume:
            state.total = Counts()
        return cls(state, line_limit_bytes=line_limit_bytes)

    @classmethod
    def restored(cls, snapshot: bytes, *, line_limit_bytes: int = LINE_LIMIT_BYTES) -> Self:
        """A reader that goes on where a snapshot was taken. Raises ``ValueError`` for what is none."""
        try:
            state = msgspec.json.decode(snapshot, type=State)
        except msgspec.DecodeError as error:
            raise ValueError("not a snapshot of a codex-app-server reader") from error
        return cls(state, line_limit_bytes=line_limit_bytes)

    @property
    def consumed(self) -> int:
        return self._lines.consumed

    @property
    def session_id(self) -> str:
        return self._state.thread_id

    @property
    def tools_in_flight(self) -> int:
        return len(self._state.calls)

    @property
    def progressed(self) -> int:
        return self._state.steps

    @property
    def open_requests(self) -> Sequence[ev.PermissionRequest]:
        with self._lock:
            return [each.asked for each in self._state.requests.values()]

    @property
    def done(self) -> bool:
        """Whether the turn has ended and the program knows that nothing more comes."""
        return self._state.result is not None and self._writes.closed and not self._writes.pending()

    def answer(self, request_id: str, decision: str, text: str = "") -> Sequence[Event]:
        with self._lock:
            asked = self._state.requests.pop(request_id, None)
            if asked is None or self._writes.closed:
                return []
            self._rpc.respond(asked.id, codex_asking.answer_of(asked, decision, text))
            return [ev.PermissionSettled(request_id, decision)]

    def feed(self, data: bytes) -> Sequence[Event]:
        return self._read(self._lines.feed(data))

    def flush(self) -> Sequence[Event]:
        return []

    def finish(self) -> Sequence[Event]:
        found = self._read(self._lines.finish())
        with self._lock:
            self._end_of_turn(found)
        return found

    def pending_writes(self) -> Sequence[StdinWrite]:
        return self._writes.pending()

    def acknowledged(self, number: int) -> None:
        self._writes.acknowledged(number)

    def interrupt(self) -> Sequence[StdinWrite]:
        """Ask for the end of the turn and of what runs in the background, then close standard input."""
        with self._lock:
            state = self._state
            if not self._writes.closed:
                state.interrupted = True
                if state.stage == "turn" and state.thread_id:
                    if state.turn_id:
                        turn = {"threadId": state.thread_id, "turnId": state.turn_id}
                        self._rpc.request("turn/interrupt", turn)
                    self._rpc.request("thread/backgroundTerminals/clean", {"threadId": state.thread_id})
                self._writes.close()
        return self._writes.pending()

    @property
    def turn_over(self) -> bool:
        return self._state.waiting and not self._writes.closed

    @property
    def turns(self) -> int:
        return self._state.turns

    def hold(self) -> None:
        self._state.holds = True

    def say_more(self, text: str) -> None:
        with self._lock:
            if self.turn_over:
                self._begin_turn(text.encode("utf-8", "replace").decode())

    def no_more(self) -> None:
        with self._lock:
            if self.turn_over:
                self._state.waiting = False
                self._writes.close()

    def snapshot(self) -> bytes:
        with self._lock:
            state = self._state
            state.consumed = self._lines.consumed
            state.skipping = self._lines.skipping
            state.writes = self._writes.state()
            state.rpc = self._rpc.state()
            return msgspec.json.encode(state)

    def outcome(self, exit_code: int | None, signal: int | None, stderr_tail: str) -> Outcome:
        return verdict(self._state, self.done, exit_code, signal, stderr_tail)

    # --- reading -------------------------------------------------------------------------------

    def _read(self, lines: Sequence[bytes | OverlongLine]) -> list[Event]:
        found: list[Event] = []
        incoming = self._rpc.incoming(lines)
        while True:
            with self._lock:
                message = next(incoming, None)
                match message:
                    case None:
                        return found
                    case Response():
                        self._response(message, found)
                    case Notification():
                        self._notification(message, found)
                    case Request():
                        self._request(message, found)
                    case _:
                        found.append(message)

    def _response(self, message: Response, found: list[Event]) -> None:
        state, method = self._state, message.request.method
        handler = _ANSWERS.get(method)
        if handler is None or (state.stage == "over" and method in ("initialize", *_THREAD)):
            return  # of an interrupt, or after a refusal: what it led to is told by itself
        early = method in _THREAD and message.error is not None and _EARLY in message.error.text.lower()
        if early and not state.asked_again:
            state.asked_again = True
            self._ask_for_thread()
            return
        if message.error is not None:
            text = f"{message.request.method}: {message.error.text}"
            if message.request.method == "thread/resume" and codex_ends.session_gone(text):
                self._state.refused = True
            self._fail(TurnError(cut_output(text, codex_ends.ERROR_LIMIT_BYTES)), found)
        else:
            handler(self, message.result if isinstance(message.result, dict) else {}, found)

    def _initialized(self, result: dict[str, Any], found: list[Event]) -> None:
        if self._state.stage != "opening" or self._rpc.outstanding(*_THREAD):
            return  # it was asked for at once
        self._rpc.notify("initialized")
        self._ask_for_thread()

    def _ask_for_thread(self) -> None:
        method, params, files = _thread_request(self._state)
        self._rpc.request(method, params, files=files)

    def _thread(self, result: dict[str, Any], found: list[Event]) -> None:
        state = self._state
        thread = result.get("thread")
        thread_id = ident(thread.get("id")) if isinstance(thread, dict) else ""
        if not thread_id:
            self._fail(TurnError("the program began no thread"), found)
            return
        state.thread_id = thread_id
        state.told_model = ident(result.get("model"))
        state.stage = "turn"
        found.append(ev.SessionStarted(thread_id, state.told_model))
        params: dict[str, Any] = {
            "threadId": thread_id,
            "input": [{"type": "text", "text": named(PROMPT_FILE)}],
        }
        if state.effort:
            params["effort"] = state.effort
        self._rpc.request("turn/start", params, files=(PROMPT_FILE,))

    def _turn(self, result: dict[str, Any], found: list[Event]) -> None:
        turn = result.get("turn")
        if isinstance(turn, dict) and not self._state.turn_id:
            self._state.turn_id = ident(turn.get("id"))

    def _begin_turn(self, text: str) -> None:
        """Another turn of the same thread."""
        state = self._state
        state.earlier = cut_output(said(state), RESULT_LIMIT_BYTES)
        state.output, state.output_final, state.result = "", False, None
        state.stage, state.turn_id, state.told_error = "turn", "", ""
        state.waiting = state.taken_up = False
        params: dict[str, Any] = {"threadId": state.thread_id, "input": [{"type": "text", "text": text}]}
        if state.effort:
            params["effort"] = state.effort
        self._rpc.request("turn/start", params)

    def _at_work(self) -> None:
        state = self._state
        state.progress = True
        if not state.taken_up:
            state.taken_up = True
            state.turns += 1

    # --- what is told --------------------------------------------------------------------------

    def _notification(self, message: Notification, found: list[Event]) -> None:
        state, params = self._state, message.params
        thread = params.get("threadId")
        if isinstance(thread, str) and state.thread_id and thread != state.thread_id:
            return
        if message.method.startswith(_PROGRESS):
            state.steps += 1
        handler = _NOTIFICATIONS.get(message.method)
        if handler is not None:
            handler(self, params, found)

    def _is_ours(self, params: dict[str, Any]) -> bool:
        """Whether something is of the run's own turn."""
        state, turn = self._state, params.get("turnId")
        if state.stage != "turn":
            return False
        return not isinstance(turn, str) or not state.turn_id or turn == state.turn_id

    def _turn_started(self, params: dict[str, Any], found: list[Event]) -> None:
        if self._state.waiting:
            # It was told something that this reader, restored from an older state, does not know of. What is
            # said has the number of what was said then, so it is not said again.
            self._begin_turn("")
        if self._state.stage == "turn":
            self._turn(params, found)

    def _item_started(self, params: dict[str, Any], found: list[Event]) -> None:
        item = params.get("item")
        if not isinstance(item, dict) or not self._is_ours(params):
            return
        kind = item.get("type")
        if kind != "userMessage":
            self._at_work()
        if codex_items.is_call(item) and kind not in codex_items.TOLD_AT_THE_END:
            self._call(item, found)

    def _item_completed(self, params: dict[str, Any], found: list[Event]) -> None:
        item = params.get("item")
        if not isinstance(item, dict) or not self._is_ours(params):
            return
        state = self._state
        kind = item.get("type")
        if kind != "userMessage":
            self._at_work()
        if kind == "agentMessage":
            self._message(item, found)
        elif kind == "reasoning":
            parts = [codex_items.parts_text(item.get(name)) for name in ("summary", "content")]
            text = next((part for part in parts if part), "")
            if text:
                found.append(ev.Thinking(text))
        elif kind == "plan":
            if text := text_of(item.get("text")):
                found.append(ev.Text(text))
        elif kind == "contextCompaction":
            found.append(ev.Notice("the conversation was compacted", "compacted"))
        elif codex_items.is_call(item):
            call_id = ident(item.get("id"))
            if call_id not in state.calls:
                self._call(item, found)
            tool = state.calls.pop(call_id, "") or codex_items.tool_name(item)
            found.append(codex_items.result_of(item, tool))

    def _call(self, item: dict[str, Any], found: list[Event]) -> None:
        call = codex_items.call_of(item)
        calls = self._state.calls
        if call.call_id:
            if call.call_id in calls:
                return
            calls[call.call_id] = call.tool
            if len(calls) > CALLS_LIMIT:
                del calls[next(iter(calls))]
        found.append(call)

    def _message(self, item: dict[str, Any], found: list[Event]) -> None:
        """A message is whole; what was told of it while it was written is not told again."""
        state = self._state
        text = text_of(item.get("text"))
        stream = state.streams.pop(ident(item.get("id")), None)
        if rest := text[stream.told_chars :] if stream is not None else text:
            found.append(ev.Text(rest))
        final = item.get("phase") not in ("commentary", "partial_answer")
        if text and (final or not state.output_final):
            state.output = cut_output(text, RESULT_LIMIT_BYTES)
            state.output_final = final

    def _message_delta(self, params: dict[str, Any], found: list[Event]) -> None:
        delta = params.get("delta")
        if not isinstance(delta, str) or not delta or not self._is_ours(params):
            return
        streams = self._state.streams
        item_id = ident(params.get("itemId"))
        stream = streams.get(item_id)
        if stream is None:
            stream = streams[item_id] = Stream()
            if len(streams) > STREAMS_LIMIT:
                self._tell_rest(streams.pop(next(iter(streams))), found)
        self._at_work()
        stream.rest += delta
        if len(stream.rest) >= PIECE_CHARS:
            cut = stream.rest.rfind("\n") + 1
            if not cut and len(stream.rest) >= LONG_LINE_CHARS:
                cut = len(stream.rest)
            if cut:
                found.append(ev.Text(stream.rest[:cut]))
                stream.told_chars += cut
                stream.rest = stream.rest[cut:]

    def _tell_rest(self, stream: Stream, found: list[Event]) -> None:
        if stream.rest:
            found.append(ev.Text(stream.rest))

    def _plan_changed(self, params: dict[str, Any], found: list[Event]) -> None:
        plan = params.get("plan")
        if not isinstance(plan, list) or not self._is_ours(params):
            return
        steps = [step for step in plan[:PLAN_LIMIT] if isinstance(step, dict)]
        entries = (
            ev.PlanEntry(text_of(step.get("step")), _STEP_STATUS.get(ident(step.get("status")), "pending"))
            for step in steps
        )
        found.append(ev.PlanChanged(tuple(entries)))

    def _usage_told(self, params: dict[str, Any], found: list[Event]) -> None:
        """The thread's total less what it was before is what the turn has used."""
        told = params.get("tokenUsage")
        if not isinstance(told, dict):
            return
        state = self._state
        total, last = counts_of(told.get("total")), counts_of(told.get("last"))
        turn = params.get("turnId")
        if state.stage != "turn" or (isinstance(turn, str) and turn != state.turn_id):
            # Of an earlier turn, repeated when its thread is resumed.
            state.total = total
            return
        before, state.total = state.total, total
        if before is None:
            grown = last
        elif total.input < before.input or total.output < before.output:
            grown = last  # counted anew
        else:
            grown = Counts(
                input=total.input - before.input,
                cached=max(0, total.cached - before.cached),
                written=max(0, total.written - before.written),
                output=total.output - before.output,
            )
        if not grown.input and not grown.output:
            return
        counts = state.used.get(state.told_model)
        if counts is None:
            if len(state.used) >= MODELS_LIMIT:
                return
            counts = state.used[state.told_model] = Counts()
        counts.input += grown.input
        counts.cached += grown.cached
        counts.written += grown.written
        counts.output += grown.output
        found.append(ev.UsageSeen(usage_of(state)))

    def _limits_told(self, params: dict[str, Any], found: list[Event]) -> None:
        self._state.resets_at = codex_ends.used_up(params.get("rateLimits"))

    def _rerouted(self, params: dict[str, Any], found: list[Event]) -> None:
        model = ident(params.get("toModel"))
        if model and self._is_ours(params):
            self._state.told_model = model
            found.append(ev.Notice(f"the model is now {model}", "model_rerouted"))

    def _error(self, params: dict[str, Any], found: list[Event]) -> None:
        if not self._is_ours(params):
            return
        error = codex_ends.error_of(params.get("error"))
        if params.get("willRetry") is True:
            found.append(ev.Notice(error.text or "the request to the model is tried again", "api_retry"))
        elif error.text:
            self._tell_error(error.text, found)

    def _warning(self, params: dict[str, Any], found: list[Event]) -> None:
        text = text_of(params.get("message")) or text_of(params.get("summary"))
        # Of a sandbox that the run does not use, or that comes with the program.
        if text and "bubblewrap" not in text:
            found.append(ev.Notice(cut_output(text, codex_ends.ERROR_LIMIT_BYTES), "warning"))

    def _mcp_status(self, params: dict[str, Any], found: list[Event]) -> None:
        if params.get("status") == "failed":
            name, why = ident(params.get("name")), text_of(params.get("error"))
            text = f"MCP server {name}: {cut_output(why, 1024) or 'failed'}"
            found.append(ev.Notice(text, "mcp_server_failed"))

    def _request_resolved(self, params: dict[str, Any], found: list[Event]) -> None:
        """Answered by us, or asked no more."""
        number = params.get("requestId")
        for key, asked in list(self._state.requests.items()):
            if asked.id == number and type(asked.id) is type(number):
                del self._state.requests[key]
                found.append(ev.PermissionSettled(key, "withdrawn"))

    def _turn_completed(self, params: dict[str, Any], found: list[Event]) -> None:
        state = self._state
        turn = params.get("turn")
        if not isinstance(turn, dict) or state.stage != "turn":
            return
        if state.turn_id and turn.get("id") != state.turn_id:
            return
        status = turn.get("status")
        self._end_of_turn(found)
        if status == "completed":
            state.result = Result(success=True)
            state.stage = "over"
            found.append(ev.TurnEnded(True, state.output))
            if state.holds and not state.interrupted:
                state.waiting = True
            else:
                self._writes.close()
            return
        error = codex_ends.error_of(turn.get("error"))
        if not error.text:
            text = state.told_error or f"the agent's turn ended: {ident(status) or 'without a word'}"
            error = TurnError(text, error.kind, error.status)
        self._fail(error, found)

    # --- what is asked -------------------------------------------------------------------------

    def _request(self, message: Request, found: list[Event]) -> None:
        """Every question is answered, or the run would wait for ever."""
        state = self._state
        state.steps += 1
        asked = codex_asking.understood(message, state.calls)
        if asked is None:
            self._rpc.refuse_unknown(message)
        elif state.mode == "ask" and len(state.requests) < REQUESTS_LIMIT:
            known = asked.asked.request_id in state.requests
            state.requests[asked.asked.request_id] = asked
            if not known:
                found.append(asked.asked)
        elif state.mode == "allow":
            self._rpc.respond(message.id, codex_asking.answer_of(asked, "allow", ""))
        else:
            found.append(ev.Notice(f"permission denied: {asked.asked.tool}", "permission_denied"))
            self._rpc.respond(message.id, codex_asking.answer_of(asked, "deny", ""))

    # --- ends ----------------------------------------------------------------------------------

    def _fail(self, error: TurnError, found: list[Event]) -> None:
        state = self._state
        self._end_of_turn(found)
        state.stage = "over"
        state.result = Result(success=False, error=error)
        self._tell_error(error.text, found)
        found.append(ev.TurnEnded(False, "", error.text))
        self._writes.close()

    def _tell_error(self, text: str, found: list[Event]) -> None:
        if text and text != self._state.told_error:
            self._state.told_error = text
            found.append(ev.ErrorText(text))

    def _end_of_turn(self, found: list[Event]) -> None:
        state = self._state
        for stream in state.streams.values():
            self._tell_rest(stream, found)
        for key in state.requests:
            found.append(ev.PermissionSettled(key, "withdrawn"))
        state.streams.clear()
        state.requests.clear()
        state.calls.clear()


_Handler = Callable[[CodexReader, dict[str, Any], list[Event]], None]
_ANSWERS: Final[Mapping[str, _Handler]] = {
    "initialize": CodexReader._initialized,
    "thread/start": CodexReader._thread,
    "thread/resume": CodexReader._thread,
    "turn/start": CodexReader._turn,
}
_NOTIFICATIONS: Final[Mapping[str, _Handler]] = {
    "turn/started": CodexReader._turn_started,
    "item/started": CodexReader._item_started,
    "item/completed": CodexReader._item_completed,
    "item/agentMessage/delta": CodexReader._message_delta,
    "turn/plan/updated": CodexReader._plan_changed,
    "thread/tokenUsage/updated": CodexReader._usage_told,
    "account/rateLimits/updated": CodexReader._limits_told,
    "model/rerouted": CodexReader._rerouted,
    "error": CodexReader._error,
    "warning": CodexReader._warning,
    "guardianWarning": CodexReader._warning,
    "configWarning": CodexReader._warning,
    "mcpServer/startupStatus/updated": CodexReader._mcp_status,
    "serverRequest/resolved": CodexReader._request_resolved,
    "turn/completed": CodexReader._turn_completed,
}
