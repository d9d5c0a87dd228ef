"""The family "claude-stream-json": Claude Code in print mode, JSON lines in both directions.

Rules, each learned from the real program (2.1.197):

- The prompt is the first line of standard input, never an argument. Standard input must be a pipe. The
  program lives until its standard input is closed, so the reader closes it after a ``result``, unless it
  holds: then another line of standard input is another turn.
- Secrets and long texts never get into ``argv``, where every user of the machine can read them: MCP
  configuration and instructions are files of the run directory.
- One ``assistant`` line a content block; a tool's result comes in a ``user`` line, as a string or a list of
  parts.
- Usage is ``modelUsage`` of the newest result: it counts all turns of the process. The ``usage`` of a message
  repeats its beginning and is never added up.
- A failed request to the model is a result with ``subtype: success``: look at ``is_error``. A run is a
  success only with exit code 0 **and** a terminal line that says so explicitly **and** no turn begun after it
  **and** an output that is no poison.
- After SIGTERM it exits with 143 and without a result.
- An unknown session is told in the ``errors`` of a result (which may carry a fresh session id) or on stderr
  only.

- Under the policy "ask" it asks over its control protocol, also the questions of ``AskUserQuestion``; see
  ``claude_requests``.

What cannot be understood becomes ``Unreadable`` and the stream goes on; types that nobody knows are passed
over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from daemon_core.agents.claude_reader import ClaudeReader, user_line
from daemon_core.agents.claude_requests import QUESTION_TOOL
from daemon_core.agents.family import LaunchError, LaunchPlan, LaunchRequest, Reader
from daemon_core.agents.launching import argument_text
from daemon_core.agents.placeholders import filled
from daemon_core.protocol import failures

FAMILY_NAME: Final = "claude-stream-json"

INSTRUCTIONS_OPTION: Final = "instructions"
"""``[drive.options]``: an option that takes the instructions as a text, where there is none for a file."""
DISALLOWED_OPTION: Final = "disallowed_tools"
"""``[drive.options]``: tools that need somebody to answer, where they are others."""

MCP_FILE: Final = "spec.mcp.json"
INSTRUCTIONS_FILE: Final = "spec.instructions.md"

# Inherited from a Claude Code session that the daemon (or its terminal) may have been started in; with
# them the child would think that it is part of that session.
DROPPED_ENV: Final = (
    "CLAUDECODE*",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_CODE_EXECPATH",
    "CLAUDE_CODE_SSE_PORT",
)

# Options of ours (or that end the program at once, or take the session elsewhere), with how many values they
# take: "?" is one that may be absent, "*" all up to the next option.
BLOCKED_ARGS: Final[Mapping[str, str]] = {
    "-p": "0",
    "--print": "0",
    "--input-format": "1",
    "--output-format": "1",
    "--permission-mode": "1",
    "--permission-prompt-tool": "1",
    "--dangerously-skip-permissions": "0",
    "--allow-dangerously-skip-permissions": "0",
    "--mcp-config": "*",
    "--strict-mcp-config": "0",
    "--effort": "1",
    "-r": "?",
    "--resume": "?",
    "-c": "0",
    "--continue": "0",
    "--from-pr": "?",
    "--fork-session": "0",
    "--session-id": "1",
    "--no-session-persistence": "0",
    "--replay-user-messages": "0",
    "--include-partial-messages": "0",
    "--remote-control": "?",
    "--bg": "0",
    "--background": "0",
    "--tmux": "0",
    "-w": "?",
    "--worktree": "?",
    "-v": "0",
    "--version": "0",
    "-h": "0",
    "--help": "0",
}


class ClaudeFamily:
    """Starts and reads Claude Code and programs that speak its protocol.

    Args:
        provider: The provider named in the usage.
    """

    name = FAMILY_NAME
    cut_by_time = False

    def __init__(self, provider: str = "claude") -> None:
        self._provider = provider

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say how to start the program. Raises ``LaunchError`` for a permission mode that it does not
        have.
        """
        drive = request.drive
        extra, dropped = allowed_args(request.extra_args, drive.blocked)
        # Ours come last: where an option can be given once, the last one counts.
        argv = [request.executable, *filled(drive.args, request), *extra, "-p"]
        argv += ["--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
        if request.permission_mode == "allow":
            argv += ["--permission-mode", "bypassPermissions"]
        elif request.permission_mode in ("ask", "deny"):
            # Without somebody to ask, the program refuses in silence; this way the reader answers and shows
            # it.
            argv += ["--permission-mode", "default", "--permission-prompt-tool", "stdio"]
        else:
            raise LaunchError(
                f"permission mode {request.permission_mode!r} is not supported", failures.AGENT_CONFIG
            )
        argv += _option(drive.model or "--model", request.model)
        argv += _option(drive.thinking or "--effort", request.thinking_level)
        argv += _option(drive.resume or "--resume", request.resume_session_id)
        files: dict[str, bytes] = {}
        if request.mcp_servers is not None or request.added_mcp_servers:
            servers = {**(request.mcp_servers or {}), **request.added_mcp_servers}
            files[MCP_FILE] = msgspec.json.encode({"mcpServers": servers})
            # Without servers of the task, the program's own stay beside ours.
            argv += [] if request.mcp_servers is None else ["--strict-mcp-config"]
            argv += ["--mcp-config", os.path.join(request.run_dir, MCP_FILE)]
        way = drive.options.get(INSTRUCTIONS_OPTION)
        if request.instructions and isinstance(way, str) and way:
            argv += _option(way, argument_text(request.instructions, "brief"))
        elif request.instructions:
            files[INSTRUCTIONS_FILE] = request.instructions.encode("utf-8", "replace")
            argv += ["--append-system-prompt-file", os.path.join(request.run_dir, INSTRUCTIONS_FILE)]
        if request.permission_mode != "ask":
            # Nobody is there to answer its questions.
            tools = drive.options.get(DISALLOWED_OPTION, ())
            argv += [
                "--disallowedTools",
                *(tools if isinstance(tools, tuple) and tools else (QUESTION_TOOL,)),
            ]
        # As root, bypassPermissions is refused unless this is exactly "1".
        as_root = hasattr(os, "geteuid") and os.geteuid() == 0
        return LaunchPlan(
            argv=tuple(argv),
            env={**({"IS_SANDBOX": "1"} if as_root else {}), **drive.env},
            drop_env=(*DROPPED_ENV, *drive.drop_env),
            files=files,
            stdin=user_line(request.prompt),
            dropped_args=dropped,
        )

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A new reader. Raises ``ValueError`` for a snapshot that is none."""
        named = request.provider if request is not None else ""
        return ClaudeReader(request, snapshot, provider=named or self._provider)


def allowed_args(
    extra: Sequence[str], more: Mapping[str, str] = MappingProxyType({})
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Extra arguments without the blocked ones, ``more`` included: (what is passed on, what was dropped)."""
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
        arity = BLOCKED_ARGS.get(name) or more.get(name)
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


def _option(name: str, value: str) -> list[str]:
    """An option with a value from outside, which may look like an option itself."""
    if not value:
        return []
    return [f"{name}={value}"] if value.startswith("-") else [name, value]
