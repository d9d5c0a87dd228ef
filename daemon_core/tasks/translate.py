"""From an agent's events to transcript lines as the wire has them, numbered without holes (promise P3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from daemon_core.agents import events
from daemon_core.agents.lines import cut_output
from daemon_core.protocol.wire import TOOL_OUTPUT_LIMIT_BYTES, TaskMessage, Usage

CHUNK_MESSAGES = 500
CHUNK_BYTES = 512 * 1024
"""One chunk becomes one request to the server (unless several small ones are joined): bounded in both."""

TOOL_NAME_CHARS = 200

TEXT_PIECE_CHARS = 128 * 1024
"""A longer text becomes several messages of its kind, which readers join again."""

INPUT_LIMIT_BYTES = 256 * 1024
"""A tool's input above this is replaced by its beginning and its true size."""

PLAN_ENTRIES = 200
"""More entries of a plan than this are not shown."""

DEPTH_LIMIT = 64
"""Deeper nesting of an input that has to be mended is told in words."""

_encoder = msgspec.json.Encoder()


class Digest(msgspec.Struct, kw_only=True):
    """What a sequence of events came to."""

    chunks: list[tuple[int, int, bytes]]
    next_seq: int
    session_id: str = ""
    messages: int = 0
    tool_calls: int = 0
    last_action: str = ""
    answered: bool = False
    """Whether the agent has said, thought or done something: its turn has been taken up."""
    settled: dict[str, str] = {}
    """Requests that are open no more, and how they were decided."""
    plan: tuple[events.PlanEntry, ...] | None = None
    """The newest plan, None if none was told."""
    usage: tuple[Usage, ...] | None = None
    """Tokens so far, None if nothing was told of them."""
    notice: str | None = None
    """The newest notice, "" if something came that ends any notice, None if neither did."""


def digest(happened: Iterable[events.Event], next_seq: int) -> Digest:
    """Number and encode the messages that these events make; ``next_seq`` is the first free number."""
    result = Digest(chunks=[], next_seq=next_seq)
    pieces: list[bytes] = []
    size = 0
    first = next_seq

    def close_chunk() -> None:
        nonlocal pieces, size, first
        if pieces:
            result.chunks.append((first, result.next_seq - 1, b"[" + b",".join(pieces) + b"]"))
        pieces = []
        size = 0
        first = result.next_seq

    for event in happened:
        for message in _messages(event, result):
            message.seq = result.next_seq
            encoded = _encode(message)
            if len(pieces) >= CHUNK_MESSAGES or size + len(encoded) > CHUNK_BYTES:
                close_chunk()
            result.next_seq += 1
            result.messages += 1
            pieces.append(encoded)
            size += len(encoded)
    close_chunk()
    return result


def _messages(event: events.Event, result: Digest) -> Sequence[TaskMessage]:
    match event:
        case events.Text(text=text):
            result.notice = ""
            result.answered = True
            return _texts("text", text)
        case events.Thinking(text=text):
            result.answered = True
            return _texts("thinking", text)
        case events.ToolUse(tool=tool, input=given):
            tool = tool[:TOOL_NAME_CHARS]
            result.tool_calls += 1
            result.answered = True
            result.last_action = tool
            result.notice = ""
            return [TaskMessage(seq=0, type="tool_use", tool=tool, input=bounded_input(given))]
        case events.ToolResult(tool=tool, output=output):
            return [
                TaskMessage(
                    seq=0,
                    type="tool_result",
                    tool=tool[:TOOL_NAME_CHARS],
                    output=cut_output(
                        storable_text(output[:TOOL_OUTPUT_LIMIT_BYTES]), TOOL_OUTPUT_LIMIT_BYTES
                    ),
                )
            ]
        case events.ErrorText(text=text):
            return _texts("error", text)
        case events.Unreadable(raw=raw):
            # Kept as it came: it may be the one line that tells what went wrong.
            return _texts("text", raw)
        case events.SessionStarted(session_id=session_id):
            result.session_id = session_id or result.session_id
        case events.Notice(text=text):
            result.notice = text
        case events.PlanChanged(entries=entries):
            result.plan = entries[:PLAN_ENTRIES]
        case events.UsageSeen(usage=usage):
            result.usage = usage
        case events.PermissionSettled(request_id=request_id, decision=decision):
            result.settled = {**result.settled, request_id: decision}
        case _:
            pass
    return ()


def _texts(kind: str, text: str) -> list[TaskMessage]:
    if not text:
        return []
    if len(text) <= TEXT_PIECE_CHARS:
        return [TaskMessage(seq=0, type=kind, content=text)]
    return [
        TaskMessage(seq=0, type=kind, content=text[start : start + TEXT_PIECE_CHARS])
        for start in range(0, len(text), TEXT_PIECE_CHARS)
    ]


def bounded_input(given: Any, limit: int = INPUT_LIMIT_BYTES) -> Any:
    """A tool's input as an object that can be stored, or the beginning of one that is too large."""
    if given is None:
        return {}
    try:
        encoded = _encoder.encode(given)
    except (ValueError, TypeError, RecursionError):
        given = _storable(given)
        encoded = _encoder.encode(given)
    if not isinstance(given, dict):
        given = {"value": given}
    if len(encoded) <= limit:
        return given
    return {"truncated": encoded[:4096].decode("utf-8", "ignore"), "size_bytes": len(encoded)}


def _encode(message: TaskMessage) -> bytes:
    """A message as it is stored and sent. A character that no server can store must not hold up what follows:
    a NUL, or a lone surrogate from an agent's JSON, which has no UTF-8 form."""
    try:
        encoded = _encoder.encode(message)
    except (ValueError, TypeError, RecursionError):
        encoded = b""
    if encoded and b"\\u0000" not in encoded:
        return encoded
    for name in ("content", "output", "tool", "input"):
        setattr(message, name, _storable(getattr(message, name)))
    return _encoder.encode(message)


def _storable(value: Any, depth: int = 0) -> Any:
    """The same, with every text storable and everything else that JSON has no form for in words."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value.replace("\0", "\u2400").encode("utf-8", "backslashreplace").decode()
    if depth < DEPTH_LIMIT and isinstance(value, dict):
        return {_storable(str(name)): _storable(entry, depth + 1) for name, entry in value.items()}
    if depth < DEPTH_LIMIT and isinstance(value, list | tuple):
        return [_storable(entry, depth + 1) for entry in value]
    return _storable(f"{type(value).__name__} that cannot be shown")


def storable_text(text: str) -> str:
    """A text that every server and database can keep: no NUL, no half of a surrogate pair."""
    found: str = _storable(text)
    return found
