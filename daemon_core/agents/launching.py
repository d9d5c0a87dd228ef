"""What the families of one-shot programs share in starting them: arguments, the prompt, MCP servers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from daemon_core.agents.family import LaunchError, LaunchRequest
from daemon_core.agents.words import Words
from daemon_core.protocol import failures

ARGUMENT_LIMIT_BYTES: Final = 128 * 1024 - 1
"""The longest single argument that Linux takes, less its NUL."""


class McpServer(msgspec.Struct, frozen=True, kw_only=True):
    """One MCP server. ``kind`` is ``stdio`` (a command) or ``http`` or ``sse`` (an address)."""

    name: str
    kind: str
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    url: str = ""
    headers: dict[str, str] = {}


def allowed_args(
    extra: Sequence[str], *blocked: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Extra arguments without the blocked ones: (what is passed on, what was dropped).

    The tables say how many values an option takes: ``0``, ``1``, ``?`` (may be absent), ``*`` (all up to the
    next option).
    """
    kept: list[str] = []
    dropped: list[str] = []
    rest = list(extra)
    while rest:
        arg = rest.pop(0)
        if arg == "--":
            # What follows would be taken for the prompt.
            dropped += [arg, *rest]
            break
        name, has_value, _ = arg.partition("=")
        arity = next((table[name] for table in blocked if name in table), None)
        if arity is None:
            kept.append(arg)
            continue
        dropped.append(arg)
        if has_value or arity == "0":
            continue
        while rest and (arity == "1" or not rest[0].startswith("-")):
            dropped.append(rest.pop(0))
            if arity != "*":
                break
    return tuple(kept), tuple(dropped)


def option(way: str, value: str, what: str, warnings: list[str]) -> list[str]:
    """An option with a value from outside, which may look like an option itself. Where the program has no
    such option, the value is left out with a warning."""
    if not value:
        return []
    if not way.startswith("-"):
        text = f"the {what} {value!r} is left out: it cannot be chosen for this agent"
        warnings.append(Words(text, f"left_out_{what.replace(' ', '_')}", value=value))
        return []
    return [f"{way}={value}"] if value.startswith("-") else [way, value]


def chosen(request: LaunchRequest, warnings: list[str]) -> list[str]:
    """Model, thinking level and earlier session, by the options that the provider's entry has for them."""
    drive = request.drive
    return [
        *option(drive.model, request.model, "model", warnings),
        *option(drive.thinking, request.thinking_level, "thinking level", warnings),
        *option(drive.resume, request.resume_session_id, "earlier session", warnings),
    ]


def check_mode(request: LaunchRequest, *possible: str) -> bool:
    """Whether everything is allowed. Raises ``LaunchError`` for a policy that the program cannot follow."""
    if request.permission_mode not in possible:
        raise LaunchError(
            f"this agent cannot run under the permission policy {request.permission_mode!r}:"
            f" it knows only {' and '.join(repr(mode) for mode in possible)}",
            failures.AGENT_CONFIG,
        )
    return request.permission_mode == "allow"


def prompt_text(request: LaunchRequest) -> str:
    """The prompt, led by the instructions where there are any, as a text that has a UTF-8 form."""
    texts = [text for text in (request.instructions, request.prompt) if text]
    return "\n\n".join(texts).encode("utf-8", "replace").decode()


def prompt_bytes(request: LaunchRequest) -> bytes:
    """The same for standard input."""
    return prompt_text(request).encode()


def prompt_argument(request: LaunchRequest) -> str:
    """The same for a program that takes it only as an argument. Raises ``LaunchError`` for one that cannot be
    an argument."""
    return argument_text(prompt_text(request), "prompt")


def argument_text(text: str, what: str) -> str:
    """A text as an argument. Raises ``LaunchError`` for one that cannot be one."""
    if "\0" in text:
        raise LaunchError(f"the {what} holds a NUL character", failures.AGENT_PROCESS)
    text = text.encode("utf-8", "replace").decode()
    if len(text.encode()) > ARGUMENT_LIMIT_BYTES:
        raise LaunchError(
            f"the {what} is too long for this agent, which takes it as an argument:"
            f" {len(text.encode())} bytes where {ARGUMENT_LIMIT_BYTES} are possible",
            failures.AGENT_CONTEXT,
        )
    return text


def mcp_servers(request: LaunchRequest, warnings: list[str]) -> list[McpServer]:
    """The task's MCP servers and Ostler's own, in one form. What is none is left out with a warning."""
    found = []
    for name, given in {**(request.mcp_servers or {}), **request.added_mcp_servers}.items():
        server = mcp_server(name, given)
        if server is None:
            text = f"MCP server {name!r} is left out: neither a command nor an address"
            warnings.append(Words(text, "mcp_server_unusable", name=name))
        else:
            found.append(server)
    return found


def warn_without_mcp(request: LaunchRequest, warnings: list[str]) -> None:
    """For a program that takes no MCP servers from a caller. Ostler's own are left out without a word: nobody
    has asked for them."""
    if request.mcp_servers:
        names = ", ".join(request.mcp_servers)
        text = f"MCP servers are left out ({names}): this agent takes them only from its settings"
        warnings.append(Words(text, "mcp_servers_left_out", names=names))


def settings_form(servers: Iterable[McpServer], *, trust: bool) -> dict[str, Any]:
    """The ``mcpServers`` of Gemini CLI and what was made of it: an address of a streamable server is
    ``httpUrl``; ``trust`` means that its tools are called unasked."""
    found: dict[str, Any] = {}
    for server in servers:
        entry: dict[str, Any]
        if server.kind == "stdio":
            entry = {"command": server.command, "args": list(server.args), "env": server.env}
        else:
            entry = {"httpUrl" if server.kind == "http" else "url": server.url, "headers": server.headers}
        found[server.name] = entry | ({"trust": True} if trust else {})
    return found


def mcp_server(name: str, given: object) -> McpServer | None:
    """A server as it was given, in one form; None for what is none."""
    if not isinstance(given, Mapping):
        return None
    command = given.get("command")
    if isinstance(command, str) and command:
        args = given.get("args")
        return McpServer(
            name=name,
            kind="stdio",
            command=command,
            args=tuple(str(arg) for arg in args) if isinstance(args, list | tuple) else (),
            env=_texts(given.get("env")),
        )
    url = given.get("httpUrl") or given.get("url")
    if isinstance(url, str) and url:
        sse = "httpUrl" not in given and (given.get("type") or given.get("transport")) == "sse"
        return McpServer(
            name=name, kind="sse" if sse else "http", url=url, headers=_texts(given.get("headers"))
        )
    return None


def _texts(given: object) -> dict[str, str]:
    return {str(name): str(value) for name, value in given.items()} if isinstance(given, Mapping) else {}
