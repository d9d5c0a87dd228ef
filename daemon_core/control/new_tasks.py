"""A wish for a task, checked before the hub has it: what would only fail later is refused at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from daemon_core.control.backend import PREFIX_LEAST
from daemon_core.control.errors import ControlError
from daemon_core.control.refusals import asked
from daemon_core.control.runtime_desk import RuntimeDesk
from daemon_core.control.views import TaskAdd
from daemon_core.hub import Hub, NewTask
from daemon_core.journal import Journal
from daemon_core.runtimes.discovery import FoundAgent
from daemon_core.runtimes.registration import Registration
from daemon_core.tasks import policy
from daemon_core.tasks.engine import Engine
from daemon_core.tasks.launch import PrepareError
from daemon_core.workdirs import DirectoryRefusedError, validate_user_directory
from daemon_core.workdirs.mirrors import check_ref
from daemon_core.workdirs.repository_errors import RepositoryInputError
from daemon_core.workdirs.repository_urls import parse_url


class Source(Protocol):
    """Where agents and runtimes are; the facade is one of these."""

    @property
    def engine(self) -> Engine | None: ...
    @property
    def found(self) -> Sequence[FoundAgent]: ...
    @property
    def registrations(self) -> Mapping[str, Registration]: ...
    @property
    def runtime_desk(self) -> RuntimeDesk: ...
    def ready(self, *, starting: bool = False) -> tuple[Engine, Journal]: ...
    def need_hub(self) -> Hub: ...


class NewTasks:
    """Checks wishes, whoever has them: persons, and tasks that hand on work."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def checked(self, request: TaskAdd) -> NewTask:
        """A wish as the hub takes it. Raises ``ControlError``."""
        self._source.ready()
        self._source.need_hub()
        provider = self._provider(request.runtime, request.agent)
        directory = None
        if request.directory:
            try:
                directory = str(await asyncio.to_thread(validate_user_directory, request.directory))
            except DirectoryRefusedError as error:
                code = "not_writable" if error.code == "not_readable" else error.code
                raise ControlError(f"directory_{code}", {"path": error.path}) from error
        self._check_permissions(provider, request.permissions)
        repo_url = await asyncio.to_thread(_checked_repository, request) if request.repo else None
        return NewTask(
            prompt=request.prompt,
            provider=provider or None,
            agent=request.agent or None,
            directory=directory,
            repo_url=repo_url,
            repo_ref=(request.ref or None) if repo_url else None,
            model=request.model or None,
            thinking_level=request.thinking or None,
            title=request.title or None,
            permissions=request.permissions or None,
        )

    async def check_agent(self, agent: str) -> None:
        """Refuse a named agent that is not there, or whose program cannot run now."""
        found = await asked(self._source.need_hub().get_agent(agent))
        self._provider(found.provider, agent)

    def _provider(self, runtime: str, agent: str) -> str:
        source = self._source
        usable = {
            found.provider: found
            for found in source.found
            if found.usable and not source.runtime_desk.is_off_at("hub", found.provider)
        }
        if not runtime:
            if agent:
                return ""
            for provider in usable:
                # Never the shell by default: it would take the prompt for a command.
                if provider != "shell":
                    return provider
            raise ControlError("no_agent", {"known": sorted(usable)})
        by_id = {
            registered.runtime_id: registered.provider
            for registration in source.registrations.values()
            for registered in registration.runtimes.values()
        }
        wanted = runtime.lower()
        if wanted in usable:
            return wanted
        ids = [known for known in by_id if known == wanted or known.startswith(wanted)]
        if len(wanted) >= PREFIX_LEAST and len(ids) == 1:
            return by_id[ids[0]]
        found = next((found for found in source.found if found.provider == wanted), None)
        if found is not None and found.status != "missing":
            raise ControlError(
                "runtime_unusable",
                {
                    "runtime": wanted,
                    "reason": found.reason or "switched_off",
                    "reason_params": dict(found.params),
                },
            )
        raise ControlError("unknown_runtime", {"runtime": runtime, "known": sorted(usable)})

    def _check_permissions(self, provider: str, asked_for: str) -> None:
        """Refuse what would only fail later: an agent that cannot be run under this policy."""
        engine = self._source.engine
        launcher = engine.launchers.get(provider) if engine is not None else None
        if engine is None or launcher is None:
            return
        if asked_for and asked_for not in policy.MODES:
            raise ControlError("invalid_input", {"field": "permissions", "why": "unknown"})
        try:
            wanted = asked_for or engine.permissions(provider)
            policy.launcher_for(launcher, policy.mode_of(None, launcher, lambda _: wanted, hub=True))
        except PrepareError as error:
            raise ControlError(
                "invalid_input", {"field": "permissions", "why": "unsupported", "detail": str(error)}
            ) from error


def _checked_repository(request: TaskAdd) -> str:
    """The address of a task's repository as it may be stored. Looks at the disk."""
    try:
        url = parse_url(request.repo, allow_local=True)
        if request.ref:
            check_ref(request.ref)
    except RepositoryInputError as error:
        raise ControlError("repository_refused", {"why": error.code, "detail": str(error)}) from error
    why = ""
    if request.directory:
        why = "directory_too"
    elif url.had_credentials:
        why = "credentials_in_url"
    elif url.local and not os.path.isdir(url.path):
        why = "not_found"
    if why:
        raise ControlError("repository_refused", {"why": why, "repo": url.text})
    return url.text
