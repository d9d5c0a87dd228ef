"""``POST /mcp`` on the loopback port: the daemon's MCP server, for the agents that it runs.

Streamable HTTP in its smallest form: every message is one request, every answer is plain JSON, there is no
session and no stream from here. So nothing is lost when the daemon restarts: the next request is answered by
the next daemon. Who asks shows the task's own token and acts for that task alone. (The ``mcp`` package is not
used: it takes half a second and 55 MB to import, for four messages.)
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from aiohttp import web

from daemon_core import __version__
from daemon_core.control.task_token import life_of_token

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine
    from daemon_core.tasks.life import TaskLife

log = logging.getLogger("ostler.control")

PATH: Final = "/mcp"
SERVER_NAME: Final = "ostler"
VERSIONS: Final = ("2025-06-18", "2025-03-26", "2024-11-05")
"""Newest first. What is used of them is the same in all."""
BODY_LIMIT_BYTES: Final = 1024 * 1024
TEXT_LIMIT_CHARS: Final = 200_000

_PARSE_ERROR: Final = -32700
_INVALID_REQUEST: Final = -32600
_NO_METHOD: Final = -32601
_INVALID_PARAMS: Final = -32602
_INTERNAL: Final = -32603

_INSTRUCTIONS: Final = (
    "Tools of Ostler, which runs you: they act for your task at its server and on this machine."
)


_connected: ContextVar[Callable[[], bool]] = ContextVar("connected", default=lambda: True)


def still_there() -> bool:
    """Whether whoever has called the tool can still hear its answer."""
    return _connected.get()()


class ToolError(Exception):
    """A tool could not do what it was asked for; the agent reads why."""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as agents see it. ``call`` gives text or a JSON value, or raises ``ToolError``."""

    name: str
    description: str
    schema: dict[str, Any]
    call: Callable[[dict[str, Any]], Awaitable[Any]]
    read_only: bool = False


class ToolSource(Protocol):
    """Gives the tools of one kind."""

    def tools_of(self, life: TaskLife) -> Sequence[Tool]:
        """What this task may use now."""
        ...


class _RpcError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def mcp_routes(
    engine: Callable[[], Engine | None], sources: Sequence[ToolSource]
) -> list[web.AbstractRouteDef]:
    """The routes. ``engine`` gives None until the daemon has taken up its runs."""

    async def post(request: web.Request) -> web.Response:
        found = engine()
        if found is None:
            return _plain(503, "the daemon is starting; try again in a moment", {"Retry-After": "1"})
        life = life_of_token(found, request)
        if life is None:
            return _plain(401, "a task token is required", {"WWW-Authenticate": "Bearer"})
        raw = await request.content.read(BODY_LIMIT_BYTES + 1)
        while len(raw) <= BODY_LIMIT_BYTES and (more := await request.content.read(BODY_LIMIT_BYTES)):
            raw += more
        if len(raw) > BODY_LIMIT_BYTES:
            return _plain(413, "the message is too large")
        try:
            message = msgspec.json.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _json(_failure(None, _PARSE_ERROR, "not JSON"), 400)
        _connected.set(lambda: request.transport is not None and not request.transport.is_closing())
        if isinstance(message, list):  # batches were part of one version of the protocol
            answers = [each for part in message if (each := await _answer(part, life, sources)) is not None]
            return _json(answers) if answers else web.Response(status=202)
        answer = await _answer(message, life, sources)
        return web.Response(status=202) if answer is None else _json(answer)

    async def other(request: web.Request) -> web.Response:
        return _plain(405, "method not allowed", {"Allow": "POST"})

    return [web.post(PATH, post), web.route("*", PATH, other)]


async def _answer(message: Any, life: TaskLife, sources: Sequence[ToolSource]) -> dict[str, Any] | None:
    """The answer to one message; None for a notification or an answer, which get none."""
    if not isinstance(message, dict):
        return _failure(None, _INVALID_REQUEST, "not a JSON-RPC message")
    ident = message.get("id")
    method = message.get("method")
    if not isinstance(method, str):
        if "result" in message or "error" in message:
            return None
        return _failure(ident, _INVALID_REQUEST, "no method")
    if "id" not in message:
        return None
    params = message.get("params")
    try:
        result = await _do(method, params if isinstance(params, dict) else {}, life, sources)
    except _RpcError as error:
        return _failure(ident, error.code, str(error))
    except Exception:  # the boundary of a request: the agent gets an answer, the log has the story
        log.exception("an MCP request failed")
        return _failure(ident, _INTERNAL, "Ostler failed over this; its log has more")
    return {"jsonrpc": "2.0", "id": ident, "result": result}


async def _do(
    method: str, params: dict[str, Any], life: TaskLife, sources: Sequence[ToolSource]
) -> dict[str, Any]:
    match method:
        case "initialize":
            wanted = params.get("protocolVersion")
            return {
                "protocolVersion": wanted if wanted in VERSIONS else VERSIONS[0],
                "capabilities": {"tools": {"listChanged": False}},
                "serverInfo": {"name": SERVER_NAME, "title": "Ostler", "version": __version__},
                "instructions": _INSTRUCTIONS,
            }
        case "ping":
            return {}
        case "tools/list":
            return {"tools": [_shown(tool) for tool in tools_of(life, sources)]}
        case "tools/call":
            return await _call(params, life, sources)
        case _:
            raise _RpcError(_NO_METHOD, f"there is no method {method[:80]}")


def tools_of(life: TaskLife, sources: Sequence[ToolSource]) -> list[Tool]:
    """All tools of a task; of two with one name the first counts."""
    found: dict[str, Tool] = {}
    for source in sources:
        for tool in source.tools_of(life):
            found.setdefault(tool.name, tool)
    return list(found.values())


async def _call(params: dict[str, Any], life: TaskLife, sources: Sequence[ToolSource]) -> dict[str, Any]:
    name, given = params.get("name"), params.get("arguments")
    tool = next((tool for tool in tools_of(life, sources) if tool.name == name), None)
    if tool is None:
        raise _RpcError(_INVALID_PARAMS, f"there is no tool {str(name)[:80]}")
    if given is not None and not isinstance(given, dict):
        raise _RpcError(_INVALID_PARAMS, "arguments has to be an object")
    try:
        value = await tool.call(given or {})
    except ToolError as error:
        return {"content": [{"type": "text", "text": _sentence(str(error))}], "isError": True}
    text = value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value)).decode()
    if len(text) > TEXT_LIMIT_CHARS:
        left_out = len(text) - TEXT_LIMIT_CHARS
        text = f"{text[:TEXT_LIMIT_CHARS]}\n[{left_out} more characters are left out]"
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": False}
    if isinstance(value, dict):
        result["structuredContent"] = value
    return result


def _shown(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": tool.schema,
        "annotations": {"readOnlyHint": tool.read_only},
    }


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _failure(ident: Any, code: int, message: str) -> dict[str, Any]:
    known = ident if isinstance(ident, str | int) and not isinstance(ident, bool) else None
    return {"jsonrpc": "2.0", "id": known, "error": {"code": code, "message": message}}


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _plain(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=f"{text}\n", headers=headers)
