"""A small MCP server over HTTP on loopback, with one tool: what agents are given in tests.

It answers POST with plain JSON and refuses to stream, which is enough for every CLI.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

TOOL = "echo"


class McpServer:
    """The server; ``url`` is its endpoint. ``echo`` answers ``echo: <text>``."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        """Arguments of all calls so far."""
        self.authorizations: list[str] = []
        """What came as ``Authorization``, a request each."""
        handler = type("_BoundHandler", (_Handler,), {"server_of": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, name="mcp-server"
        )
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/mcp"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, message: dict[str, Any]) -> Any:
        match message.get("method"):
            case "initialize":
                return {
                    "protocolVersion": message["params"]["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "stub", "version": "1"},
                }
            case "tools/list":
                schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
                return {"tools": [{"name": TOOL, "description": "Says it again.", "inputSchema": schema}]}
            case "tools/call":
                given = message["params"].get("arguments") or {}
                self.calls.append(given)
                return {"content": [{"type": "text", "text": f"echo: {given.get('text')}"}]}
            case _:
                return {}


class _Handler(BaseHTTPRequestHandler):
    server_of: McpServer
    # HTTP/1.0: one request a connection, so that no thread outlives its answer.
    protocol_version = "HTTP/1.0"

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read what the server keeps instead."""

    def do_GET(self) -> None:
        self.send_error(405)

    def do_DELETE(self) -> None:
        self.send_error(405)

    def do_POST(self) -> None:
        self.server_of.authorizations.append(self.headers.get("authorization", ""))
        message = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
        if "id" not in message:
            self.send_response(202)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        body = {"jsonrpc": "2.0", "id": message["id"], "result": self.server_of.answer(message)}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
