"""A run's own home of its provider, where it has one: the user's sign-in and sessions, the task's settings.

In Ostler's own directories it is beside the work directory; each directory of the user's has one below
``state/homes``, which is one run's at a time as the directory is. Sessions are kept in the user's home in
either case, so that a later turn finds them wherever it runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from daemon_core.agents.families import CODEX
from daemon_core.protocol import failures
from daemon_core.tasks import later
from daemon_core.tasks.launch import PrepareError
from daemon_core.workdirs.provider_homes import McpServers, codex_home, user_codex_home, write_home

if TYPE_CHECKING:
    from daemon_core.agents.family import LaunchRequest
    from daemon_core.tasks.life import TaskLife
    from daemon_core.workdirs.environments import Prepared

log = logging.getLogger(__name__)

HOMES: Final = "homes"
_GONE: Final = ".gone"
"""End of the name of a home that is being taken apart."""


async def lay_out(
    life: TaskLife, family: str, request: LaunchRequest, prepared: Prepared, env: Mapping[str, str]
) -> dict[str, str]:
    """Make the run's home, if its family has one; gives what its environment needs.

    Raises ``PrepareError`` if that cannot be done, and ``OverError``.
    """
    if family != CODEX:
        return {}
    repositories = life.engine.repositories
    writable = [repositories.repositories.mirrors.root] if repositories is not None else []
    root = Path(request.work_dir).parent
    if life.record.directory:
        # Not the run's: making a new one costs the program a tenth of a second, and us three megabytes.
        root = life.engine.runs_dir.parent / HOMES / _name_of(life.record.directory)

    def make() -> dict[str, str]:
        user_home = user_codex_home(env)
        try:
            # Linked, so that what is said in a task can be gone on with in another one.
            (user_home / "sessions").mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("sessions of Codex are kept in the task's home alone: %s", error)
        plan = codex_home(
            root,
            user_home,
            prepared.home_skills,
            run_dir=life.run_dir,
            servers=McpServers(managed=request.mcp_servers, added=request.added_mcp_servers),
            writable=writable,
            unwanted=later.unwanted_skills(life.claim, life.record.provider) if life.claim else (),
        )
        write_home(plan)
        return plan.env

    try:
        return await life.engine.patience.carry(lambda: life.unless_over(asyncio.to_thread(make)))
    except OSError as error:
        raise PrepareError(
            f"the home of the agent cannot be made: {error}", failures.AGENT_PROCESS
        ) from error


def _name_of(directory: str) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:32]


async def forget_unused(runs_dir: Path, before: float, in_use: Callable[[], Collection[str]]) -> int:
    """Remove the homes of users' directories that no run has used since ``before`` (Unix time); gives how
    many. Nothing of the user's is in them: what they lead to stays.

    Args:
        in_use: The users' directories that tasks have now; asked again right before each removal.
    """
    removed = 0
    for home in await asyncio.to_thread(lambda: list(_unused(runs_dir.parent / HOMES, before))):
        try:
            if not home.name.endswith(_GONE):
                if home.name in {_name_of(directory) for directory in in_use()}:
                    continue
                # On the event loop, so that no task begins in between; from here on it would make a new one.
                home = home.rename(home.with_name(home.name + _GONE))
            await asyncio.to_thread(shutil.rmtree, home)
            removed += 1
        except OSError as error:
            log.warning("clean-up: the home %s stays for now: %s", home, error)
    return removed


def _unused(root: Path, before: float) -> Iterator[Path]:
    """Homes that are old, and what an interrupted removal has left."""
    for home in sorted(root.iterdir()) if root.is_dir() else ():
        if home.name.endswith(_GONE):
            yield home
            continue
        # Each run links its settings anew, which is a change of the directory that they are in.
        changed = max(each.stat(follow_symlinks=False).st_mtime for each in [home, *home.iterdir()])
        if changed < before:
            yield home
