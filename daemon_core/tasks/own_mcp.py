"""Ostler's own MCP server as it is given to a run: an address on loopback and the task's own token.

It goes beside the servers of the task or the user, which it never replaces: where one of them has its name,
it gets another one. The token is as secret as it is elsewhere: families put it into files of the run or its
environment, nowhere else.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from daemon_core.agents import cursor_mcp
from daemon_core.protocol.wire import Agent
from daemon_core.tasks import policy
from daemon_core.tasks.launch import managed_servers

if TYPE_CHECKING:
    from daemon_core.agents.family import Drive, LaunchRequest
    from daemon_core.protocol.wire import Task
    from daemon_core.tasks.launch import Launcher
    from daemon_core.tasks.life import TaskLife

PATH: Final = "/mcp"
"""Where it is on the loopback port."""
IN_FILE: Final = "file"
"""``Drive.mcp`` of a program that is told of servers by a settings file of its directory alone."""
FILE_OPTION: Final = "mcp_file"
"""``Drive.options``: that file."""
FORM_OPTION: Final = "mcp_form"
"""``Drive.options``: how servers stand in it; by default as Gemini CLI has them."""
CURSOR: Final = "cursor"
NAME: Final = "ostler"
_SECOND_NAME: Final = "ostler-own"
# Where the programs that take further servers keep the user's and the project's, below either directory.
_USERS: Final = (
    ".claude.json",
    ".codex/config.toml",
    ".config/opencode/opencode.json",
    ".config/opencode/opencode.jsonc",
    ".gemini/settings.json",
    ".qwen/settings.json",
)
_PROJECTS: Final = (
    ".mcp.json",
    "opencode.json",
    "opencode.jsonc",
    ".opencode/opencode.json",
    ".gemini/settings.json",
    ".qwen/settings.json",
    ".codex/config.toml",
)
_LIMIT_BYTES: Final = 16 * 1024 * 1024


async def offered(life: TaskLife, request: LaunchRequest, env: Mapping[str, str]) -> LaunchRequest:
    """The request with Ostler's own MCP server, if the user offers it to this provider.

    Args:
        env: The run's environment, which says where its user's settings are.
    """
    engine, claim = life.engine, life.claim
    if claim is None or request.drive.mcp in ("", IN_FILE) or not _is_offered(life):
        return request
    name = await asyncio.to_thread(_free_name, request, env)
    server = {
        "type": "http",
        "url": engine.control_url + PATH,
        "headers": {"Authorization": f"Bearer {claim.auth_token.strip()}"},
    }
    return msgspec.structs.replace(request, added_mcp_servers={name: server})


def settings_of(life: TaskLife, claim: Task, launcher: Launcher) -> dict[str, bytes]:
    """Files that give Ostler's own MCP server to a program which knows only those of its settings.

    They name what the run's environment holds, so that there is no secret in them.
    """
    mode = policy.mode_of(claim, launcher, life.engine.permissions, hub=life.connection.timing.loopback)
    drive = launcher.ask_drive if mode == "ask" and launcher.ask_family is not None else launcher.drive
    path = drive.options.get(FILE_OPTION)
    if drive.mcp != IN_FILE or not isinstance(path, str):
        return {}
    if drive.options.get(FORM_OPTION) == CURSOR:
        content = _cursor_settings(claim, offered=_is_offered(life))
        return {path: content} if content else {}
    if not _is_offered(life):
        return {}
    server = {
        "httpUrl": "${OSTLER_CONTROL_URL}" + PATH,
        "headers": {"Authorization": "Bearer ${OSTLER_TOKEN}"},
        "trust": mode == "allow",
    }
    return {path: msgspec.json.format(msgspec.json.encode({"mcpServers": {NAME: server}})) + b"\n"}


def is_for_anywhere(drive: Drive) -> bool:
    """Whether such files go into a user's directory, too."""
    return drive.options.get(FORM_OPTION) == CURSOR


def _cursor_settings(claim: Task, *, offered: bool) -> bytes:
    """Those that the agent was given, too: the program can be told of them in no other way."""
    given = managed_servers(claim.agent or Agent()) or {}
    own = {
        "url": "${env:OSTLER_CONTROL_URL}" + PATH,
        "headers": {"Authorization": "Bearer ${env:OSTLER_TOKEN}"},
    }
    name = NAME if NAME not in given else _SECOND_NAME
    return cursor_mcp.settings(given, {name: own} if offered else {})


def _is_offered(life: TaskLife) -> bool:
    engine = life.engine
    return bool(engine.loopback_port) and engine.offers_mcp(life.record.provider)


def _free_name(request: LaunchRequest, env: Mapping[str, str]) -> str:
    taken = request.mcp_servers or {}
    texts = [] if request.mcp_servers is not None else list(_settings(Path(request.work_dir), env))
    names = itertools.chain((NAME, _SECOND_NAME), (f"{_SECOND_NAME}-{n}" for n in itertools.count(2)))
    return next(name for name in names if name not in taken and not _is_named(name, texts))


def _is_named(name: str, texts: list[bytes]) -> bool:
    """Whether settings may have a server of this name. That it is some other key does no harm."""
    word = re.escape(name.encode())
    pattern = re.compile(rb'"%s"\s*:|mcp_servers\s*\.\s*["\']?%s["\']?\s*[\].]' % (word, word))
    return any(pattern.search(text) for text in texts)


def _settings(work_dir: Path, env: Mapping[str, str]) -> Iterator[bytes]:
    home = Path(env.get("HOME") or os.path.expanduser("~"))
    own = Path(env["CODEX_HOME"], "config.toml") if env.get("CODEX_HOME") else None
    places = [*(home / each for each in _USERS), *(work_dir / each for each in _PROJECTS)]
    for path in [*places, *([own] if own is not None else [])]:
        try:
            with open(path, "rb") as stream:
                yield stream.read(_LIMIT_BYTES)
        except OSError:
            continue  # none there, or nobody may read it: then the program cannot either
