"""From a task as claimed to what is started for it: its user directory, the request, the run's files.

Everything that a task can ask for and that cannot be done ends in a ``PrepareError``, which is what its
server is told.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from daemon_core.agents.families import TIERED
from daemon_core.agents.family import Drive, Family, LaunchPlan, LaunchRequest
from daemon_core.jobs.notices import Notice
from daemon_core.processes.errors import SpawnError
from daemon_core.protocol import failures
from daemon_core.protocol.wire import Agent, LocalDirectoryRef, Task
from daemon_core.runtimes.models import Choice
from daemon_core.tasks import prompts
from daemon_core.tasks.telling import prompt_with
from daemon_core.workdirs.environments import Layout, Prepared


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """How a provider is started on this machine."""

    provider: str
    executable: str
    family: Family
    drive: Drive = field(default_factory=Drive)
    ask_family: Family | None = None
    """Drives it instead while the user wants to be asked for permission."""
    ask_drive: Drive = field(default_factory=Drive)
    layout: Layout = field(default_factory=Layout)
    """Where it looks for its brief and its skills."""
    search_path: tuple[str, ...] = ()
    """Directories that PATH has to end with, so that the program finds its interpreter."""
    choose: Callable[[str, str], Coroutine[Any, Any, Choice]] | None = None
    """Says what of a model and a thinking level is passed on; never fails."""
    model: str = ""
    thinking: str = ""
    args: tuple[str, ...] = ()


class PrepareError(Exception):
    """The task cannot be run; reported as failed with this reason."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class OverError(Exception):
    """The server has ended or lost the task, or the user ends it with the daemon, before its run began."""


def named_directory(claim: Task, daemon_id: str) -> str:
    """The user directory of this machine that the task names, or "".

    Raises ``PrepareError`` as the protocol says: also for a resource that is meant for another
    machine but cannot be understood.
    """
    mine: list[str] = []
    for resource in claim.project_resources or []:
        if resource.resource_type != "local_directory":
            continue
        try:
            found = msgspec.convert(resource.resource_ref, LocalDirectoryRef)
        except msgspec.ValidationError as error:
            raise PrepareError(
                f"a local directory of the task cannot be read: {error}", failures.LOCAL_DIRECTORY_ERROR
            ) from error
        if not found.daemon_id.strip():
            raise PrepareError(
                "a local directory of the task does not say whose machine it is on",
                failures.LOCAL_DIRECTORY_ERROR,
            )
        if found.daemon_id.strip() == daemon_id:
            if not found.local_path.strip():
                raise PrepareError(
                    "a local directory of the task names no path", failures.LOCAL_DIRECTORY_ERROR
                )
            if (found.execution_mode or "").strip() == "worktree":
                raise PrepareError(
                    "the task wants a work tree of a local directory, which this daemon does not make; it is"
                    " not run in the directory itself",
                    failures.LOCAL_DIRECTORY_ERROR,
                )
            mine.append(found.local_path)
    if len(mine) > 1:
        raise PrepareError(
            "the task names two local directories on this machine", failures.LOCAL_DIRECTORY_ERROR
        )
    return mine[0] if mine else ""


def request_of(
    claim: Task,
    launcher: Launcher,
    work_dir: str,
    run_dir: Path,
    prepared: Prepared,
    *,
    hub: bool,
    notices: Sequence[Notice] = (),
) -> LaunchRequest:
    """What is wanted of a run of this task in a directory as it was prepared; ``notices`` are told first."""
    agent = claim.agent or Agent()
    prior_dir = claim.prior_work_dir or ""
    # A session is bound to its directory: resumed only in the identical one.
    same = bool(prior_dir) and os.path.realpath(prior_dir) == os.path.realpath(work_dir)
    if claim.fresh_message and not (same and claim.prior_session_id):
        claim = msgspec.structs.replace(claim, chat_message=claim.fresh_message)
    servers = managed_servers(agent)
    session = (claim.prior_session_id or "") if same else ""
    prompt = prompts.prompt_of(claim, launcher.family.name, hub=hub)
    return LaunchRequest(
        provider=launcher.provider,
        drive=launcher.drive,
        executable=launcher.executable,
        prompt=prepared.prompt(prompt_with(prompt, notices, claim, resumes=bool(session))),
        work_dir=work_dir,
        run_dir=str(run_dir),
        resume_session_id=session,
        model=agent.model or launcher.model,
        thinking_level=agent.thinking_level or launcher.thinking,
        service_tier=(agent.service_tier or "").strip(),
        instructions=prepared.instructions,
        mcp_servers=servers,
        settings_files=prepared.settings,
        extra_args=(*launcher.args, *(agent.custom_args or ())),
    )


def managed_servers(agent: Agent) -> dict[str, object] | None:
    """The MCP servers that an agent was given at its server, by name; None: its own settings apply."""
    servers = agent.mcp_config if isinstance(agent.mcp_config, dict) else None
    if servers is not None and isinstance(servers.get("mcpServers"), dict):
        servers = servers["mcpServers"]
    return servers


def not_passed_on(request: LaunchRequest, family: str) -> tuple[str, ...]:
    """What was asked for and is known to nobody here, in words."""
    if not request.service_tier or family in TIERED:
        return ()
    return (f"The service tier {request.service_tier!r} is not passed on: {request.provider} takes none.",)


def with_search_path(env: dict[str, str], launcher: Launcher) -> dict[str, str]:
    """An environment in which the launcher's program finds its interpreter."""
    parts = [part for part in env.get("PATH", "").split(os.pathsep) if part]
    added = [part for part in launcher.search_path if part not in parts]
    return {**env, "PATH": os.pathsep.join([*parts, *added])} if added else env


def without_dropped(env: dict[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """An environment less the names that match; a pattern may end in ``*``."""

    def dropped(name: str) -> bool:
        return any(
            name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
            for pattern in patterns
        )

    return {name: value for name, value in env.items() if not dropped(name)}


def run_environment(env: dict[str, str], plan: LaunchPlan) -> dict[str, str]:
    """What the agent gets: an environment with what its plan adds and without what it takes away."""
    found = {**without_dropped(env, plan.drop_env), **plan.env}
    for name, added in plan.json_env.items():
        try:
            there = msgspec.json.decode(found.get(name) or "{}")
        except (msgspec.DecodeError, UnicodeError):
            there = {}  # nothing that the program could understand
        found[name] = msgspec.json.encode(_joined(there, added)).decode()
    return found


def _joined(there: object, added: Mapping[str, object]) -> dict[str, object]:
    """A JSON object with another one put into it, level by level."""
    found: dict[str, object] = dict(there) if isinstance(there, dict) else {}
    for name, value in added.items():
        found[name] = _joined(found.get(name), value) if isinstance(value, Mapping) else value
    return found


def write_files(run_dir: Path, plan: LaunchPlan) -> None:
    """Write the plan's files, 0600 (in a thread). Raises ``OSError``."""
    for name, content in plan.files.items():
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise OSError(errno.EINVAL, "not a plain file name", name)
        path = run_dir / name
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "wb") as stream:
            stream.write(content)


def spawn_reason(error: SpawnError) -> str:
    """The failure reason of a run that could not be started."""
    if error.what == "exec" and error.errno == errno.ENOENT:
        return failures.AGENT_MISSING
    return failures.AGENT_PROCESS
