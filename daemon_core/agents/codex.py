"""The family "codex-app-server": Codex's own server for editors, JSON-RPC over standard input and output.

Rules, each learned from the real program (0.169.0):

- ``initialize`` → ``initialized`` → ``thread/start`` or ``thread/resume`` → ``turn/start`` →
  ``turn/completed``; the first three are said at once, without waiting for answers. It lives until standard
  input is closed, then exits with 0. Without ``jsonrpc`` members. Until then another ``turn/start`` is
  another turn of the same thread.
- Everything that is said is kept beside the run, so nothing secret is: MCP servers are in the settings of the
  run's own home (``tasks/homes.py``), whose file goes with the run.
- What is told of other threads is that of sub-agents, and not the run's.
- Usage is counted from the thread's totals: a resumed thread repeats those of earlier turns, and a total is
  repeated when the account's limits change.
- ``willRetry`` is only a retry; the verdict is the turn's status.
- An interrupted turn leaves its command running unless the background terminals are cleaned or standard input
  is closed.
- After SIGTERM it exits with 0 and says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from daemon_core.agents.codex_reader import (
    INSTRUCTIONS_FILE,
    PROMPT_FILE,
    CodexReader,
    opening,
)
from daemon_core.agents.codex_state import Policy
from daemon_core.agents.family import LaunchError, LaunchPlan, LaunchRequest, Reader
from daemon_core.agents.writes import whole
from daemon_core.protocol import failures

FAMILY_NAME: Final = "codex-app-server"

# Inherited from a Codex session that the daemon (or its terminal) may have been started in.
DROPPED_ENV: Final = (
    "CODEX_THREAD_ID",
    "CODEX_CI",
    "CODEX_SANDBOX*",
    "CODEX_INTERNAL_ORIGINATOR_OVERRIDE",
    "CODEX_MANAGED_*",
)

# Options of ours, or such as would make it another program, with how many values they take.
BLOCKED_ARGS: Final[Mapping[str, str]] = {
    "--listen": "1",
    "--stdio": "0",
    "--ws-auth": "1",
    "--ws-token-file": "1",
    "--ws-token-sha256": "1",
    "--ws-shared-secret-file": "1",
    "--ws-issuer": "1",
    "--ws-audience": "1",
    "--ws-max-clock-skew-seconds": "1",
    "--startup-sign-out": "0",
    "--print-startup-config": "0",
    "--startup-client-info": "1",
    "-h": "0",
    "--help": "0",
    "-V": "0",
    "--version": "0",
}
_TAKES_VALUE: Final = (
    "-c",
    "--config",
    "--enable",
    "--disable",
    "--code-mode-host",
    "--cloud-skills-snapshot",
)

POLICIES: Final[Mapping[str, Policy]] = {
    "allow": Policy(approval="never", sandbox="danger-full-access"),
    # Whatever is not known to be harmless is asked for. What somebody has allowed is then done: in a sandbox
    # it would fail for reasons that nobody was asked about.
    "ask": Policy(approval="untrusted", sandbox="danger-full-access"),
    "deny": Policy(approval="untrusted", sandbox="read-only"),
}
SANDBOX_OPTION: Final = "ask_sandbox"
"""``[drive.options]``: the sandbox of runs that ask (``workspace-write``, say)."""


class CodexFamily:
    """Starts and reads ``codex app-server``."""

    name = FAMILY_NAME
    cut_by_time = False

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say how to start the program. Raises ``LaunchError`` for a permission mode that it does not
        have.
        """
        policy = _policy(request)
        blocked = {**BLOCKED_ARGS, **request.drive.blocked}
        managed = request.mcp_servers is not None
        extra, dropped = _allowed(request.extra_args, blocked, managed=managed)
        argv = (request.executable, *request.drive.args, "app-server", *extra, "--listen", "stdio://")
        files = {PROMPT_FILE: _text_file(request.prompt)}
        if request.instructions:
            files[INSTRUCTIONS_FILE] = _text_file(request.instructions)
        return LaunchPlan(
            argv=argv,
            env=request.drive.env,
            drop_env=(*DROPPED_ENV, *request.drive.drop_env),
            files=files,
            stdin=whole(opening(request, policy), files.__getitem__),
            dropped_args=dropped,
        )

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A new reader. Raises ``ValueError`` for a snapshot that is none."""
        if snapshot is not None:
            return CodexReader.restored(snapshot)
        return CodexReader.at_the_beginning(request, _policy(request) if request is not None else Policy())


def _policy(request: LaunchRequest) -> Policy:
    policy = POLICIES.get(request.permission_mode)
    if policy is None:
        raise LaunchError(
            f"permission mode {request.permission_mode!r} is not supported", failures.AGENT_CONFIG
        )
    sandbox = request.drive.options.get(SANDBOX_OPTION)
    if request.permission_mode == "ask" and isinstance(sandbox, str) and sandbox:
        return Policy(approval=policy.approval, sandbox=sandbox)
    return policy


def _text_file(text: str) -> bytes:
    """A text as a JSON string, which a message names and gets when it is said."""
    return msgspec.json.encode(text.encode("utf-8", "replace").decode())


def _allowed(
    extra: Sequence[str], blocked: Mapping[str, str], *, managed: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Extra arguments without the blocked ones: (what is passed on, what was dropped).

    A bare word would be a subcommand of ``app-server`` and is left out.

    Args:
        managed: Whether the MCP servers are ours, so that no setting may name more.
    """
    kept: list[str] = []
    dropped: list[str] = []
    rest = list(extra)
    while rest:
        arg = rest.pop(0)
        name, has_value, value = arg.partition("=")
        taken = [arg]
        arity = blocked.get(name)
        if arity is not None:
            if not has_value and arity != "0":
                while rest and (arity == "1" or not rest[0].startswith("-")):
                    taken.append(rest.pop(0))
                    if arity != "*":
                        break
            dropped += taken
            continue
        if not arg.startswith("-") or arg == "--":
            dropped.append(arg)
            continue
        if name in _TAKES_VALUE and not has_value and rest:
            value = rest.pop(0)
            taken.append(value)
        if name not in ("-c", "--config"):
            value = arg[2:] if arg.startswith("-c") else ""
        if managed and value.strip().startswith("mcp_servers"):
            dropped += taken
        else:
            kept += taken
    return tuple(kept), tuple(dropped)
