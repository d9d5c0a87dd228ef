"""Which repositories a task may have, and getting them: where servers' word and git meet.

Rules:

* Allowed are the workspace's repositories and the task's own; the task's are asked of its claim each time, so
  no refresh of the workspace takes them away. The workspace is asked anew at each checkout, so that a changed
  setting (a repository, the trailer) acts at once; a server that does not answer leaves what was known.
* A path of this machine is allowed only to the hub's tasks, and only where the user listed it.
* What is not configured is told apart from what is and cannot be fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from daemon_core.protocol.errors import ServerError
from daemon_core.protocol.wire import Task
from daemon_core.runtimes.registration import Registration
from daemon_core.workdirs.commit_trailer import trailer_of, wanted_trailer
from daemon_core.workdirs.repositories import Checkout, Repositories
from daemon_core.workdirs.repository_errors import RepositoryInputError
from daemon_core.workdirs.repository_urls import RepositoryUrl, parse_url

if TYPE_CHECKING:
    from daemon_core.tasks.life import TaskLife

log = logging.getLogger(__name__)

REFRESH_LIMIT_S: Final = 5.0
"""A slow server must not make its agents wait for what is known already."""


class NotConfiguredError(RepositoryInputError):
    """``not_configured``: neither the workspace nor the task has this repository."""


@dataclass(frozen=True, slots=True)
class OwnRepositories:
    """What the user's settings say for the hub's tasks."""

    urls: Sequence[str] = ()
    co_author: str = ""


class TaskRepositories:
    """Repositories for the tasks of all connections.

    Args:
        registrations: By name of the connection; the workspaces are known there.
        own: The settings, read at each use.
    """

    def __init__(
        self,
        repositories: Repositories,
        registrations: Mapping[str, Registration],
        own: Callable[[], OwnRepositories],
    ) -> None:
        self.repositories = repositories
        self._registrations = registrations
        self._own = own

    async def prepare(self, life: TaskLife, work_dir: Path) -> list[Checkout]:
        """Check out what a task of the hub is to begin with; later turns find it as it was.

        Raises:
            RepositoryError
        """
        claim = life.claim
        if claim is None or not life.connection.timing.loopback:
            return []
        done = []
        for repo in claim.repos or []:
            with contextlib.suppress(ServerError):
                await life.connection.client.progress(
                    life.record.task_id, f"Checking out {_shown(repo.url)}", 0, 0
                )
            found = await self.checkout(life, claim, repo.url, repo.ref or "", work_dir, keep=True)
            for notice in found.notices:
                log.warning("task %s: %s", life.record.task_id, notice.message)
            done.append(found)
        return done

    async def checkout(
        self, life: TaskLife, claim: Task, url: str, ref: str, work_dir: Path, *, agent_name: str = "",
        keep: bool = False,
    ) -> Checkout:  # fmt: skip
        """A work tree of a repository in a task's directory, or in one inside it.

        Args:
            ref: "" for the one that the task or the workspace names, else the default branch.
            work_dir: Checked by the caller.

        Raises:
            NotConfiguredError: The task may not have it.
            RepositoryError: or one of its kinds; see there.
        """
        hub = life.connection.timing.loopback
        wanted = parse_url(url, allow_local=hub)
        settings: dict[str, Any] | None = None
        listed: list[tuple[str, str]] = [(repo.url, repo.ref or "") for repo in claim.repos or []]
        if hub:
            own = self._own()
            listed += [(each, "") for each in own.urls]
            trailer = _own_trailer(own.co_author)
        else:
            state = await self._workspace(life.connection.name, claim.workspace_id)
            if state is not None:
                listed += state[0]
                settings = state[1]
            trailer = wanted_trailer(settings)
        found = _find(wanted, listed, allow_local=hub)
        if found is None:
            hint = (
                "start the task with --repo, or list it in the setting repositories.urls"
                if hub
                else "add it to the workspace or its project at the server"
            )
            raise NotConfiguredError(
                "not_configured", f"the repository {wanted} is not configured for this task; {hint}"
            )
        allowed, its_ref = found
        return await self.repositories.checkout(
            allowed,
            workspace_id=claim.workspace_id,
            work_dir=work_dir,
            task_id=claim.id,
            agent_name=agent_name or (claim.agent.name if claim.agent is not None else ""),
            ref=ref or its_ref,
            trailer=trailer,
            keep=keep,
        )

    async def _workspace(
        self, connection: str, workspace_id: str
    ) -> tuple[list[tuple[str, str]], dict[str, Any] | None] | None:
        registration = self._registrations.get(connection)
        if registration is None:
            return None
        state = registration.workspaces.get(workspace_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_LIMIT_S):
                state = await registration.refresh_workspace(workspace_id)
        if state is None:
            return None
        return [(repo.url, repo.ref or "") for repo in state.repos], state.settings


def _own_trailer(identity: str) -> str:
    try:
        return trailer_of(identity)
    except RepositoryInputError as error:
        log.warning("the setting repositories.co_author is not used: %s", error)
        return ""


def lies_inside(path: str, directory: str) -> bool:
    """Whether a path is a directory, or is in one, with all links followed (touches the disk)."""
    if not path or not directory or "\0" in path or not os.path.isabs(path):
        return False
    inner, outer = Path(os.path.realpath(path)), Path(os.path.realpath(directory))
    return inner.is_relative_to(outer) and inner.is_dir()


def _find(
    wanted: RepositoryUrl, listed: Sequence[tuple[str, str]], *, allow_local: bool
) -> tuple[RepositoryUrl, str] | None:
    """The listed repository that is meant: as it was written first, else by host and path."""
    near: tuple[RepositoryUrl, str] | None = None
    for url, ref in listed:
        try:
            parsed = parse_url(url, allow_local=allow_local)
        except RepositoryInputError:
            continue  # a server may list what is of no use here
        if parsed.text == wanted.text:
            return parsed, ref
        if parsed.key == wanted.key and near is None:
            near = parsed, ref
    return near


def _shown(url: str) -> str:
    try:
        return parse_url(url, allow_local=True).name
    except RepositoryInputError:
        return "a repository"
