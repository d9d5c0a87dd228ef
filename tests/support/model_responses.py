"""A scripted model server with OpenAI's Responses interface: what the real Codex talks to in tests.

Steps, gates and scenarios are ``model_server``'s; ``url`` gives the base without ``/v1``::

    with ResponsesServer() as server:
        server.scenario("write", [CallTool("exec_command", {"cmd": "echo hi > note.txt"}), Say("Done.")])
        env = codex_env(home, server.url("write"))

Each answer is billed alike, see ``USAGE``.
"""

from __future__ import annotations

import json
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
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 40},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 112,
}


class ResponsesServer(ModelServer):
    """``ModelServer`` for ``POST …/v1/responses``."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: dict[str, str] = {}
        """Sent as headers with every answer."""
        self.error_fields: dict[str, Any] = {}
        """Added to the ``error`` of every failure."""

    def handler(self) -> type[ScriptedHandler]:
        return _Handler

    def offered(self, body: dict[str, Any]) -> set[str]:
        """Names of the tools; those of an MCP server as ``namespace.name``."""
        found: set[str] = set()
        for tool in body.get("tools") or []:
            if tool.get("type") == "namespace":
                found |= {f"{tool['name']}.{each['name']}" for each in tool.get("tools") or []}
            elif "name" in tool:
                found.add(tool["name"])
        return found

    def answers_since_prompt(self, body: dict[str, Any]) -> int:
        answers = 0
        for item in reversed(body.get("input") or []):
            kind = item.get("type")
            if kind == "message" and item.get("role") == "user":
                break
            if kind == "function_call" or (kind == "message" and item.get("role") == "assistant"):
                answers += 1
        return answers


def user_texts(body: dict[str, Any]) -> list[str]:
    """All texts of user messages in a request, oldest first; the CLI's own context is among them."""
    return _texts(body, "user")


def developer_texts(body: dict[str, Any]) -> list[str]:
    return _texts(body, "developer")


def tool_results(body: dict[str, Any]) -> list[Any]:
    """Outputs of all tool calls in a request, oldest first."""
    return [
        item.get("output") for item in body.get("input") or [] if item.get("type") == "function_call_output"
    ]


def _tool(body: dict[str, Any], name: str) -> dict[str, Any]:
    return next((tool for tool in body.get("tools") or [] if tool.get("name") == name), {})


def _texts(body: dict[str, Any], role: str) -> list[str]:
    return [
        part["text"]
        for item in body.get("input") or []
        if item.get("type") == "message" and item.get("role") == role
        for part in item.get("content") or []
        if "text" in part
    ]


class _Handler(ScriptedHandler):
    def answer(self, scenario: str, route: str, body: dict[str, Any]) -> None:
        if not scenario or not route.endswith("responses"):
            self.send_json(404, {"error": {"message": f"not here: {self.path}", "type": "not_found_error"}})
            return
        step = self.model.take_step(scenario, body)
        if step.gate is not None:
            step.gate.hold()
        if isinstance(step, Fail):
            self._fail(step)
        else:
            self._stream(step, body)

    def _fail(self, step: Fail) -> None:
        assert isinstance(self.model, ResponsesServer)
        kind = step.kind or {400: "invalid_request_error", 401: "invalid_api_key"}.get(step.status, "error")
        error = {"message": step.message, "type": kind, "code": kind, **self.model.error_fields}
        headers = [("retry-after", step.retry_after)] if step.retry_after else []
        self.send_json(step.status, {"error": error}, [*headers, *self.model.limits.items()])

    def _items(
        self, step: Step, body: dict[str, Any]
    ) -> Iterator[tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]]:
        """The items of an answer, whole, each with the events that it is streamed in."""
        if isinstance(step, Think):
            item = {
                "type": "reasoning",
                "id": f"rs_{self.model.number()}",
                "summary": [{"type": "summary_text", "text": step.thinking}],
            }
            at = {"item_id": item["id"], "summary_index": 0}
            yield (
                item,
                [
                    ("response.reasoning_summary_part.added", at),
                    ("response.reasoning_summary_text.delta", at | {"delta": step.thinking}),
                ],
            )
        pieces = text_pieces(step)
        if pieces:
            item = {
                "type": "message",
                "role": "assistant",
                "id": f"msg_{self.model.number()}",
                "content": [{"type": "output_text", "text": "".join(pieces)}],
            }
            at = {"item_id": item["id"], "content_index": 0}
            yield item, [("response.output_text.delta", at | {"delta": piece}) for piece in pieces]
        if isinstance(step, CallTool):
            namespace, _, name = step.name.rpartition(".")
            item = {
                "type": "function_call",
                "id": f"fc_{self.model.number()}",
                "call_id": f"call_{self.model.number()}",
                "name": name,
                "arguments": json.dumps(step.input),
            }
            if {"type": "custom", "name": name}.items() <= _tool(body, name).items():
                # A tool that takes a text as it is, not JSON.
                del item["arguments"]
                item |= {"type": "custom_tool_call", "input": step.input["input"]}
            yield item | ({"namespace": namespace} if namespace else {}), []

    def _stream(self, step: Step, body: dict[str, Any]) -> None:
        assert isinstance(self.model, ResponsesServer)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        for name, value in self.model.limits.items():
            self.send_header(name, value)
        self.end_headers()
        ident = f"resp_{self.model.number()}"
        self._event("response.created", response={"id": ident, "status": "in_progress"})
        pause_s = step.pause_s if isinstance(step, Say) else 0.0
        for index, (item, events) in enumerate(self._items(step, body)):
            begun = {**item, "content": []} if "content" in item else item
            self._event("response.output_item.added", output_index=index, item=begun)
            for kind, data in events:
                if pause_s and self.model.wait_stopping(pause_s):
                    return
                self._event(kind, output_index=index, **data)
            if isinstance(step, Break):
                return
            if isinstance(step, Hang):
                self.hang()
                return
            self._event("response.output_item.done", output_index=index, item=item)
        self._event("response.completed", response={"id": ident, "status": "completed", "usage": USAGE})

    def _event(self, kind: str, **data: Any) -> None:
        payload = json.dumps({"type": kind, **data})
        self.wfile.write(f"event: {kind}\ndata: {payload}\n\n".encode())
        self.wfile.flush()
