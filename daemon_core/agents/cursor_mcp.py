"""MCP servers of a run of Cursor's agent: a file of its directory, and the variables that this names.

It takes them from ``.cursor/mcp.json`` of the project alone. Whatever may be a secret is in the environment
of the run, and the file only says where: it is in a directory that others may read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from daemon_core.agents.launching import McpServer, mcp_server

FILE: Final = ".cursor/mcp.json"
_VARIABLE: Final = "OSTLER_MCP_"
_REFERENCE: Final = "${"
"""Where a value has one already, whoever wrote it wants it looked up: it stays as it is."""


def settings(servers: Mapping[str, object], own: Mapping[str, object]) -> bytes:
    """The content of the file. ``own`` are entries as they are to stand there; "" where there is none."""
    entries, _ = _split(servers)
    entries |= own
    return msgspec.json.format(msgspec.json.encode({"mcpServers": entries})) + b"\n" if entries else b""


def variables(servers: Mapping[str, object]) -> dict[str, str]:
    """What the file names, for the run's environment."""
    return _split(servers)[1]


def _split(servers: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, str]]:
    found: dict[str, str] = {}

    def kept(value: str) -> str:
        if _REFERENCE in value:
            return value
        name = f"{_VARIABLE}{len(found) + 1}"
        found[name] = value
        return f"${{env:{name}}}"

    entries: dict[str, Any] = {}
    for name, given in servers.items():
        server = mcp_server(name, given)
        if server is not None:
            entries[name] = _entry(server, kept)
    return entries, found


def _entry(server: McpServer, kept: Callable[[str], str]) -> dict[str, Any]:
    if server.kind == "stdio":
        env = {name: kept(value) for name, value in server.env.items()}
        return {"command": server.command, "args": [kept(arg) for arg in server.args], "env": env}
    headers = {name: kept(value) for name, value in server.headers.items()}
    return {"url": kept(server.url), "headers": headers}
