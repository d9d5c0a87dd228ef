"""Streams of agents that nobody here could run, as their makers or others who drive them describe them.

Each is a run with a thought, a tool call and an answer, and what a reader must make of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from daemon_core.protocol.wire import Usage

SESSION = "3f1c2f0a-7a58-4a0e-9d0c-0c9b8d1f2e3a"


@dataclass(frozen=True)
class Documented:
    """One run of a provider.

    Attributes:
        files: Left in the run's directory.
    """

    provider: str
    stdout: bytes
    usage: tuple[Usage, ...] = ()
    session_id: str = SESSION
    thinks: bool = True
    tool: str = "bash"
    has_tool: bool = True
    files: dict[str, str] = field(default_factory=dict)


ANSWER = "The note is made."


def lines(*objects: Any) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in objects)


_IDS = {"session_id": SESSION}
_RUN = {"command": "echo hi > note.txt"}

CURSOR = Documented(
    "cursor",
    lines(
        {
            "type": "system",
            "subtype": "init",
            "cwd": "/srv/task",
            "model": "Sonnet",
            "apiKeySource": "login",
            **_IDS,
        },
        {"type": "user", "message": {"role": "user", "content": [{"type": "text", "text": "go"}]}, **_IDS},
        {"type": "thinking", "subtype": "delta", "text": "I pon", **_IDS},
        {"type": "thinking", "subtype": "delta", "text": "der.", **_IDS},
        {"type": "thinking", "subtype": "completed", **_IDS},
        {
            "type": "tool_call",
            "subtype": "started",
            "call_id": "c1",
            "tool_call": {"shellToolCall": {"args": _RUN}},
            **_IDS,
        },
        {
            "type": "tool_call",
            "subtype": "completed",
            "call_id": "c1",
            "tool_call": {
                "shellToolCall": {"args": _RUN, "result": {"success": {"stdout": "made", "exitCode": 0}}}
            },
            **_IDS,
        },
        {
            "type": "assistant",
            "message": {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]},
            **_IDS,
        },
        {
            "type": "result",
            "subtype": "success",
            "is_error": False,
            "duration_ms": 5234,
            "result": ANSWER,
            "usage": {"inputTokens": 100, "outputTokens": 12, "cacheReadTokens": 40, "cacheWriteTokens": 3},
            **_IDS,
        },
    ),
    (
        Usage(
            provider="cursor",
            model="Sonnet",
            input_tokens=100,
            output_tokens=12,
            cache_read_tokens=40,
            cache_write_tokens=3,
        ),
    ),
    tool="shell",
)

COPILOT = Documented(
    "copilot",
    lines(
        {"type": "session.start", "data": {"sessionId": SESSION, "selectedModel": "gpt-5"}, "id": "1"},
        {"type": "assistant.turn_start", "data": {}},
        {"type": "assistant.reasoning_delta", "data": {"deltaContent": "I pon"}, "ephemeral": True},
        {"type": "assistant.reasoning_delta", "data": {"deltaContent": "der."}, "ephemeral": True},
        {"type": "assistant.reasoning", "data": {"content": "I ponder."}},
        {
            "type": "assistant.message",
            "data": {
                "messageId": "m1",
                "content": "",
                "outputTokens": 5,
                "toolRequests": [{"toolCallId": "c1", "name": "bash", "arguments": _RUN, "type": "function"}],
            },
        },
        {"type": "tool.execution_start", "data": {"toolCallId": "c1", "toolName": "bash", "arguments": _RUN}},
        {
            "type": "tool.execution_complete",
            "data": {
                "toolCallId": "c1",
                "success": True,
                "result": {"content": "made", "detailedContent": "made!"},
            },
        },
        {"type": "assistant.message_delta", "data": {"messageId": "m2", "deltaContent": "The note "}},
        {"type": "assistant.message_delta", "data": {"messageId": "m2", "deltaContent": "is "}},
        {"type": "assistant.message", "data": {"messageId": "m2", "content": ANSWER, "outputTokens": 7}},
        {"type": "result", "sessionId": SESSION, "exitCode": 0, "usage": {"premiumRequests": 1}},
    ),
    (Usage(provider="copilot", model="gpt-5", output_tokens=12),),
)

_PI_USAGE = {"input": 60, "output": 6, "cacheRead": 20, "cacheWrite": 1, "totalTokens": 87}


def _pi(provider: str) -> Documented:
    return Documented(
        provider,
        lines(
            {
                "type": "session",
                "version": 3,
                "id": SESSION,
                "timestamp": "2026-01-01T00:00:00Z",
                "cwd": "/srv/task",
            },
            {"type": "agent_start"},
            {"type": "turn_start"},
            {"type": "message_start", "message": {"role": "assistant", "content": []}},
            {"type": "message_update", "assistantMessageEvent": {"type": "thinking_delta", "delta": "I pon"}},
            {"type": "message_update", "assistantMessageEvent": {"type": "thinking_delta", "delta": "der."}},
            {"type": "message_end", "message": {"role": "assistant"}},
            {"type": "tool_execution_start", "toolCallId": "c1", "toolName": "bash", "args": _RUN},
            {
                "type": "tool_execution_end",
                "toolCallId": "c1",
                "toolName": "bash",
                "result": {"content": [{"type": "text", "text": "made"}]},
                "isError": False,
            },
            {
                "type": "turn_end",
                "message": {
                    "role": "assistant",
                    "model": "sonnet",
                    "usage": _PI_USAGE,
                    "stopReason": "toolUse",
                },
                "toolResults": [],
            },
            {"type": "message_update", "assistantMessageEvent": {"type": "text_delta", "delta": "The note "}},
            {"type": "message_update", "assistantMessageEvent": {"type": "text_delta", "delta": "is made."}},
            {
                "type": "turn_end",
                "message": {"role": "assistant", "model": "sonnet", "usage": _PI_USAGE, "stopReason": "stop"},
                "toolResults": [],
            },
            {"type": "agent_end", "messages": []},
        ),
        (
            Usage(
                provider=provider,
                model="sonnet",
                input_tokens=120,
                output_tokens=12,
                cache_read_tokens=40,
                cache_write_tokens=2,
            ),
        ),
    )


OPENCLAW = Documented(
    "openclaw",
    b"[plugins] loaded {3 of 4}\n"
    + json.dumps(
        {
            "payloads": [{"text": ANSWER, "mediaUrl": None}],
            "meta": {
                "durationMs": 1200,
                "agentMeta": {
                    "sessionId": SESSION,
                    "provider": "anthropic",
                    "model": "opus",
                    "usage": {"input": 100, "output": 12, "cacheRead": 40, "cacheWrite": 2, "total": 154},
                },
                "aborted": False,
            },
        },
        indent=2,
    ).encode()
    + b"\n",
    (
        Usage(
            provider="openclaw",
            model="opus",
            input_tokens=100,
            output_tokens=12,
            cache_read_tokens=40,
            cache_write_tokens=2,
        ),
    ),
    thinks=False,
    has_tool=False,
)

_DSH = {"v": 1, "request_id": "ostler-run"}
DSH = Documented(
    "dsh",
    lines(
        {"v": 1, "type": "ready", "runtime": "dsh", "protocol_version": 1},
        {**_DSH, "type": "session", "session_id": SESSION},
        {**_DSH, "request_id": "another", "type": "text", "content": "not ours"},
        {**_DSH, "type": "thinking", "content": "I pon"},
        {**_DSH, "type": "thinking", "content": "der."},
        {**_DSH, "type": "tool_call", "call_id": "c1", "name": "bash", "arguments": json.dumps(_RUN)},
        {**_DSH, "type": "tool_result", "call_id": "c1", "name": "bash", "output": "made"},
        {**_DSH, "type": "usage", "provider": "p", "model": "m", "input_tokens": 50, "output_tokens": 6},
        {**_DSH, "type": "usage", "provider": "p", "model": "m", "input_tokens": 50, "output_tokens": 6},
        {**_DSH, "type": "text", "content": "The note "},
        {**_DSH, "type": "text", "content": "is made."},
        {**_DSH, "type": "result", "status": "completed", "output": ANSWER, "session_id": SESSION},
    ),
    (Usage(provider="dsh", model="p/m", input_tokens=100, output_tokens=12),),
)

ANTIGRAVITY = Documented(
    "antigravity",
    f"{ANSWER}\n".encode(),
    thinks=False,
    has_tool=False,
    files={"agent.log": f"I0101 starting\nI0101 server.go:7] conversation={SESSION} created\n"},
)

_PART = {"sessionID": SESSION, "messageID": "m1"}
_TOKENS = {"total": 56, "input": 30, "output": 4, "reasoning": 2, "cache": {"read": 20, "write": 0}}
DEVECO = Documented(
    "deveco",
    lines(
        {"type": "step_start", "sessionID": SESSION, "part": {**_PART, "type": "step-start"}},
        {
            "type": "reasoning",
            "sessionID": SESSION,
            "part": {**_PART, "type": "reasoning", "text": "I ponder."},
        },
        {
            "type": "tool_use",
            "sessionID": SESSION,
            "part": {
                **_PART,
                "tool": "bash",
                "callID": "c1",
                "state": {"status": "completed", "input": _RUN, "output": "made"},
            },
        },
        {
            "type": "step_finish",
            "sessionID": SESSION,
            "part": {**_PART, "reason": "tool-calls", "tokens": _TOKENS},
        },
        {"type": "step_start", "sessionID": SESSION, "part": {**_PART, "type": "step-start"}},
        {"type": "text", "sessionID": SESSION, "part": {**_PART, "type": "text", "text": ANSWER}},
        {"type": "step_finish", "sessionID": SESSION, "part": {**_PART, "reason": "stop", "tokens": _TOKENS}},
    ),
    (Usage(provider="deveco", model="default", input_tokens=60, output_tokens=12, cache_read_tokens=40),),
)

DOCUMENTED: dict[str, Documented] = {
    each.provider: each
    for each in (CURSOR, COPILOT, _pi("pi"), _pi("omp"), OPENCLAW, DSH, ANTIGRAVITY, DEVECO)
}
