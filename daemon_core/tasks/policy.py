"""Which permission policy holds for a run, and whether its agent can be run under it.

The most particular word counts: the task's, its agent's (both only of the embedded hub, whose user is ours),
then the settings'. A shell task is the user's own command: there is nobody to ask on behalf of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from daemon_core.agents.family import LaunchError, LaunchRequest
from daemon_core.agents.shell import ShellFamily
from daemon_core.protocol import failures
from daemon_core.protocol.wire import Task
from daemon_core.tasks.launch import Launcher, PrepareError

MODES = ("allow", "ask", "deny")


def mode_of(claim: Task | None, launcher: Launcher, settings: Callable[[str], str], *, hub: bool) -> str:
    """``allow``, ``ask`` or ``deny`` for a run of a task."""
    if isinstance(launcher.family, ShellFamily):
        return "allow"
    wanted = claim.agent.permissions if hub and claim is not None and claim.agent is not None else None
    return wanted if wanted in MODES else settings(launcher.provider)


def launcher_for(launcher: Launcher, mode: str) -> Launcher:
    """The launcher that runs it under this policy. Raises ``PrepareError`` where none can."""
    if mode == "ask" and launcher.ask_family is not None:
        launcher = dataclasses.replace(launcher, family=launcher.ask_family, drive=launcher.ask_drive)
    why = refusal_of(launcher, mode)
    if why:
        raise PrepareError(why, failures.AGENT_CONFIG)
    return launcher


def refusal_of(launcher: Launcher, mode: str) -> str:
    """Why a family cannot run under a policy; empty where it can. Its plan says so, and starts nothing."""
    if mode == "allow":
        return ""
    request = LaunchRequest(
        provider=launcher.provider,
        drive=launcher.drive,
        executable=launcher.executable,
        prompt="x",
        work_dir="/",
        run_dir="/",
        permission_mode=mode,
    )
    try:
        launcher.family.plan(request)
    except LaunchError as error:
        return (
            f"{launcher.provider} cannot be run with the permission policy {mode!r}: {error}"
            " (permissions.default, or permissions of the agent, in the settings)"
        )
    return ""
