"""What reading an agent's output costs: events made of it, by protocol family.

A family is added with an entry of ``STREAMS``: what its agent says before, in and after a turn of which one
round (a few words, a tool call, its result) is repeated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.rows import Row, median, spread
from daemon_core.agents.families import families
from daemon_core.agents.family import LaunchRequest
from daemon_core.tasks.run import READ_BYTES
from daemon_core.tasks.translate import digest

EVENTS = 60_000
ROUNDS = 5


class Stream(NamedTuple):
    """An agent's output. ``round`` gives the bytes of one round; ``events`` are made of each."""

    before: bytes
    round: Callable[[int], bytes]
    after: bytes
    events: int


def measure() -> list[Row]:
    """Bytes into events, and into events and encoded messages, as a run has it; no disk and no shim."""
    rows = []
    for family, stream in STREAMS.items():
        rounds = EVENTS // stream.events
        data = stream.before + b"".join(stream.round(number) for number in range(rounds)) + stream.after
        found = [_read(family, data) for _ in range(ROUNDS)]
        events = found[0].events
        if events < rounds * stream.events:
            raise RuntimeError(f"{family}: {events} events of {rounds} rounds")
        costs = [each.read_s / events * 1e6 for each in found]
        whole = [(each.read_s + each.digest_s) / events * 1e6 for each in found]
        size = len(data) / events
        rows += [
            Row(
                f"{family}: an event",
                median(costs),
                "µs",
                "",
                f"{spread(costs, 'µs')}, {size:.0f} bytes each",
            ),
            Row(f"{family}: an event and its message", median(whole), "µs", "", spread(whole, "µs")),
            Row(
                f"{family}: snapshot of the reader",
                found[0].snapshot_us,
                "µs",
                "",
                f"{found[0].snapshot_bytes} bytes",
            ),
        ]
    return rows


class _Found(NamedTuple):
    read_s: float
    digest_s: float
    events: int
    snapshot_us: float
    snapshot_bytes: int


def _read(family: str, data: bytes) -> _Found:
    request = LaunchRequest(executable="/bin/agent", prompt="x", work_dir="/srv/task", run_dir="/run")
    reader = families()[family].reader(request)
    read_s = digest_s = 0.0
    events, seq = 0, 1
    snapshots: list[float] = []
    snapshot = b""
    for start in range(0, len(data), READ_BYTES):
        piece = data[start : start + READ_BYTES]
        at = time.perf_counter()
        made = reader.feed(piece)
        read_s += time.perf_counter() - at
        at = time.perf_counter()
        seq = digest(made, seq).next_seq
        digest_s += time.perf_counter() - at
        events += len(made)
        for write in reader.pending_writes():
            reader.acknowledged(write.number)
        at = time.perf_counter()
        snapshot = reader.snapshot()
        snapshots.append(time.perf_counter() - at)
    return _Found(read_s, digest_s, events, median(snapshots) * 1e6, len(snapshot))


def _line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


# --- the families ----------------------------------------------------------------------------------

_TEXT = "Now I look at the next file, and then at the one after it. "
_OUTPUT = "".join(f"{number}: a line of a file that was looked at\n" for number in range(10))


def _claude(number: int) -> bytes:
    def message(kind: str, *parts: dict[str, Any]) -> bytes:
        return _line(type=kind, message={"role": kind, "content": list(parts)}, session_id="s")

    call = {"type": "tool_use", "id": f"t{number}", "name": "Bash", "input": {"command": f"cat file{number}"}}
    result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": _OUTPUT, "is_error": False}
    text = {"type": "text", "text": _TEXT}
    return message("assistant", text) + message("assistant", call) + message("user", result)


_HERE = {"threadId": "thread", "turnId": "turn"}


def _told(method: str, **params: Any) -> bytes:
    return _line(method=method, params=_HERE | params)


def _codex(number: int) -> bytes:
    message = {"type": "agentMessage", "id": f"m{number}", "text": "", "phase": None}
    command = {
        "type": "commandExecution",
        "id": f"c{number}",
        "command": f"/bin/bash -lc 'cat file{number}'",
        "cwd": "/srv/task",
        "status": "inProgress",
        "aggregatedOutput": None,
        "exitCode": None,
    }
    ended = command | {"status": "completed", "aggregatedOutput": _OUTPUT, "exitCode": 0}
    return b"".join(
        [
            _told("item/started", item=message),
            *(
                _told("item/agentMessage/delta", itemId=f"m{number}", delta=word + " ")
                for word in _TEXT.split()
            ),
            _told("item/completed", item=message | {"text": _TEXT}),
            _told("item/started", item=command),
            _told("item/completed", item=ended),
        ]
    )


def _acp(number: int) -> bytes:
    def told(kind: str, /, **fields: Any) -> bytes:
        update = {"sessionUpdate": kind, **fields}
        params = {"sessionId": "s", "update": update}
        return _line(jsonrpc="2.0", method="session/update", params=params)

    call = {"toolCallId": f"t{number}", "title": "shell", "kind": "execute", "status": "in_progress"}
    output = [{"type": "content", "content": {"type": "text", "text": _OUTPUT}}]
    return b"".join(
        [
            *(
                told("agent_message_chunk", content={"type": "text", "text": word + " "})
                for word in _TEXT.split()
            ),
            told("tool_call", **call, rawInput={"command": f"cat file{number}"}),
            told("tool_call_update", toolCallId=f"t{number}", status="completed", content=output),
        ]
    )


def _opencode(number: int) -> bytes:
    def told(kind: str, **part: Any) -> bytes:
        return _line(type=kind, sessionID="ses_1", part=part)

    state = {"status": "completed", "input": {"command": f"cat file{number}"}, "output": _OUTPUT}
    tokens = {"input": 60, "output": 7, "reasoning": 5, "cache": {"read": 40, "write": 0}}
    return b"".join(
        [
            told("step_start"),
            told("text", text=_TEXT),
            told("tool_use", tool="bash", callID=f"t{number}", state=state),
            told("step_finish", reason="tool-calls", tokens=tokens),
        ]
    )


def _gemini(number: int) -> bytes:
    name, call_id = "run_shell_command", f"t{number}"
    given = {"command": f"cat file{number}"}
    return b"".join(
        [
            *(
                _line(type="message", role="assistant", content=word + " ", delta=True)
                for word in _TEXT.split()
            ),
            _line(type="tool_use", tool_name=name, tool_id=call_id, parameters=given),
            _line(type="tool_result", tool_id=call_id, status="success", output=_OUTPUT),
        ]
    )


STREAMS: Mapping[str, Stream] = {
    "acp": Stream(
        before=_line(jsonrpc="2.0", id=1, result={"protocolVersion": 1, "agentCapabilities": {}})
        + _line(jsonrpc="2.0", id=2, result={"sessionId": "s"}),
        round=_acp,
        after=_line(jsonrpc="2.0", id=3, result={"stopReason": "end_turn"}),
        events=3,
    ),
    "claude-stream-json": Stream(
        before=_line(type="system", subtype="init", session_id="s", model="m"),
        round=_claude,
        after=_line(type="result", subtype="success", is_error=False, result="Done.", session_id="s"),
        events=3,
    ),
    "codex-app-server": Stream(
        before=_line(id=1, result={})
        + _line(id=2, result={"thread": {"id": "thread"}, "model": "m"})
        + _line(id=3, result={"turn": {"id": "turn"}}),
        round=_codex,
        after=_told("turn/completed", turn={"id": "turn", "status": "completed"}),
        events=3,
    ),
    "gemini-stream-json": Stream(
        before=_line(type="init", session_id="s", model="m"),
        round=_gemini,
        after=_line(type="result", status="success", stats={}),
        events=3,
    ),
    "opencode-json": Stream(before=b"", round=_opencode, after=b"", events=4),
    "qwen-stream-json": Stream(
        before=_line(type="system", subtype="init", session_id="s", model="m"),
        round=_claude,
        after=_line(type="result", subtype="success", is_error=False, result="Done.", session_id="s"),
        events=3,
    ),
}
