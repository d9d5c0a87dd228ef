"""The family "acp": the Agent Client Protocol, JSON-RPC in both directions, one object a line.

The conversation: ``initialize``, ``authenticate`` where the entry says so, ``session/new`` (or ``load``, or
``resume``), the settings (mode, options, model, thinking level), ``session/prompt``, whose answer closes the
turn; then standard input is closed. Rules, learned from the real programs (opencode 1.18.33, gemini 0.61.0,
qwen 0.24.4):

- What is told before the prompt is history, or an echo of a setting: not of this turn.
- Neither the prompt nor MCP servers are in the reader's state: they are files of the run's directory that
  are put in when they are said.
- A setting that is refused is a notice and no failed task.
- Not every agent ends when its standard input does; once the turn is over it may be ended (``done``).
- An allowance "for the rest of the task" is kept here: the agents' own write it into files of the user.
- Unknown kinds of updates are passed over, unknown requests are refused, so that nobody waits for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from daemon_core.agents import acp_end
from daemon_core.agents import events as ev
from daemon_core.agents.acp_end import End
from daemon_core.agents.acp_launch import (
    PROMPT_FILE,
    Quirks,
    plan_of,
    quirks_of,
    servers_file,
    servers_of,
)
from daemon_core.agents.acp_settings import Settings, SettingsState
from daemon_core.agents.acp_turn import TITLE_LIMIT_CHARS, Turn, TurnState, short
from daemon_core.agents.events import Event, Outcome
from daemon_core.agents.family import LaunchPlan, LaunchRequest, Reader, StdinWrite
from daemon_core.agents.lines import LINE_LIMIT_BYTES, LineBuffer, OverlongLine
from daemon_core.agents.rpc import (
    INTERNAL_ERROR,
    Notification,
    Outstanding,
    Request,
    RequestId,
    Response,
    Rpc,
    RpcError,
    RpcState,
)
from daemon_core.agents.writes import Writes, WritesState, named

FAMILY_NAME: Final = "acp"
REQUESTS_LIMIT: Final = 64
"""Requests for permission that may be open at once; what comes above is denied."""
OPTION_LIMIT_CHARS: Final = 512


class AcpFamily:
    """Starts and reads agents that speak ACP."""

    name = FAMILY_NAME
    cut_by_time = False

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say how to start the agent. Raises ``LaunchError`` for a permission mode that nobody knows."""
        return plan_of(request)

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A new reader. Raises ``ValueError`` for a snapshot that is none."""
        return AcpReader(request, snapshot)


class Asked(msgspec.Struct, frozen=True):
    """A request for permission that waits for its answer. Options are empty where there is none of a kind."""

    key: str
    id: RequestId
    tool: str
    input: Any = None
    title: str = ""
    allow: str = ""
    reject: str = ""

    def event(self) -> ev.PermissionRequest:
        return ev.PermissionRequest(self.key, self.tool, self.input, title=self.title)


class _State(msgspec.Struct):
    """What a snapshot holds: all that later events, writes and the outcome depend on.

    Attributes:
        provider: The provider named in the usage.
        policy: ``allow``, ``ask`` or ``deny``.
        resume: The session that was asked for.
        servers: Whether MCP servers are given; ``http`` and ``sse`` name those that need it.
        live: Whether the prompt has been said, so that what is told belongs to its turn.
        allowed: Tools that the user has allowed for the rest of the task.
        end: What the agent said about the end, once it has.
    """

    provider: str = ""
    policy: str = "allow"
    quirks: Quirks = Quirks()
    work_dir: str = ""
    resume: str = ""
    servers: bool = False
    http: tuple[str, ...] = ()
    sse: tuple[str, ...] = ()
    consumed: int = 0
    skipping: bool = False
    session_id: str = ""
    shown_model: str = ""
    live: bool = False
    asked: list[Asked] = []
    allowed: list[str] = []
    interrupted: bool = False
    end: End | None = None
    settings: SettingsState = msgspec.field(default_factory=SettingsState)
    turn: TurnState = msgspec.field(default_factory=TurnState)
    rpc: RpcState = msgspec.field(default_factory=lambda: RpcState(2, {1: Outstanding("initialize")}))
    writes: WritesState = msgspec.field(default_factory=WritesState)


class AcpReader:
    """Reads the output of one run. See ``family.Reader``."""

    def __init__(
        self,
        request: LaunchRequest | None = None,
        snapshot: bytes | None = None,
        *,
        line_limit_bytes: int = LINE_LIMIT_BYTES,
    ) -> None:
        if snapshot is not None:
            try:
                state = msgspec.json.decode(snapshot, type=_State)
            except msgspec.DecodeError as error:
                raise ValueError("not a snapshot of an acp reader") from error
        else:
            state = _begin(request) if request is not None else _State()
        self._state = state
        self._lines = LineBuffer(state.consumed, state.skipping, line_limit_bytes)
        self._writes = Writes(state.writes)
        self._rpc = Rpc(self._writes, state.rpc)
        self._turn = Turn(state.turn, state.provider)
        self._settings = Settings(state.settings)
        # A run is interrupted from another thread than the one that feeds.
        self._lock = threading.Lock()

    @property
    def consumed(self) -> int:
        return self._lines.consumed

    @property
    def session_id(self) -> str:
        return self._state.session_id

    @property
    def tools_in_flight(self) -> int:
        return len(self._state.turn.calls)

    @property
    def open_requests(self) -> Sequence[ev.PermissionRequest]:
        return [asked.event() for asked in self._state.asked]

    @property
    def done(self) -> bool:
        return self._state.end is not None and self._writes.closed

    def answer(self, request_id: str, decision: str, text: str = "") -> Sequence[Event]:
        with self._lock:
            state = self._state
            asked = next((each for each in state.asked if each.key == request_id), None)
            if asked is None:
                return []
            found: list[Event] = []
            self._settle(asked, decision, found)
            if decision == "allow-task" and asked.tool not in state.allowed:
                state.allowed = [*state.allowed, asked.tool]
                # What else waits for the same is answered with it.
                for other in [each for each in state.asked if each.tool == asked.tool]:
                    self._settle(other, "allow", found)
            return found

    def feed(self, data: bytes) -> Sequence[Event]:
        return self._read(self._lines.feed(data))

    def flush(self) -> Sequence[Event]:
        return []

    def finish(self) -> Sequence[Event]:
        found = self._read(self._lines.finish())
        self._turn.over(found)
        self._withdraw(found)
        return found

    def pending_writes(self) -> Sequence[StdinWrite]:
        return self._writes.pending()

    def acknowledged(self, number: int) -> None:
        self._writes.acknowledged(number)

    def interrupt(self) -> Sequence[StdinWrite]:
        """Break the turn off: open requests are answered as cancelled, then the input is closed."""
        with self._lock:
            state = self._state
            if not self._writes.closed:
                state.interrupted = True
                for asked in state.asked:
                    self._rpc.respond(asked.id, {"outcome": {"outcome": "cancelled"}})
                if state.live and state.session_id:
                    self._rpc.notify("session/cancel", {"sessionId": state.session_id})
                self._writes.close()
        return self.pending_writes()

    def snapshot(self) -> bytes:
        state = self._state
        state.consumed = self._lines.consumed
        state.skipping = self._lines.skipping
        state.rpc = self._rpc.state()
        state.writes = self._writes.state()
        return msgspec.json.encode(state)

    def outcome(self, exit_code: int | None, signal: int | None, stderr_tail: str) -> Outcome:
        state = self._state
        return acp_end.judge(
            end=state.end,
            text=self._turn.final_text(),
            progress=state.turn.progress,
            interrupted=state.interrupted,
            failure_in_stderr=state.quirks.failure_in_stderr,
            session_id=state.session_id,
            usage=self._turn.usage(),
            exit_code=exit_code,
            signal=signal,
            stderr_tail=stderr_tail,
        )

    # --- reading -------------------------------------------------------------------------------

    def _read(self, lines: Sequence[bytes | OverlongLine]) -> list[Event]:
        found: list[Event] = []
        for message in self._rpc.incoming(lines):
            with self._lock:
                if isinstance(message, Notification):
                    self._notified(message, found)
                elif isinstance(message, Response):
                    self._answered(message, found)
                elif isinstance(message, Request):
                    self._requested(message, found)
                else:
                    self._turn.tell(found)
                    found.append(message)
        return found

    def _notified(self, message: Notification, found: list[Event]) -> None:
        params = message.params
        if message.method == "$/cancel_request":
            self._withdraw(found, _key(params.get("requestId")))
        elif message.method == "session/update":
            update = params.get("update")
            ours = params.get("sessionId") in (self._state.session_id, None)
            kind = update.get("sessionUpdate") if isinstance(update, dict) else None
            handler = _UPDATES.get(kind) if isinstance(kind, str) else None
            if handler is not None and isinstance(update, dict) and ours:
                handler(self, update, found)

    def _answered(self, message: Response, found: list[Event]) -> None:
        method = message.request.method
        result = message.result if isinstance(message.result, dict) else {}
        error = message.error
        if self._state.end is not None:
            return
        if method in ("initialize", "authenticate", "session/new", "session/load", "session/resume"):
            if error is not None:
                self._failed(method, error, found)
            elif method == "initialize":
                self._initialized(result, found)
            elif method == "authenticate":
                self._open_session(found)
            else:
                self._opened(method, result, found)
        elif method == "session/prompt":
            if error is not None:
                self._failed(method, error, found)
            else:
                self._turn_ended(result, found)
        elif method.startswith("session/set_"):
            if error is not None:
                text = f"{message.request.context} was refused: {acp_end.words(error)}"
                found.append(ev.Notice(text, "setting_refused"))
            self._settings.answered(result, refused=error is not None)
            self._go_on(found)

    # --- the way to the prompt -------------------------------------------------------------------

    def _initialized(self, result: Mapping[str, Any], found: list[Event]) -> None:
        state = self._state
        capabilities = _object(result.get("agentCapabilities"))
        mcp = _object(capabilities.get("mcpCapabilities"))
        for kind, names in (("http", state.http), ("sse", state.sse)):
            if names and mcp.get(kind) is not True:
                text = f"MCP servers left out, the agent does not take {kind}: {', '.join(names)}"
                found.append(ev.Notice(text, "mcp_server_failed"))
        state.http = state.http if mcp.get("http") is True else ()
        state.sse = state.sse if mcp.get("sse") is True else ()
        way = self._way_to_sign_in(result)
        if way:
            self._rpc.request("authenticate", {"methodId": way})
        else:
            self._open_session(found)

    def _way_to_sign_in(self, result: Mapping[str, Any]) -> str:
        wanted = self._state.quirks.authenticate
        if wanted != "first":
            return wanted
        ways = result.get("authMethods")
        offered = [short(way.get("id")) for way in ways or () if isinstance(way, dict)] if isinstance(
            ways, list
        ) else []  # fmt: skip
        preferred = short(_object(result.get("_meta")).get("defaultAuthMethodId"))
        return preferred if preferred in offered else next((way for way in offered if way), "")

    def _open_session(self, found: list[Event]) -> None:
        state = self._state
        params: dict[str, Any] = {"cwd": state.work_dir, "mcpServers": []}
        files: tuple[str, ...] = ()
        if state.servers:
            kinds = [kind for kind, names in (("http", state.http), ("sse", state.sse)) if names]
            files = (servers_file(kinds),)
            params["mcpServers"] = named(files[0])
        if state.resume and state.quirks.resume:
            params = {"sessionId": state.resume, **params}
            self._rpc.request(state.quirks.resume, params, files=files)
        elif state.resume:
            self._finish_with(End(error="this agent cannot resume a session", gone=True), found)
        else:
            self._rpc.request("session/new", params, files=files)

    def _opened(self, method: str, result: Mapping[str, Any], found: list[Event]) -> None:
        state = self._state
        session = short(result.get("sessionId"))
        if method != "session/new":
            if session and session != state.resume:
                # A fresh session in place of the one that was asked for, with none of its history.
                self._finish_with(End(error="the agent did not find the session", gone=True), found)
                return
            session = state.resume
        if not session:
            error = RpcError(INTERNAL_ERROR, "the agent returned no parseable output: no session")
            self._failed(method, error, found)
            return
        state.session_id = session
        self._settings.offered(result)
        state.shown_model = self._settings.model()
        found.append(ev.SessionStarted(session, state.shown_model))
        self._go_on(found)

    def _go_on(self, found: list[Event]) -> None:
        """The next setting, or the prompt when there is none left."""
        state = self._state
        asked = self._settings.next(state.session_id, found)
        if asked is not None:
            self._rpc.request(asked.method, asked.params, asked.what)
            return
        if self._settings.model() != state.shown_model:
            state.shown_model = self._settings.model()
            found.append(ev.SessionStarted(state.session_id, state.shown_model))
        state.live = True
        params = {"sessionId": state.session_id, "prompt": named(PROMPT_FILE)}
        self._rpc.request("session/prompt", params, files=(PROMPT_FILE,))

    # --- the turn --------------------------------------------------------------------------------

    def _text(self, update: Mapping[str, Any], found: list[Event]) -> None:
        if self._state.live:
            self._turn.said("text", update, found)
            self._turn.piece_usage(update.get("_meta"), self._settings.model(), found)

    def _thought(self, update: Mapping[str, Any], found: list[Event]) -> None:
        if self._state.live:
            self._turn.said("thinking", update, found)
            self._turn.piece_usage(update.get("_meta"), self._settings.model(), found)

    def _tool_begins(self, update: Mapping[str, Any], found: list[Event]) -> None:
        if self._state.live:
            self._turn.tool(update, found, begins=True)

    def _tool_goes_on(self, update: Mapping[str, Any], found: list[Event]) -> None:
        if self._state.live:
            self._turn.tool(update, found, begins=False)

    def _plan(self, update: Mapping[str, Any], found: list[Event]) -> None:
        if self._state.live:
            self._turn.tell(found)
            self._turn.plan(update.get("entries"), found)

    def _plan_update(self, update: Mapping[str, Any], found: list[Event]) -> None:
        self._plan(_object(update.get("plan")), found)

    def _options(self, update: Mapping[str, Any], found: list[Event]) -> None:
        self._settings.offered(update)

    def _turn_ended(self, result: Mapping[str, Any], found: list[Event]) -> None:
        stop = short(result.get("stopReason"))
        self._turn.over(found)
        self._turn.end_usage(result, self._settings.model(), found)
        self._finish_with(acp_end.stopped(stop), found)

    def _failed(self, method: str, error: RpcError, found: list[Event]) -> None:
        state = self._state
        resuming = bool(state.resume) and not state.turn.progress
        end = acp_end.refused(method, error, resuming=resuming)
        self._turn.over(found)
        if not end.gone:
            found.append(ev.ErrorText(end.error))
        self._finish_with(end, found)

    def _finish_with(self, end: End, found: list[Event]) -> None:
        state = self._state
        self._withdraw(found)
        state.end = end
        found.append(ev.TurnEnded(not end.error, self._turn.final_text(), end.error))
        if state.quirks.close and state.session_id:
            self._rpc.request("session/close", {"sessionId": state.session_id})
        self._writes.close()

    # --- what the agent asks -----------------------------------------------------------------------

    def _requested(self, message: Request, found: list[Event]) -> None:
        if message.method != "session/request_permission":
            self._rpc.refuse_unknown(message)
            return
        state = self._state
        key = _key(message.id)
        if any(each.key == key for each in state.asked):
            return  # told again
        _, call, given = self._turn.asked(_object(message.params.get("toolCall")), found)
        options = message.params.get("options")
        asked = Asked(
            key=key,
            id=message.id,
            tool=call.tool,
            input=given,
            title=" ".join(call.title.split())[:TITLE_LIMIT_CHARS],
            allow=_option(options, "allow_once", "allow_always"),
            reject=_option(options, "reject_once", "reject_always"),
        )
        if state.policy == "ask" and asked.tool not in state.allowed and len(state.asked) < REQUESTS_LIMIT:
            self._turn.tell(found)
            state.asked = [*state.asked, asked]
            found.append(asked.event())
        elif state.policy == "allow" or (state.policy == "ask" and asked.tool in state.allowed):
            self._choose(asked, asked.allow)
        else:
            self._choose(asked, asked.reject)
            found.append(ev.Notice(f"permission denied: {asked.tool}", "permission_denied"))

    def _settle(self, asked: Asked, decision: str, found: list[Event]) -> None:
        state = self._state
        state.asked = [each for each in state.asked if each is not asked]
        self._choose(asked, asked.reject if decision == "deny" else asked.allow)
        found.append(ev.PermissionSettled(asked.key, decision))

    def _choose(self, asked: Asked, option: str) -> None:
        """Answer with an option; where the agent offers none of that kind, it is not done."""
        outcome = {"outcome": "selected", "optionId": option} if option else {"outcome": "cancelled"}
        self._rpc.respond(asked.id, {"outcome": outcome})

    def _withdraw(self, found: list[Event], key: str | None = None) -> None:
        """A request (or all of them, when the turn is over) has nobody left who waits for it."""
        state = self._state
        gone = [each for each in state.asked if key in (None, each.key)]
        if gone:
            state.asked = [each for each in state.asked if each not in gone]
            found += [ev.PermissionSettled(each.key, "withdrawn") for each in gone]


_UPDATES: Final[Mapping[str, Callable[[AcpReader, Mapping[str, Any], list[Event]], None]]] = {
    "agent_message_chunk": AcpReader._text,
    "agent_thought_chunk": AcpReader._thought,
    "tool_call": AcpReader._tool_begins,
    "tool_call_update": AcpReader._tool_goes_on,
    "plan": AcpReader._plan,
    "plan_update": AcpReader._plan_update,
    "plan_removed": AcpReader._plan,
    "config_option_update": AcpReader._options,
}
"""What is understood."""

PASSED_OVER: Final = frozenset(
    {
        "user_message_chunk",  # what we said ourselves
        "available_commands_update",
        "current_mode_update",
        "session_info_update",
        "usage_update",  # how full the context is, not what was used
    }
)


def _begin(request: LaunchRequest) -> _State:
    servers = servers_of(request)
    quirks = quirks_of(request.drive, request.permission_mode)
    return _State(
        provider=request.provider,
        policy=request.permission_mode,
        quirks=quirks,
        work_dir=request.work_dir,
        resume=request.resume_session_id,
        servers=bool(servers.entries),
        http=servers.names("http"),
        sse=servers.names("sse"),
        settings=SettingsState.of(
            quirks,
            model=request.model if quirks.model else "",
            thinking=request.thinking_level if quirks.thinking else "",
        ),
    )


def _option(options: Any, *kinds: str) -> str:
    """The first option of the first of these kinds that is offered."""
    offered = [option for option in options if isinstance(option, dict)] if isinstance(options, list) else []
    for kind in kinds:
        for option in offered:
            name = option.get("optionId")
            if option.get("kind") == kind and isinstance(name, str) and 0 < len(name) <= OPTION_LIMIT_CHARS:
                return name
    return ""


def _key(request_id: Any) -> str:
    """A request's id as the daemon names it; a text and a number are never the same."""
    return f'"{request_id}"' if isinstance(request_id, str) else str(request_id)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
