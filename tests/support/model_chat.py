"""A scripted model server with OpenAI's chat completions: what opencode and qwen talk to in tests.

Steps, gates and scenarios are ``model_server``'s; ``url`` gives the base without ``/v1``, which the CLIs add
(or have in their configured base)::

    with ChatServer() as server:
        server.scenario("write", [CallTool("bash", {"command": "echo hi > note.txt"}), Say("Done.")])
        env["OPENAI_BASE_URL"] = server.url("write") + "/v1"

Each answer is billed alike, see ``USAGE``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from tests.support.model_server import (
    Break,
    CallTool,
    Fail,
    Hang,
    ModelServer,
    Say,
    ScriptedHandler,
    Step,
    Think,
    text_pieces,
)

USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 12,
    "total_tokens": 112,
    "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


class ChatServer(ModelServer):
    """``ModelServer`` for ``POST …/chat/completions``."""

    def handler(self) -> type[ScriptedHandler]:
        return _Handler

    def offered(self, body: dict[str, Any]) -> set[str]:
        return {
            tool["function"]["name"]
            for tool in body.get("tools") or []
            if isinstance(tool, dict) and tool.get("type") == "function"
        }

    def answers_since_prompt(self, body: dict[str, Any]) -> int:
        answers = 0
        for message in reversed(body.get("messages", [])):
            if message.get("role") == "assistant":
                answers += 1
            elif message.get("role") == "user":
                break
        return answers


def user_texts(body: dict[str, Any]) -> list[str]:
    """All texts of user messages in a request, oldest first; the CLI's own reminders are among them."""
    return _texts(body, "user")


def system_texts(body: dict[str, Any]) -> list[str]:
    return _texts(body, "system")


def tool_results(body: dict[str, Any]) -> list[str]:
    """Contents of all tool results in a request, oldest first."""
    return _texts(body, "tool")


def _texts(body: dict[str, Any], role: str) -> list[str]:
    texts: list[str] = []
    for message in body.get("messages", []):
        if message.get("role") == role:
            content = message.get("content")
            if isinstance(content, str):
                texts.append(content)
            else:
                texts.extend(part["text"] for part in content or [] if part.get("type") == "text")
    return texts


class _Handler(ScriptedHandler):
    def answer(self, scenario: str, route: str, body: dict[str, Any]) -> None:
        if not scenario or not route.endswith("chat/completions"):
            self.send_json(404, {"error": {"message": f"not here: {self.path}", "type": "not_found_error"}})
            return
        step = self.model.take_step(scenario, body)
        if step.gate is not None:
            step.gate.hold()
        if isinstance(step, Fail):
            error = {
                "message": step.message,
                "type": step.kind or "scripted_error",
                "code": step.kind or None,
            }
            headers = [("retry-after", step.retry_after)] if step.retry_after else []
            self.send_json(step.status, {"error": error}, headers)
        elif body.get("stream", False):
            self._stream(step, body)
        else:
            self.send_json(200, self._whole(step, body))

    def _head(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.model.number()}",
            "object": kind,
            "created": int(time.time()),
            "model": body.get("model", "stub-model"),
        }

    def _deltas(self, step: Step) -> Iterator[dict[str, Any]]:
        if isinstance(step, Think):
            yield {"reasoning_content": step.thinking}
        for piece in text_pieces(step):
            yield {"content": piece}
        if isinstance(step, CallTool):
            call: dict[str, Any] = {"index": 0, "id": f"call_{self.model.number()}", "type": "function"}
            yield {"tool_calls": [call | {"function": {"name": step.name, "arguments": ""}}]}
            yield {"tool_calls": [{"index": 0, "function": {"arguments": json.dumps(step.input)}}]}

    def _whole(self, step: Step, body: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(text_pieces(step)) or None}
        if isinstance(step, Think):
            message["reasoning_content"] = step.thinking
        if isinstance(step, CallTool):
            function = {"name": step.name, "arguments": json.dumps(step.input)}
            call = {"id": f"call_{self.model.number()}", "type": "function", "function": function}
            message["tool_calls"] = [call]
        choice = {"index": 0, "message": message, "finish_reason": _finish(step)}
        return self._head(body, "chat.completion") | {"choices": [choice], "usage": USAGE}

    def _stream(self, step: Step, body: dict[str, Any]) -> None:
        self.begin_stream()
        head = self._head(body, "chat.completion.chunk")

        def send(delta: dict[str, Any], finish: str | None = None) -> None:
            self.send_data(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

        send({"role": "assistant", "content": ""})
        pause_s = step.pause_s if isinstance(step, Say) else 0.0
        for delta in self._deltas(step):
            if pause_s and self.model.wait_stopping(pause_s):
                return
            send(delta)
        if isinstance(step, Break):
            return
        if isinstance(step, Hang):
            self.hang()
            return
        send({}, _finish(step))
        self.send_data(head | {"choices": [], "usage": USAGE})
        self.send_data("[DONE]")


def _finish(step: Step) -> str:
    return "tool_calls" if isinstance(step, CallTool) else "stop"
