"""A scripted model server with Google's generateContent: what the Gemini CLI talks to in tests.

Steps, gates and scenarios are ``model_server``'s::

    with GeminiServer() as server:
        server.scenario("write", [CallTool("run_shell_command", {"command": "date > note"}), Say("Done.")])
        env["GOOGLE_GEMINI_BASE_URL"] = server.url("write")

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
    "promptTokenCount": 100,
    "candidatesTokenCount": 12,
    "totalTokenCount": 117,
    "cachedContentTokenCount": 40,
    "thoughtsTokenCount": 5,
}

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}

_CLASSIFIED = json.dumps({"complexity_reasoning": "x", "complexity_score": 1})
"""What the CLI's classifier (model ``auto``) wants to hear."""


class GeminiServer(ModelServer):
    """``ModelServer`` for ``POST …/v1beta/models/M:streamGenerateContent`` and its like."""

    def handler(self) -> type[ScriptedHandler]:
        return _Handler

    def offered(self, body: dict[str, Any]) -> set[str]:
        return {
            function["name"]
            for tool in body.get("tools") or []
            if isinstance(tool, dict)
            for function in tool.get("functionDeclarations") or []
        }

    def answers_since_prompt(self, body: dict[str, Any]) -> int:
        answers = 0
        for content in reversed(body.get("contents", [])):
            if content.get("role") == "model":
                answers += 1
            elif not any("functionResponse" in part for part in content.get("parts", [])):
                break
        return answers


def user_texts(body: dict[str, Any]) -> list[str]:
    """All texts of the user in a request, oldest first; the CLI's own reminders are among them."""
    return [
        part["text"]
        for content in body.get("contents", [])
        if content.get("role") == "user"
        for part in content.get("parts", [])
        if "text" in part
    ]


def system_text(body: dict[str, Any]) -> str:
    parts = (body.get("systemInstruction") or {}).get("parts", [])
    return "\n".join(part["text"] for part in parts if "text" in part)


def tool_results(body: dict[str, Any]) -> list[Any]:
    """The responses of all functions in a request, oldest first."""
    return [
        part["functionResponse"].get("response")
        for content in body.get("contents", [])
        for part in content.get("parts", [])
        if "functionResponse" in part
    ]


class _Handler(ScriptedHandler):
    def answer(self, scenario: str, route: str, body: dict[str, Any]) -> None:
        path, _, verb = route.rpartition(":")
        name = path.rpartition("/")[2]
        if verb == "countTokens":
            self.send_json(200, {"totalTokens": 10})
            return
        if not scenario or verb not in ("generateContent", "streamGenerateContent"):
            self._error(404, f"not here: {self.path}")
            return
        step = self.model.take_step(scenario, body | {"model": name})
        if step.gate is not None:
            step.gate.hold()
        if isinstance(step, Fail):
            headers = [("retry-after", step.retry_after)] if step.retry_after else []
            self._error(step.status, step.message, step.kind, headers)
        elif verb == "streamGenerateContent":
            self._stream(step, name)
        elif not self.model.offered(body):
            self.send_json(200, _chunk(name, [{"text": _CLASSIFIED}], finished=True))
        else:
            self.send_json(200, _chunk(name, list(self._parts(step)), finished=True))

    def _error(
        self, status: int, message: str, kind: str = "", headers: list[tuple[str, str]] | None = None
    ) -> None:
        error = {"code": status, "message": message, "status": kind or _STATUSES.get(status, "UNKNOWN")}
        self.send_json(status, {"error": error}, headers or ())

    def _parts(self, step: Step) -> Iterator[dict[str, Any]]:
        if isinstance(step, Think):
            yield {"text": step.thinking, "thought": True}
        for piece in text_pieces(step):
            yield {"text": piece}
        if isinstance(step, CallTool):
            yield {"functionCall": {"name": step.name, "args": step.input}}

    def _stream(self, step: Step, name: str) -> None:
        self.begin_stream()
        pause_s = step.pause_s if isinstance(step, Say) else 0.0
        for part in self._parts(step):
            if pause_s and self.model.wait_stopping(pause_s):
                return
            self.send_data(_chunk(name, [part]))
        if isinstance(step, Break):
            return
        if isinstance(step, Hang):
            self.hang()
            return
        self.send_data(_chunk(name, [], finished=True))


def _chunk(model: str, parts: list[dict[str, Any]], *, finished: bool = False) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": parts}}
    if not finished:
        return {"candidates": [candidate], "modelVersion": model}
    if not parts:
        candidate["content"]["parts"] = [{"text": ""}]
    candidate["finishReason"] = "STOP"
    return {"candidates": [candidate], "modelVersion": model, "usageMetadata": USAGE}
