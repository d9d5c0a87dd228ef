"""What an ACP agent tells while its turn goes on, made into events.

- Text comes in small pieces. They are held until a line or a paragraph's worth is there, or something else
  happens; where the pieces are cut apart depends on what came, never on how it was read.
- A tool call is shown once it is known what it does: agents announce one before its input is there, some
  tell of it first when they ask for permission, some only when it has ended.
- Tokens come per request to the model (beside an empty piece of text) or with the end of the turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from daemon_core.agents import events as ev
from daemon_core.agents.events import Event, PlanEntry
from daemon_core.agents.lines import OUTPUT_LIMIT_BYTES, cut_output
from daemon_core.protocol.wire import Usage

FINAL_LIMIT_CHARS: Final = 128 * 1024
"""The final text is kept up to this; the transcript has all of it."""
HELD_LEAST_CHARS: Final = 400
"""Whole lines are told once this much has come."""
HELD_MOST_CHARS: Final = 4000
"""A line without an end is told in pieces of about this."""
INPUT_LIMIT_BYTES: Final = 256 * 1024
ID_LIMIT_CHARS: Final = 256
TITLE_LIMIT_CHARS: Final = 500
CALLS_LIMIT: Final = 256
MODELS_LIMIT: Final = 32
PLAN_LIMIT: Final = 200
COUNT_LIMIT: Final = 2**53

_WORD: Final = re.compile(r"[\w.:-]{1,64}")
_NO_INPUT: Final = frozenset({"cwd", "workdir", "directory"})
"""What some agents tell of a call before its real input is there."""
_STATUSES: Final = ("pending", "in_progress", "completed")


class Call(msgspec.Struct):
    """A tool call that has not ended. ``input`` is forgotten once it has been shown."""

    tool: str = ""
    title: str = ""
    kind: str = ""
    input: Any = None
    shown: bool = False
    output: str = ""


class TurnState(msgspec.Struct):
    """The part of a reader's snapshot that is this.

    Attributes:
        held: Text that came and has not been told; ``held_kind`` is ``text`` or ``thinking``.
        message: The message that it belongs to, where the agent numbers them.
        final: The text since the last tool call; ``before`` the one before that.
        ended: Calls that have ended: what is told of them later changes nothing.
        progress: Whether the agent has said or done anything.
        used: Tokens by model: input, output, read from and written to the cache.
    """

    held: str = ""
    held_kind: str = ""
    message: str = ""
    final: str = ""
    before: str = ""
    calls: dict[str, Call] = {}
    ended: list[str] = []
    progress: bool = False
    used: dict[str, list[int]] = {}


class Turn:
    """Makes events of a turn's updates. Nothing an update holds makes it fail."""

    def __init__(self, state: TurnState, provider: str) -> None:
        self.state = state
        self._provider = provider

    # --- text ----------------------------------------------------------------------------------

    def said(self, kind: str, update: Mapping[str, Any], found: list[Event]) -> None:
        """A piece of text or thinking."""
        text = _content_text(update.get("content"))
        if not text:
            return
        state = self.state
        state.progress = True
        message = short(update.get("messageId"))
        if state.held and (
            kind != state.held_kind or (message and state.message and message != state.message)
        ):
            self.tell(found)
        if any(not call.shown for call in state.calls.values()):
            # It goes on talking: the calls that it announced are as well known as they will be.
            self.tell(found)
            self._show_all(found)
        state.held += text
        state.held_kind = kind
        state.message = message
        if kind == "text" and len(state.final) < FINAL_LIMIT_CHARS:
            state.final = (state.final + text)[:FINAL_LIMIT_CHARS]
        held = state.held
        if len(held) < HELD_LEAST_CHARS:
            return
        told = held.rfind("\n") + 1
        if told:
            found.append(_text_event(kind, held[:told]))
        while len(held) - told >= HELD_MOST_CHARS:
            end = held.rfind(" ", told, told + HELD_MOST_CHARS) + 1 or told + HELD_MOST_CHARS
            found.append(_text_event(kind, held[told:end]))
            told = end
        state.held = held[told:]

    def tell(self, found: list[Event]) -> None:
        """Tell the text that is held: something else comes."""
        if self.state.held:
            found.append(_text_event(self.state.held_kind, self.state.held))
            self.state.held = ""

    def final_text(self) -> str:
        """What the agent said last."""
        return self.state.final if self.state.final.strip() else self.state.before

    # --- tools ---------------------------------------------------------------------------------

    def tool(self, update: Mapping[str, Any], found: list[Event], *, begins: bool) -> None:
        """A call begins, or more is known of it."""
        call_id = short(update.get("toolCallId"))
        if not call_id:
            return
        state = self.state
        if call_id in state.ended:
            if not begins:
                return
            state.ended = [each for each in state.ended if each != call_id]
        call = self._merged(call_id, update)
        status = update.get("status")
        if status in ("in_progress", "completed", "failed") or _is_known(update):
            self.show(call_id, found)
        if status in ("completed", "failed"):
            self.tell(found)
            output = call.output or _raw_text(update.get("rawOutput"))
            found.append(ev.ToolResult(call_id, call.tool, output, status == "failed"))
            del state.calls[call_id]
            state.ended = [*state.ended[-CALLS_LIMIT:], call_id]

    def asked(self, update: Mapping[str, Any], found: list[Event]) -> tuple[str, Call, Any]:
        """Permission for a call is asked, which may be the first that is heard of it: (id, call, input)."""
        call_id = short(update.get("toolCallId"))
        if not call_id:
            title = update.get("title")
            call = Call(tool=_tool_name(title, short(update.get("kind"))), title=_title(title))
            return "", call, _bounded(self._input(call, update))
        call = self._merged(call_id, update)
        given = _bounded(self._input(call, update))
        self.show(call_id, found)
        return call_id, call, given

    def show(self, call_id: str, found: list[Event]) -> None:
        """Tell that a call has begun, once."""
        call = self.state.calls[call_id]
        if call.shown:
            return
        self.tell(found)
        self._next_step()
        found.append(ev.ToolUse(call_id, call.tool, self._input(call, {})))
        call.shown = True
        call.input = None

    def over(self, found: list[Event]) -> None:
        """The turn has ended: everything held is told, nothing is in flight."""
        self.tell(found)
        self._show_all(found)
        self.state.calls = {}

    def _show_all(self, found: list[Event]) -> None:
        for call_id in list(self.state.calls):
            self.show(call_id, found)

    def _next_step(self) -> None:
        state = self.state
        if state.final.strip():
            state.before = state.final
        state.final = ""

    def _merged(self, call_id: str, update: Mapping[str, Any]) -> Call:
        state = self.state
        state.progress = True
        call = state.calls.get(call_id)
        if call is None:
            call = state.calls[call_id] = Call()
            if len(state.calls) > CALLS_LIMIT:
                del state.calls[next(iter(state.calls))]
        title = update.get("title")
        kind = short(update.get("kind"))
        if kind:
            call.kind = kind
        named = _meta_name(update.get("_meta"))
        if not call.tool or named:
            call.tool = named or _tool_name(title, call.kind)
        call.title = _title(title) or call.title
        if not call.shown:
            given = _input_of(update)
            if given is not None:
                call.input = _bounded(given)
        if isinstance(update.get("content"), list):
            call.output = _output_text(update["content"])
        return call

    def _input(self, call: Call, update: Mapping[str, Any]) -> Any:
        given = _input_of(update) if update else None
        if given is None:
            given = call.input
        if given is not None:
            return given
        if not call.title or call.title == call.tool:
            return {}
        return {"command" if call.kind == "execute" else "title": call.title}

    # --- plan and tokens -----------------------------------------------------------------------

    def plan(self, entries: Any, found: list[Event]) -> None:
        """The whole plan as it is now."""
        plan: list[PlanEntry] = []
        for entry in entries[:PLAN_LIMIT] if isinstance(entries, list) else ():
            text = entry.get("content") if isinstance(entry, dict) else None
            if isinstance(text, str) and text:
                status = entry.get("status")
                plan.append(PlanEntry(text[:TITLE_LIMIT_CHARS], status if status in _STATUSES else "pending"))
        found.append(ev.PlanChanged(tuple(plan)))

    def piece_usage(self, meta: Any, model: str, found: list[Event]) -> None:
        """Tokens of one request to the model, told beside a piece of text."""
        counts = _counts(meta.get("usage")) if isinstance(meta, dict) else None
        if counts is not None:
            self._add(model, counts)
            found.append(ev.UsageSeen(self.usage()))

    def end_usage(self, result: Mapping[str, Any], model: str, found: list[Event]) -> None:
        """Tokens told with the end of the turn, unless they have been counted already."""
        if self.state.used:
            return
        meta = result.get("_meta")
        quota = meta.get("quota") if isinstance(meta, dict) else None
        by_model = quota.get("model_usage") if isinstance(quota, dict) else None
        for entry in by_model if isinstance(by_model, list) else ():
            counts = _counts(entry.get("token_count")) if isinstance(entry, dict) else None
            if counts is not None:
                self._add(short(entry.get("model")) or model, counts)
        if not self.state.used:
            counts = _counts(quota.get("token_count")) if isinstance(quota, dict) else None
            counts = counts or _counts(result.get("usage"))
            if counts is not None:
                self._add(model, counts)
        if self.state.used:
            found.append(ev.UsageSeen(self.usage()))

    def usage(self) -> tuple[Usage, ...]:
        """Tokens so far by model."""
        return tuple(
            Usage(
                provider=self._provider,
                model=model,
                input_tokens=counts[0],
                output_tokens=counts[1],
                cache_read_tokens=counts[2],
                cache_write_tokens=counts[3],
            )
            for model, counts in self.state.used.items()
            if len(counts) == 4
        )

    def _add(self, model: str, counts: tuple[int, int, int, int]) -> None:
        used = self.state.used
        if model not in used and len(used) >= MODELS_LIMIT:
            return
        before = used.get(model) or [0, 0, 0, 0]
        used[model] = [min(a + b, COUNT_LIMIT) for a, b in zip(before, counts, strict=False)]


def short(value: Any) -> str:
    """A name or an id, within bounds."""
    return value[:ID_LIMIT_CHARS] if isinstance(value, str) else ""


def _text_event(kind: str, text: str) -> Event:
    return ev.Thinking(text) if kind == "thinking" else ev.Text(text)


def _content_text(content: Any) -> str:
    """A piece of content as text; what is no text is named."""
    if isinstance(content, str):
        return content
    if not isinstance(content, dict):
        return ""
    text = content.get("text")
    if isinstance(text, str):
        return text
    resource = content.get("resource")
    if isinstance(resource, dict):
        text = resource.get("text")
        return text if isinstance(text, str) else f"[{short(resource.get('uri')) or 'resource'}]"
    kind = short(content.get("type"))
    where = short(content.get("uri")) or short(content.get("mimeType"))
    return f"[{kind} {where}]" if kind and where else f"[{kind}]" if kind else ""


def _output_text(content: list[Any]) -> str:
    """A call's content as its output: texts joined, changes and terminals named."""
    parts: list[str] = []
    size = 0
    for entry in content:
        if not isinstance(entry, dict):
            continue
        kind = entry.get("type")
        if kind == "diff":
            part = f"[changed {short(entry.get('path')) or 'a file'}]"
        elif kind == "terminal":
            part = f"[terminal {short(entry.get('terminalId'))}]"
        else:
            part = _content_text(entry.get("content"))
        if part:
            parts.append(part)
            size += len(part)
        if size > OUTPUT_LIMIT_BYTES:
            break
    return cut_output("\n".join(parts), OUTPUT_LIMIT_BYTES)


def _raw_text(output: Any) -> str:
    """A call's raw output, for agents that give no content."""
    if isinstance(output, dict):
        for name in ("output", "text", "stdout", "content", "message", "error"):
            if isinstance(output.get(name), str) and output[name]:
                return cut_output(output[name], OUTPUT_LIMIT_BYTES)
    if isinstance(output, str):
        return cut_output(output, OUTPUT_LIMIT_BYTES)
    if output in (None, {}, []):
        return ""
    try:
        return cut_output(msgspec.json.encode(output).decode(), OUTPUT_LIMIT_BYTES)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        return ""


def _meta_name(meta: Any) -> str:
    """The tool's own name, where the agent gives it beside the protocol."""
    if not isinstance(meta, dict):
        return ""
    name = short(meta.get("toolName"))
    inner = meta.get("claudeCode")
    return name or (short(inner.get("toolName")) if isinstance(inner, dict) else "")


def _tool_name(title: Any, kind: str) -> str:
    """A name for a call: its title where that is one word, else what kind of thing it does."""
    if isinstance(title, str) and _WORD.fullmatch(title):
        return title
    if kind and kind != "other":
        return kind
    return title[:TITLE_LIMIT_CHARS] if isinstance(title, str) and title else "tool"


def _title(value: Any) -> str:
    return value[:TITLE_LIMIT_CHARS] if isinstance(value, str) else ""


def _is_known(update: Mapping[str, Any]) -> bool:
    """Whether an update of a call that has not begun tells what it will do."""
    given = update.get("rawInput")
    return isinstance(given, dict) and not _NO_INPUT.issuperset(given)


def _input_of(update: Mapping[str, Any]) -> Any:
    """A call's input as an update tells it; None: it does not."""
    given = update.get("rawInput")
    if given not in (None, {}, "", []):
        return given
    content = update.get("content")
    diffs = [
        {"path": entry.get("path"), "old": entry.get("oldText"), "new": entry.get("newText")}
        for entry in (content if isinstance(content, list) else ())
        if isinstance(entry, dict) and entry.get("type") == "diff"
    ]
    if diffs:
        return {"changes": diffs}
    places = update.get("locations")
    paths = [
        short(place.get("path"))
        for place in (places if isinstance(places, list) else ())
        if isinstance(place, dict) and isinstance(place.get("path"), str)
    ]
    if paths and update.get("kind") != "execute":
        title = update.get("title")
        return {"title": title[:TITLE_LIMIT_CHARS], "paths": paths} if isinstance(title, str) else None
    return None


def _bounded(given: Any) -> Any:
    """An input that is kept: within bounds, and sure to have a form in the snapshot."""
    try:
        data = msgspec.json.encode(given)
        msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        return {"input": "[cannot be shown]"}
    if len(data) > INPUT_LIMIT_BYTES:
        return {"input": data[:4096].decode("utf-8", "replace") + "…", "size": len(data)}
    return given


def _counts(given: Any) -> tuple[int, int, int, int] | None:
    """Tokens as (input, output, read from cache, written to cache); None where nothing was told.

    Some count what came from the cache as input, and thinking as output, and some do not: the total tells.
    """
    if not isinstance(given, dict):
        return None
    taken = _count(given, "inputTokens", "input_tokens")
    made = _count(given, "outputTokens", "output_tokens")
    thought = _count(given, "thoughtTokens", "thought_tokens")
    read = _count(given, "cachedReadTokens", "cached_read_tokens")
    written = _count(given, "cachedWriteTokens", "cached_write_tokens")
    total = _count(given, "totalTokens", "total_tokens")
    if total == taken + made and taken >= read + written:
        taken -= read + written
    elif thought and total == taken + made + thought and taken >= read + written:
        taken, made = taken - read - written, made + thought
    elif thought and total == taken + made + thought + read + written:
        made += thought
    return (taken, made, read, written) if taken or made or read or written else None


def _count(given: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = given.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < COUNT_LIMIT:
            return int(value)
    return 0
