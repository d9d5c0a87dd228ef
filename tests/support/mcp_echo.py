"""A tiny MCP server on standard input and output with one tool, ``echo``: it gives back its text and the word
that is in its environment as ``LAB_WORD``. Run as a program; stays until its input is closed. The file that
``LAB_LISTED`` names is there once somebody knows its tools."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

TOOL = {
    "name": "echo",
    "description": "Gives the text back.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """The result of one request."""
    match method:
        case "initialize":
            return {
                "protocolVersion": params.get("protocolVersion", "2025-06-18"),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "echo", "version": "1.0.0"},
            }
        case "tools/list":
            return {"tools": [TOOL]}
        case "tools/call":
            text = f"{params['arguments']['text']} {os.environ.get('LAB_WORD', '')}"
            return {"content": [{"type": "text", "text": text}]}
    return {}


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            result = answer(message["method"], message.get("params") or {})
            reply = {"jsonrpc": "2.0", "id": message["id"], "result": result}
            sys.stdout.write(json.dumps(reply) + "\n")
            sys.stdout.flush()
            if message["method"] == "tools/list" and (listed := os.environ.get("LAB_LISTED")):
                Path(listed).touch()


if __name__ == "__main__":
    main()
