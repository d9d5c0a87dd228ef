"""A scripted model server on loopback: what the real Claude Code CLI talks to in tests.

It answers Anthropic's Messages API as far as the CLI uses it. The scenario is named in the URL, so that many
tests, and many runs in one daemon, can share a server::

    with ModelServer() as server:
        server.scenario("write", [CallTool("Bash", {"command": "echo hi > note.txt"}), Say("Done.")])
        env["ANTHROPIC_BASE_URL"] = server.url("write")
        ...
        assert server.requests("write")[0]["model"] == "claude-opus-4"

A scenario is a list of steps; each *main* request (one that offers tools) takes the next one. Side requests
of the CLI (titles, counts, classifiers) get a short text and take none. When the steps are used up, further
main requests get ``Say("Done.")``. With ``each_turn=True`` the steps are counted from the last user message
on, so that every turn of a conversation plays the same list.

Other interfaces of models are subclasses: ``model_chat``, ``model_gemini``.

To hold an answer until the test says so, give the step a gate::

    gate = server.gate()
    server.scenario("held", [CallTool("Bash", {...}), Say("late", gate=gate)])
    gate.wait_reached()      # the CLI has asked, the answer is held
    gate.release()
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

WAIT_S = 60.0
"""How long a gate waits for the other side before it gives up; a test that needs more is wrong."""


class Gate:
    """Holds one answer. ``wait_reached`` is the test's side, ``release`` lets the answer go."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._released = threading.Event()

    def wait_reached(self, timeout_s: float = WAIT_S) -> None:
        """Return once a request waits here. Raises ``TimeoutError`` when none comes."""
        if not self._reached.wait(timeout_s):
            raise TimeoutError("no request has reached the gate")

    @property
    def reached(self) -> bool:
        return self._reached.is_set()

    def release(self) -> None:
        self._released.set()

    def hold(self) -> None:
        """The server's side."""
        self._reached.set()
        self._released.wait(WAIT_S * 5)


@dataclass(frozen=True)
class Say:
    """Answer with a text, in ``pieces`` deltas with a pause of ``pause_s`` before each."""

    text: str
    pieces: int = 1
    pause_s: float = 0.0
    gate: Gate | None = None


@dataclass(frozen=True)
class Think:
    """Answer with a thinking block and then a text."""

    thinking: str
    text: str = "Thought about it."
    gate: Gate | None = None


@dataclass(frozen=True)
class CallTool:
    """Answer with a tool call (after ``text``, if given). A tool that is not offered is not called."""

    name: str
    input: dict[str, Any]
    text: str = ""
    gate: Gate | None = None
    deferred: bool = False
    """Called although it is not offered: some CLIs hide the tools of MCP servers behind a search."""


@dataclass(frozen=True)
class Fail:
    """Answer with an HTTP error, ``times`` times (None: from now on always)."""

    status: int
    kind: str = ""
    message: str = "scripted failure"
    times: int | None = None
    retry_after: str = ""
    gate: Gate | None = None


@dataclass(frozen=True)
class Hang:
    """Begin an answer with ``text`` and then only send pings until the client goes away."""

    text: str = "I am about to hang."
    gate: Gate | None = None


@dataclass(frozen=True)
class Break:
    """Begin an answer and drop the connection in the middle of it, ``times`` times."""

    text: str = "cut o"
    times: int | None = 1
    gate: Gate | None = None


Step = Say | Think | CallTool | Fail | Hang | Break

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


@dataclass
class _Scenario:
    steps: list[Step]
    each_turn: bool
    position: int = 0
    used: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    side_requests: list[dict[str, Any]] = field(default_factory=list)


class ModelServer:
    """The server. ``start`` and ``close`` (or ``with``); everything else may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._scenarios: dict[str, _Scenario] = {}
        self._gates: list[Gate] = []
        self._stopping = threading.Event()
        self._numbers = 0
        self._http: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    def start(self) -> Self:
        self._http = _Server(("127.0.0.1", 0), type("_BoundHandler", (self.handler(),), {"model": self}))
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, name="model-server"
        )
        self._thread.start()
        return self

    def close(self) -> None:
        """Let go of everything held or hanging and wait for the threads."""
        self._stopping.set()
        with self._lock:
            for gate in self._gates:
                gate.release()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def scenario(self, name: str, steps: Sequence[Step], *, each_turn: bool = False) -> str:
        """Set (or replace) a scenario and give its base URL."""
        with self._changed:
            self._scenarios[name] = _Scenario(list(steps), each_turn)
            for step in steps:
                if step.gate is not None and step.gate not in self._gates:
                    self._gates.append(step.gate)
        return self.url(name)

    def gate(self) -> Gate:
        """A gate that is released when the server closes."""
        gate = Gate()
        with self._lock:
            self._gates.append(gate)
        return gate

    def url(self, name: str) -> str:
        """Base URL of a scenario: the CLI's ``ANTHROPIC_BASE_URL``."""
        return f"http://127.0.0.1:{self.port}/s/{name}"

    def requests(self, name: str) -> list[dict[str, Any]]:
        """Bodies of the main requests so far, oldest first."""
        with self._lock:
            found = self._scenarios.get(name)
            return list(found.requests) if found else []

    def side_requests(self, name: str) -> list[dict[str, Any]]:
        """Bodies of the requests that took no step."""
        with self._lock:
            found = self._scenarios.get(name)
            return list(found.side_requests) if found else []

    def wait_requests(self, name: str, count: int, timeout_s: float = WAIT_S) -> list[dict[str, Any]]:
        """The main requests, once there are ``count``. Raises ``TimeoutError``."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: name in self._scenarios and len(self._scenarios[name].requests) >= count, timeout_s
            ):
                raise TimeoutError(f"scenario {name!r} has not seen {count} requests")
            return list(self._scenarios[name].requests)

    # --- what differs between the interfaces of models; others are subclasses ---

    def handler(self) -> type[ScriptedHandler]:
        return _Handler

    def offered(self, body: dict[str, Any]) -> set[str]:
        """Names of the tools that a request offers; a request without any is a side request."""
        return {tool["name"] for tool in body.get("tools") or [] if isinstance(tool, dict) and "name" in tool}

    def answers_since_prompt(self, body: dict[str, Any]) -> int:
        """How many answers of the model follow the last message a person wrote."""
        return _answers_since_prompt(body)

    # --- the handler's side ---

    def take_step(self, name: str, body: dict[str, Any]) -> Step:
        with self._changed:
            scenario = self._scenarios.get(name)
            if scenario is None:
                return Fail(404, message=f"no scenario {name!r}")
            offered = self.offered(body)
            if not offered:
                scenario.side_requests.append(body)
                return Say("ok")
            scenario.requests.append(body)
            self._changed.notify_all()
            if scenario.each_turn:
                scenario.position = self.answers_since_prompt(body)
            if scenario.position >= len(scenario.steps):
                return Say("Done.")
            step = scenario.steps[scenario.position]
            if isinstance(step, Fail | Break):
                scenario.used += 1
                if step.times is not None and scenario.used >= step.times:
                    scenario.position += 1
                    scenario.used = 0
            else:
                scenario.position += 1
            if isinstance(step, CallTool) and step.name not in offered and not step.deferred:
                return Say(f"The tool {step.name} is not offered.", gate=step.gate)
            return step

    def number(self) -> int:
        with self._lock:
            self._numbers += 1
            return self._numbers

    def wait_stopping(self, timeout_s: float) -> bool:
        return self._stopping.wait(timeout_s)


def text_pieces(step: Step) -> list[str]:
    """The text of an answer in the pieces that it is streamed in."""
    text = "" if isinstance(step, Fail) else step.text
    size = max(1, -(-len(text) // max(1, step.pieces if isinstance(step, Say) else 1)))
    return [text[at : at + size] for at in range(0, len(text), size)]


def user_texts(body: dict[str, Any]) -> list[str]:
    """All texts of user messages in a request, oldest first; the CLI's own reminders are among them."""
    texts: list[str] = []
    for message in body.get("messages", []):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                texts.append(content)
            else:
                texts.extend(part["text"] for part in content or [] if part.get("type") == "text")
    return texts


def tool_results(body: dict[str, Any]) -> list[Any]:
    """Contents of all tool results in a request, oldest first."""
    return [
        part.get("content")
        for message in body.get("messages", [])
        if message.get("role") == "user" and isinstance(message.get("content"), list)
        for part in message["content"]
        if part.get("type") == "tool_result"
    ]


def _answers_since_prompt(body: dict[str, Any]) -> int:
    """How many answers of the model follow the last message a person wrote."""
    answers = 0
    for message in reversed(body.get("messages", [])):
        if message.get("role") == "assistant":
            answers += 1
        elif message.get("role") == "user":
            content = message.get("content")
            parts = content if isinstance(content, list) else []
            if not any(part.get("type") == "tool_result" for part in parts):
                break
    return answers


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error here."""


class ScriptedHandler(BaseHTTPRequestHandler):
    """What the handlers of all interfaces share: reading a request, and short answers of JSON."""

    model: ModelServer
    # HTTP/1.0: one request a connection, so that no thread outlives its answer.
    protocol_version = "HTTP/1.0"

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read the request log instead."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        if self.path.partition("?")[0].endswith("/models"):
            self.send_json(200, {"data": [{"type": "model", "id": "stub-model", "display_name": "Stub"}]})
        else:
            self.send_json(
                404, {"type": "error", "error": {"type": "not_found_error", "message": "not here"}}
            )

    def do_POST(self) -> None:
        with contextlib.suppress(ConnectionError):
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                body = json.loads(raw) if raw else {}
            except ValueError:
                body = {}
            parts = self.path.partition("?")[0].split("/")
            scenario = parts[2] if len(parts) > 2 and parts[1] == "s" else ""
            self.answer(scenario, "/".join(parts[3:]), body)

    def answer(self, scenario: str, route: str, body: dict[str, Any]) -> None:
        """Answer a POST; ``route`` is what follows the scenario in the path, without a slash in front."""
        raise NotImplementedError

    def send_json(self, status: int, body: Any, headers: Sequence[tuple[str, str]] = ()) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()

    def send_data(self, payload: Any) -> None:
        """One event that has only data."""
        text = payload if isinstance(payload, str) else json.dumps(payload)
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def hang(self) -> None:
        """Send comments until the server closes or the client goes away."""
        while not self.model.wait_stopping(0.1):
            self.wfile.write(b": ping\n\n")
            self.wfile.flush()


class _Handler(ScriptedHandler):
    def answer(self, scenario: str, route: str, body: dict[str, Any]) -> None:
        if route.endswith("/count_tokens"):
            self.send_json(200, {"input_tokens": 10})
            return
        if not scenario or not route.endswith("v1/messages"):
            error = {"type": "not_found_error", "message": self.path}
            self.send_json(404, {"type": "error", "error": error})
            return
        step = self.model.take_step(scenario, body)
        if step.gate is not None:
            step.gate.hold()
        if isinstance(step, Fail):
            self._fail(step)
        elif body.get("stream", False):
            self._stream(step, body)
        else:
            self.send_json(200, self._message(step, body))

    def _fail(self, step: Fail) -> None:
        error = {"type": step.kind or _KINDS.get(step.status, "api_error"), "message": step.message}
        headers = [("retry-after", step.retry_after)] if step.retry_after else []
        self.send_json(step.status, {"type": "error", "error": error}, headers)

    def _message(self, step: Step, body: dict[str, Any]) -> dict[str, Any]:
        blocks = [dict(block) for block, _ in self._blocks(step)]
        return {
            "id": f"msg_{self.model.number()}",
            "type": "message",
            "role": "assistant",
            "model": body.get("model", "stub-model"),
            "content": blocks,
            "stop_reason": "tool_use" if isinstance(step, CallTool) else "end_turn",
            "stop_sequence": None,
            "usage": _USAGE | {"output_tokens": 12},
        }

    def _blocks(self, step: Step) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """The content blocks of an answer, whole, each with the deltas that it is streamed in."""
        if isinstance(step, Think):
            yield (
                {"type": "thinking", "thinking": step.thinking, "signature": "c2lnbmVk"},
                [
                    {"type": "thinking_delta", "thinking": step.thinking},
                    {"type": "signature_delta", "signature": "c2lnbmVk"},
                ],
            )
        deltas = text_pieces(step)
        if deltas:
            yield (
                {"type": "text", "text": "".join(deltas)},
                [{"type": "text_delta", "text": delta} for delta in deltas],
            )
        if isinstance(step, CallTool):
            block = {
                "type": "tool_use",
                "id": f"toolu_{self.model.number()}",
                "name": step.name,
                "input": step.input,
            }
            yield block, [{"type": "input_json_delta", "partial_json": json.dumps(step.input)}]

    def _stream(self, step: Step, body: dict[str, Any]) -> None:
        self.begin_stream()
        message = self._message(step, body)
        self._event("message_start", message=message | {"content": [], "stop_reason": None, "usage": _USAGE})
        pause_s = step.pause_s if isinstance(step, Say) else 0.0
        empty = {"text": "", "thinking": "", "signature": "", "input": {}}
        for index, (block, deltas) in enumerate(self._blocks(step)):
            begun = {key: empty.get(key, value) for key, value in block.items()}
            self._event("content_block_start", index=index, content_block=begun)
            for delta in deltas:
                if pause_s and self.model.wait_stopping(pause_s):
                    return
                self._event("content_block_delta", index=index, delta=delta)
            if isinstance(step, Break):
                return
            while isinstance(step, Hang):
                if self.model.wait_stopping(0.1):
                    return
                self._event("ping")
            self._event("content_block_stop", index=index)
        self._event(
            "message_delta",
            delta={"stop_reason": message["stop_reason"], "stop_sequence": None},
            usage={"output_tokens": 12},
        )
        self._event("message_stop")

    def _event(self, kind: str, **data: Any) -> None:
        payload = json.dumps({"type": kind, **data})
        self.wfile.write(f"event: {kind}\ndata: {payload}\n\n".encode())
        self.wfile.flush()


_USAGE = {
    "input_tokens": 10,
    "output_tokens": 1,
    "cache_creation_input_tokens": 2,
    "cache_read_input_tokens": 3,
}
