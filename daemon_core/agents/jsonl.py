"""Readers of programs that print one JSON object a line and then end: what they share.

A family's reader is a ``JsonReader`` with a handler of lines. Its whole state is one structure in the
snapshot, so that it can die after any byte. Pieces of text are put together: how they are cut depends on the
lines alone, never on when they came, so a stream that is read again makes the same events.

Nothing here raises on any input. What is no JSON object becomes ``Unreadable``; types that nobody knows are
passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

import msgspec

from daemon_core.agents import events as ev
from daemon_core.agents.costs import dollars
from daemon_core.agents.events import Event, Outcome
from daemon_core.agents.family import LaunchRequest, StdinWrite
from daemon_core.agents.lenient import understood
from daemon_core.agents.lines import LINE_LIMIT_BYTES, LineBuffer, OverlongLine, cut_output, raw_text
from daemon_core.agents.verdicts import Said, judge
from daemon_core.agents.writes import Writes, WritesState
from daemon_core.protocol.wire import Usage

ANSWER_LIMIT_CHARS: Final = 128 * 1024
"""The final text is kept up to this; the transcript has all of it."""
ERROR_LIMIT_BYTES: Final = 16 * 1024
ID_LIMIT_CHARS: Final = 512
CALLS_LIMIT: Final = 256
"""Tool calls without a result that are remembered; the oldest are forgotten first."""
MODELS_LIMIT: Final = 64
PLAN_LIMIT: Final = 200
COUNT_LIMIT: Final = 2**53
PIECE_CHARS: Final = 400
"""Pieces of text are put together to about this much, up to the end of a line."""
PIECE_LIMIT_CHARS: Final = 2000
"""A longer line is given in parts."""

_PLAN_TOOLS: Final = frozenset({"todowrite", "todo_write", "write_todos", "updatetodos", "update_plan"})
_PLAN_STATUSES: Final = {
    "in_progress": "in_progress",
    "inprogress": "in_progress",
    "completed": "completed",
    "done": "completed",
    "cancelled": "completed",
}


class Counts(msgspec.Struct):
    """Tokens of one model."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cost: float = 0.0
    """US dollars as the program states them; 0: it does not."""


class State(msgspec.Struct, kw_only=True):
    """What a snapshot holds: all that later events and the verdict depend on.

    Attributes:
        resume: The session that was asked for.
        calls: Tool calls that wait for their result: id → name.
        held: Pieces of a text that is not given yet; ``held_kind`` is ``text`` or ``thinking``.
        progress: Whether the model has said or done anything.
        answer: What the model has said since it last used a tool.
        end, error, status, reason, retry_after_s: see ``verdicts.Said``.
    """

    provider: str = ""
    consumed: int = 0
    skipping: bool = False
    resume: str = ""
    session_id: str = ""
    model: str = ""
    calls: dict[str, str] = {}
    held_kind: str = ""
    held: str = ""
    progress: bool = False
    answer: str = ""
    end: str = ""
    error: str = ""
    status: int = 0
    reason: str = ""
    retry_after_s: float = 0.0
    usage: dict[str, Counts] = {}
    writes: WritesState = msgspec.field(default_factory=WritesState)


S = TypeVar("S", bound=State)


class JsonReader(Generic[S]):
    """Reads the output of one run. See ``family.Reader``.

    Subclasses say what a line means (``line``), and set ``provider``, ``state_type`` and, where the program
    has exit codes of its own, ``exit_reasons``.
    """

    provider: ClassVar[str]
    state_type: type[S]
    exit_reasons: ClassVar[Mapping[int, str]] = {}

    def __init__(
        self,
        request: LaunchRequest | None = None,
        snapshot: bytes | None = None,
        *,
        line_limit_bytes: int = LINE_LIMIT_BYTES,
    ) -> None:
        if snapshot is not None:
            try:
                state = msgspec.json.decode(snapshot, type=self.state_type)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"not a snapshot of a {self.provider} reader") from error
        else:
            state = self.state_type()
            state.provider = self.provider
            if request is not None:
                state.provider = request.provider or self.provider
                state.resume = request.resume_session_id
                state.model = request.model
        self.state = state
        self.writes = Writes(state.writes)
        self._lines = LineBuffer(state.consumed, state.skipping, line_limit_bytes)
        if snapshot is None:
            self.begin(request)

    def begin(self, request: LaunchRequest | None) -> None:
        """The beginning of a run: the prompt is all that there is to say, so standard input is closed."""
        if request is None or request.drive.options.get("prompt") != "argument":
            self.writes.close()

    def line(self, line: dict[str, Any], found: list[Event]) -> None:
        """Understand one line."""
        raise NotImplementedError

    def ended(self, found: list[Event]) -> None:
        """The output has ended."""

    # --- the contract --------------------------------------------------------------------------

    @property
    def consumed(self) -> int:
        return self._lines.consumed

    @property
    def session_id(self) -> str:
        return self.state.session_id

    @property
    def tools_in_flight(self) -> int:
        return len(self.state.calls)

    @property
    def open_requests(self) -> Sequence[ev.PermissionRequest]:
        return ()

    def answer(self, request_id: str, decision: str, text: str = "") -> Sequence[Event]:
        return ()

    def feed(self, data: bytes) -> Sequence[Event]:
        return self._read(self._lines.feed(data))

    def flush(self) -> Sequence[Event]:
        # Never by time: what a stream makes must not depend on when it was read.
        return ()

    def finish(self) -> Sequence[Event]:
        found = self._read(self._lines.finish())
        self.settle(found)
        self.ended(found)
        self.state.calls = {}
        return found

    def pending_writes(self) -> Sequence[StdinWrite]:
        return self.writes.pending()

    def acknowledged(self, number: int) -> None:
        self.writes.acknowledged(number)

    def interrupt(self) -> Sequence[StdinWrite]:
        return ()

    def snapshot(self) -> bytes:
        self.state.consumed = self._lines.consumed
        self.state.skipping = self._lines.skipping
        self.state.writes = self.writes.state()
        return msgspec.json.encode(self.state)

    def outcome(self, exit_code: int | None, signal: int | None, stderr_tail: str) -> Outcome:
        return judge(self.said(exit_code), exit_code, signal, stderr_tail, self.exit_reasons)

    def said(self, exit_code: int | None) -> Said:
        """What the stream came to, for the verdict."""
        state = self.state
        return Said(
            end=state.end,
            answer=state.answer,
            error=state.error,
            status=state.status,
            reason=state.reason,
            retry_after_s=state.retry_after_s,
            session_id=state.session_id,
            resume=state.resume,
            progress=state.progress,
            usage=self.usage(),
        )

    # --- what lines come to --------------------------------------------------------------------

    def _read(self, lines: Sequence[bytes | OverlongLine]) -> list[Event]:
        found: list[Event] = []
        for line in lines:
            if isinstance(line, OverlongLine):
                self.settle(found)
                found.append(ev.Unreadable(raw_text(line.head), "the line is too long"))
                continue
            if not line or line.isspace():
                continue
            fields = decoded(self.trimmed(line))
            if fields is None:
                self.settle(found)
                found.append(ev.Unreadable(raw_text(line), "not a line of the protocol"))
            else:
                self.line(fields, found)
        return found

    def trimmed(self, line: bytes) -> bytes:
        """A line without what the program may put in front of its JSON."""
        return line

    def session(self, session_id: str, found: list[Event], model: str = "") -> None:
        """The program has told its session, its model, or both; the same again changes nothing."""
        state = self.state
        session_id = session_id[:ID_LIMIT_CHARS] or state.session_id
        model = model[:ID_LIMIT_CHARS] or state.model
        if session_id and (session_id != state.session_id or model != state.model):
            state.session_id, state.model = session_id, model
            found.append(ev.SessionStarted(session_id, model))

    def piece(self, kind: str, text: str, found: list[Event]) -> None:
        """A piece of a text (or of thinking) that goes on."""
        state = self.state
        if not text:
            return
        if state.held_kind != kind:
            self.settle(found)
            state.held_kind = kind
        state.held += text
        state.progress = True
        if kind == "text":
            self._answered(text)
        if len(state.held) >= PIECE_CHARS:
            end = state.held.rfind("\n") + 1
            if not end and len(state.held) >= PIECE_LIMIT_CHARS:
                end = len(state.held)
            if end:
                found.append(_text_event(kind, state.held[:end]))
                state.held = state.held[end:]

    def settle(self, found: list[Event]) -> None:
        """A text does not go on: give what is held of it."""
        state = self.state
        if state.held:
            found.append(_text_event(state.held_kind, state.held))
        state.held = state.held_kind = ""

    def text(self, text: str, found: list[Event], *, kind: str = "text") -> None:
        """A whole text (or a thought)."""
        self.settle(found)
        if text:
            self.state.progress = True
            if kind == "text":
                self._answered(text)
            found.append(_text_event(kind, text))

    def tool_begins(self, call_id: str, tool: str, given: Any, found: list[Event]) -> None:
        """A tool call; what the model has said before it is not its answer."""
        self.settle(found)
        state = self.state
        state.progress = True
        state.answer = ""
        tool = tool[:ID_LIMIT_CHARS] or "tool"
        call_id = call_id[:ID_LIMIT_CHARS]
        if call_id:
            state.calls[call_id] = tool
            if len(state.calls) > CALLS_LIMIT:
                del state.calls[next(iter(state.calls))]
        found.append(ev.ToolUse(call_id, tool, given))
        plan = plan_of(tool, given)
        if plan is not None:
            found.append(plan)

    def tool_ends(
        self, call_id: str, output: str, found: list[Event], *, is_error: bool = False, tool: str = ""
    ) -> None:
        self.settle(found)
        call_id = call_id[:ID_LIMIT_CHARS]
        known = self.state.calls.pop(call_id, "")
        found.append(ev.ToolResult(call_id, known or tool[:ID_LIMIT_CHARS] or "tool", output, is_error))

    def used(self, model: str, counts: Counts, found: list[Event], *, total: bool = False) -> None:
        """Tokens of one more request; with ``total`` those of the whole run so far."""
        state = self.state
        model = model[:ID_LIMIT_CHARS] or state.model or "default"
        if model not in state.usage and len(state.usage) >= MODELS_LIMIT:
            return
        before = Counts() if total else state.usage.get(model, Counts())
        state.usage[model] = Counts(
            before.input + counts.input,
            before.output + counts.output,
            before.cache_read + counts.cache_read,
            before.cache_write + counts.cache_write,
            before.cost + counts.cost,
        )
        seen = self.usage()
        if seen:
            found.append(ev.UsageSeen(seen))

    def usage(self) -> tuple[Usage, ...]:
        """By model, without those that took nothing."""
        return tuple(
            Usage(
                provider=self.state.provider,
                model=model,
                input_tokens=min(counts.input, COUNT_LIMIT),
                output_tokens=min(counts.output, COUNT_LIMIT),
                cache_read_tokens=min(counts.cache_read, COUNT_LIMIT),
                cache_write_tokens=min(counts.cache_write, COUNT_LIMIT),
                cost_usd=dollars(counts.cost),
            )
            for model, counts in self.state.usage.items()
            if counts.input or counts.output or counts.cache_read or counts.cache_write
        )

    def fails(self, error: str, found: list[Event], *, status: int = 0, reason: str = "") -> None:
        """The program says that something went wrong; unless it goes on, the run has failed."""
        self.settle(found)
        state = self.state
        state.end = "error"
        state.error = cut_output(error.strip(), ERROR_LIMIT_BYTES) or "the agent reported an error"
        state.status = status
        state.reason = reason
        found.append(ev.ErrorText(state.error))

    def turn_ends(self, success: bool, found: list[Event], *, error: str = "") -> None:
        """The program's own last word."""
        self.settle(found)
        state = self.state
        state.end = "success" if success else "error"
        if not success:
            state.error = cut_output(error.strip(), ERROR_LIMIT_BYTES) or state.error
        found.append(ev.TurnEnded(success, state.answer if success else "", "" if success else state.error))

    def _answered(self, text: str) -> None:
        state = self.state
        if len(state.answer) < ANSWER_LIMIT_CHARS:
            state.answer = (state.answer + text)[:ANSWER_LIMIT_CHARS]


def _text_event(kind: str, text: str) -> Event:
    return ev.Text(text) if kind == "text" else ev.Thinking(text)


# --- reading what may be of any shape ----------------------------------------------------------


_decode_any = msgspec.json.Decoder(Any).decode


def decoded(line: bytes) -> dict[str, Any] | None:
    """A line's object, or None if it is none."""
    found: Any = understood(line, _decode_any)
    return found if isinstance(found, dict) else None


def a_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def a_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def a_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def a_count(value: Any) -> int:
    """A count, whatever was given; never below zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 < value < COUNT_LIMIT else 0


def a_number(value: Any) -> float:
    """Seconds and the like, also as a text; 0 for what is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 < value < COUNT_LIMIT else 0.0


def output_text(content: Any) -> str:
    """A tool's output as text: texts joined, everything else as JSON or named."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, dict) and isinstance(content.get("content"), list | str):
        return output_text(content["content"])
    if isinstance(content, list) and all(isinstance(part, dict | str) for part in content):
        return "\n".join(_part_text(part) for part in content)
    return json_text(content)


def json_text(value: Any) -> str:
    """A value as JSON; what has no such form in words."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return f"[{type(value).__name__}]"


def plan_of(tool: str, given: Any) -> ev.PlanChanged | None:
    """The to-do list that a tool call sets, or None if it is no such call."""
    if tool.lower() not in _PLAN_TOOLS or not isinstance(given, dict):
        return None
    lists = [given[key] for key in ("todos", "plan", "entries") if isinstance(given.get(key), list)]
    if not lists:
        return None
    entries = []
    for entry in lists[0][:PLAN_LIMIT]:
        fields = a_dict(entry)
        words = [fields.get(key) for key in ("content", "description", "text", "step", "title")]
        text = next((word for word in words if isinstance(word, str) and word), "")
        if text:
            status = a_text(fields.get("status")).lower().removeprefix("todo_status_")
            entries.append(ev.PlanEntry(text, _PLAN_STATUSES.get(status, "pending")))
    return ev.PlanChanged(tuple(entries))


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part.get("text"), str):
        return str(part["text"])
    kind = a_text(part.get("type"))[:ID_LIMIT_CHARS]
    return f"[{kind}]" if kind else json_text(part)
