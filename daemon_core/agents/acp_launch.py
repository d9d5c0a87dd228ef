"""How an agent that speaks ACP is started: its arguments, and the files that the conversation takes from.

What differs between agents is data (``Drive``); the words of ``Drive.options`` that this family knows:

- ``allow_args``, ``allow_env``: arguments and variables of the entry that let the agent do everything
  unasked; left out unless the policy is "allow". ``ask_env``: ``NAME=value``, given then instead.
- ``allow_mode``, ``ask_mode``: the session mode to choose, where the agent offers it.
- ``config``, ``allow_config``: ``identifier=value`` to set once the session is there; the second only under
  "allow".
- ``authenticate``: true (the first way that the agent offers) or the name of a way.
- ``close``: the session is closed before the standard input is.
- ``failure_in_stderr``: it says that the turn went well also when its request to the model failed.
- ``args_before``: further arguments go before this word of ``args``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from daemon_core import __version__
from daemon_core.agents.family import Drive, LaunchPlan, LaunchRequest
from daemon_core.agents.launching import (
    McpServer,
    allowed_args,
    check_mode,
    mcp_servers,
    option,
    warn_without_mcp,
)
from daemon_core.agents.placeholders import filled
from daemon_core.agents.rpc import encoded

PROTOCOL_VERSION: Final = 1
PROMPT_FILE: Final = "spec.acp-prompt.json"

SET_MODEL: Final = "session/set_model"
SET_OPTION: Final = "set_config_option"


class Quirks(msgspec.Struct, frozen=True):
    """How the conversation with one agent differs, from its entry and the run's policy.

    Attributes:
        resume: Method by which an earlier session is resumed; empty: not at all.
        model: Way of choosing a model inside the conversation; empty: not there.
        thinking: Whether a thinking level is chosen inside the conversation.
        mode: Session mode to choose where it is offered.
        config: ``identifier=value`` to set.
        authenticate: Whether to, and by what: ``first`` of what is offered, or a name.
    """

    resume: str = ""
    model: str = ""
    thinking: bool = False
    mode: str = ""
    config: tuple[str, ...] = ()
    authenticate: str = ""
    close: bool = False
    failure_in_stderr: bool = False


class Servers(msgspec.Struct, frozen=True):
    """MCP servers in ACP's form. Which of them an agent takes is known only once it has told."""

    entries: tuple[dict[str, Any], ...] = ()

    def kinds(self) -> tuple[str, ...]:
        """The transports beyond standard input and output that are used."""
        used = {entry.get("type", "stdio") for entry in self.entries}
        return tuple(kind for kind in ("http", "sse") if kind in used)

    def names(self, kind: str) -> tuple[str, ...]:
        return tuple(str(entry["name"]) for entry in self.entries if entry.get("type", "stdio") == kind)


def quirks_of(drive: Drive, permission_mode: str) -> Quirks:
    """What an entry says about the conversation, under a policy."""
    options = drive.options
    allow = permission_mode == "allow"
    way = options.get("authenticate", "")
    resume = drive.resume
    if resume in ("load", "resume"):
        resume = f"session/{resume}"
    return Quirks(
        resume=resume,
        model="" if drive.model.startswith("-") else drive.model,
        thinking=bool(drive.thinking) and not drive.thinking.startswith("-"),
        mode=_text(options.get("allow_mode" if allow else "ask_mode")),
        config=_texts(options.get("config")) + (_texts(options.get("allow_config")) if allow else ()),
        authenticate="first" if way is True else _text(way),
        close=options.get("close") is True,
        failure_in_stderr=options.get("failure_in_stderr") is True,
    )


def plan_of(request: LaunchRequest) -> LaunchPlan:
    """Say how to start the agent. Raises ``LaunchError`` for a permission mode that nobody knows."""
    drive, options = request.drive, request.drive.options
    allow = check_mode(request, "allow", "ask", "deny")
    unasked = () if allow else _texts(options.get("allow_args"))
    args = [arg for arg in filled(drive.args, request) if arg not in unasked]
    extra, dropped = allowed_args(request.extra_args, drive.blocked)
    warnings: list[str] = []
    more = [*extra, *_option(drive.model, request.model, "model", warnings)]
    more += _option(drive.thinking, request.thinking_level, "thinking level", warnings)
    before = _text(options.get("args_before"))
    at = args.index(before) if before in args else len(args)
    args[at:at] = more
    hidden = () if allow else _texts(options.get("allow_env"))
    env = {name: value for name, value in drive.env.items() if name not in hidden}
    if not allow:
        env |= dict(entry.split("=", 1) for entry in _texts(options.get("ask_env")) if "=" in entry)
    servers = servers_of(request, warnings)
    return LaunchPlan(
        argv=(request.executable, *args),
        env=env,
        drop_env=drive.drop_env,
        files={PROMPT_FILE: _prompt(request), **_server_files(servers)},
        stdin=encoded({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize_params()}),
        dropped_args=dropped,
        warnings=tuple(warnings),
    )


def initialize_params() -> dict[str, Any]:
    """What we say of ourselves. Files and terminals are the agent's own business: it is on this machine."""
    return {
        "protocolVersion": PROTOCOL_VERSION,
        "clientCapabilities": {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False},
        "clientInfo": {"name": "ostler", "title": "Ostler", "version": __version__},
    }


def servers_file(kinds: Sequence[str]) -> str:
    """The file with the MCP servers for an agent that takes these transports beyond the common one."""
    return "-".join(["spec.acp-mcp", *kinds]) + ".json"


def servers_of(request: LaunchRequest, warnings: list[str] | None = None) -> Servers:
    """The MCP servers of a run; none where the agent's entry says that it takes none."""
    warnings = [] if warnings is None else warnings
    if not request.drive.mcp:
        warn_without_mcp(request, warnings)
        return Servers()
    return Servers(tuple(_entry(server) for server in mcp_servers(request, warnings)))


def _entry(server: McpServer) -> dict[str, Any]:
    if server.kind == "stdio":
        return {
            "name": server.name,
            "command": server.command,
            "args": list(server.args),
            "env": _pairs(server.env),
        }
    return {"type": server.kind, "name": server.name, "url": server.url, "headers": _pairs(server.headers)}


def _pairs(given: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in given.items()]


def _server_files(servers: Servers) -> dict[str, bytes]:
    """A file for each set of transports that the agent may turn out to take."""
    if not servers.entries:
        return {}
    sets: list[tuple[str, ...]] = [()]
    for kind in servers.kinds():
        sets += [(*before, kind) for before in sets]
    return {
        servers_file(kinds): msgspec.json.encode(
            [entry for entry in servers.entries if entry.get("type", "stdio") in ("stdio", *kinds)]
        )
        for kinds in sets
    }


def _prompt(request: LaunchRequest) -> bytes:
    """The turn's content. Instructions lead it: the protocol has no place of their own for them."""
    texts = [text for text in (request.instructions, request.prompt) if text]
    clean = [text.encode("utf-8", "replace").decode() for text in texts or [""]]
    return msgspec.json.encode([{"type": "text", "text": text} for text in clean])


def _option(way: str, value: str, what: str, warnings: list[str]) -> list[str]:
    """An option of the command line, unless it is chosen in the conversation."""
    return [] if way and not way.startswith("-") else option(way, value, what, warnings)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, list | tuple) else ()
