"""What a run is given: its environment.

The environment of a child is the daemon's own, less everything that names Ostler, plus the task's names.
Custom variables from the server can override neither those nor the ones that decide what runs and as whom.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from daemon_core.protocol.wire import Agent, Task
from daemon_core.settings import installed

MARK_NAME = "OSTLER_MARK"
"""Unique per run and inherited by everything it starts: what is left over is found by it."""

_OWN_PREFIXES = ("OSTLER_", "MULTICA_")
_PROTECTED = frozenset(
    {
        "HOME",
        "PATH",
        "USER",
        "SHELL",
        "TERM",
        "CODEX_HOME",
        "CURSOR_DATA_DIR",
        "OPENCLAW_CONFIG_PATH",
        "OPENCLAW_INCLUDE_ROOTS",
        "CLAUDE_CONFIG_DIR",
    }
)
_KEPT = frozenset({"OSTLER_HOME", "OSTLER_PROFILE"})
"""Own names that go on to a child: `ostler` inside a run must find the same daemon."""


def command_directories() -> list[Path]:
    """The directories that hold the ``ostler`` command, the one that lasts longest first.

    Installed, that is the launcher's, whose ``ostler`` is always the current version's; the payload's own
    comes after it, for a run that goes on when the launcher has been uninstalled.
    """
    launcher = installed.launcher_directory()
    return [*([launcher] if launcher is not None else []), Path(sys.executable).parent]


def search_path(base: Mapping[str, str]) -> str:
    """The daemon's search path with the ``ostler`` command in front."""
    return os.pathsep.join(
        part for part in (*map(str, command_directories()), base.get("PATH", os.defpath)) if part
    )


def child_environment(
    *,
    base: Mapping[str, str],
    task: Task,
    run_id: str,
    mark: str,
    slot: int,
    server_url: str,
    control_url: str,
    loopback_port: int,
    is_hub: bool,
    home: str,
    profile: str,
) -> dict[str, str]:
    """The environment of a run, before the family's own additions."""
    agent = task.agent or Agent()
    token = task.auth_token.strip()
    env = {name: value for name, value in base.items() if not is_own_name(name)}
    for name, value in (agent.custom_env or {}).items():
        if name and "=" not in name and "\0" not in name + value and not is_blocked(name):
            env[name] = value
    env["PATH"] = search_path(base)
    env.update(
        {
            "OSTLER_TASK_ID": task.id,
            "OSTLER_RUN_ID": run_id,
            "OSTLER_WORKSPACE_ID": task.workspace_id,
            "OSTLER_AGENT_ID": task.agent_id,
            "OSTLER_AGENT_NAME": agent.name,
            "OSTLER_TASK_SLOT": str(slot),
            "OSTLER_SERVER_URL": server_url,
            "OSTLER_TOKEN": token,
            "OSTLER_CONTROL_URL": control_url,
            MARK_NAME: mark,
        }
    )
    if task.quick_create_prompt:
        env["OSTLER_QUICK_CREATE_TASK_ID"] = task.id
        attached = msgspec.json.encode(task.quick_create_attachment_ids or []).decode()
        env["OSTLER_QUICK_CREATE_ATTACHMENT_IDS"] = attached
    if home:
        env["OSTLER_HOME"] = home
    if profile:
        env["OSTLER_PROFILE"] = profile
    if not is_hub:
        env.update(
            {
                "MULTICA_TOKEN": token,
                "MULTICA_SERVER_URL": server_url,
                "MULTICA_DAEMON_PORT": str(loopback_port),
                "MULTICA_WORKSPACE_ID": task.workspace_id,
                "MULTICA_AGENT_NAME": agent.name,
                "MULTICA_AGENT_ID": task.agent_id,
                "MULTICA_TASK_ID": task.id,
                "MULTICA_TASK_SLOT": str(slot),
            }
        )
        if task.autopilot_run_id:
            env["MULTICA_AUTOPILOT_RUN_ID"] = task.autopilot_run_id
            env["MULTICA_AUTOPILOT_ID"] = task.autopilot_id or ""
        if task.quick_create_prompt:
            env["MULTICA_QUICK_CREATE_TASK_ID"] = task.id
            env["MULTICA_QUICK_CREATE_ATTACHMENT_IDS"] = attached
    return {name: value for name, value in env.items() if "\0" not in value}


def is_own_name(name: str) -> bool:
    """Whether a name of the daemon's environment is not for what it starts (compared without case)."""
    return name not in _KEPT and name.upper().startswith(_OWN_PREFIXES)


def is_blocked(name: str) -> bool:
    """Whether custom environment may not set this name (compared without case)."""
    upper = name.upper()
    return upper.startswith(_OWN_PREFIXES) or upper in _PROTECTED
