"""Repositories for tasks: check one out into a task's directory, and clear up afterwards.

``Repositories.checkout`` is all a caller needs. It knows no server: whether a task may have a repository, and
which trailer its commits get, is said by the caller.

Rules, beyond those of ``mirrors`` and ``worktrees``:

* Concurrent first uses of a repository are one clone: everybody waits for the mirror's lock, and who finds it
  made or fetched since he came does not fetch again.
* The start of a turn (``keep=True``) takes over the work tree of the conversation's earlier turns untouched.
  An agent that asks for a checkout gets a fresh branch, as the protocol says, unless something is
  uncommitted.
* A checkout that fails because its mirror turns out to be damaged is done once more on a good one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon_core.workdirs.cache_lock import HeldLock
from daemon_core.workdirs.git import GIT_LIMIT_S, Git, GitCommandError, explain
from daemon_core.workdirs.mirrors import Mirrors, Notice, check_ref, living_worktrees
from daemon_core.workdirs.repository_errors import RepositoryBusyError, RepositoryError
from daemon_core.workdirs.repository_urls import RepositoryUrl
from daemon_core.workdirs.worktrees import (
    WorktreeRecord,
    Worktrees,
    branch_name,
    locate,
)

log = logging.getLogger(__name__)

_TEMPORARY_AGE_S: Final = 24 * 3600.0
"""Temporary packs that are this old are nobody's: an agent's own fetch does not take a day."""
_COLLECT_LIMIT_S: Final = 600.0
_PRUNE_WAIT_S: Final = 1.0
_LOOK_S: Final = 0.2
_USED: Final = "ostler-used"
_COLLECTED: Final = "ostler-collected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """What a task has now. ``commit`` is where its branch began this time; ``made`` False: it was there."""

    path: Path
    branch: str
    commit: str
    made: bool
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorUse:
    """A mirror on disk, for whoever shows or clears the disk. Times are seconds since 1970."""

    path: Path
    workspace: str
    worktrees: tuple[Path, ...]
    last_used_at: float
    collected_at: float
    """When git last threw away what nothing leads to; before the first time: when it was cloned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What clearing up has taken away."""

    worktrees: int = 0
    branches: int = 0
    skipped: int = 0
    """Mirrors that somebody was working on."""


class Repositories:
    """The repositories of this daemon's tasks, below one directory.

    Args:
        root: ``data/repos``; made when needed.
        environ: What git commands get.
        reach: Told which point an operation has got to; the tests end the process at one.
    """

    def __init__(
        self,
        root: Path,
        environ: Mapping[str, str],
        *,
        git_limit_s: float = GIT_LIMIT_S,
        reach: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.mirrors = Mirrors(root, Git(environ, limit_s=git_limit_s), reach)
        self.worktrees = Worktrees(self.mirrors)

    async def checkout(
        self,
        url: RepositoryUrl,
        *,
        workspace_id: str,
        work_dir: Path,
        task_id: str,
        agent_name: str = "",
        ref: str = "",
        trailer: str = "",
        keep: bool = False,
    ) -> Checkout:
        """A work tree of a repository in a task's directory.

        Args:
            work_dir: The task's directory, absolute and there.
            ref: Branch, tag or commit; "" for the default branch.
            trailer: Added to each commit; "" for none.
            keep: Whether a work tree that is there is taken as it is.

        Cancelling is safe: what was begun is found and done again by the next one.

        Raises:
            RepositoryError: or one of its kinds; see there.
        """
        if ref:
            check_ref(ref)
        arrived = time.monotonic()
        mirror = self.mirrors.path(workspace_id, url)
        branch = branch_name(agent_name, task_id)
        async with self.mirrors.hold(mirror) as held:
            notices = await self.mirrors.sync(held, mirror, url, arrived)
            wanted = _Wanted(url, work_dir, task_id, ref, branch, trailer, keep)
            try:
                return await self._checkout(held, mirror, wanted, notices)
            except GitCommandError as error:
                if not error.damaged:
                    raise explain(error, url.text) from error
                log.warning("the mirror %s is damaged: %s", mirror, error)
            try:
                notices = await self.mirrors.replace(held, mirror, url)
                return await self._checkout(held, mirror, wanted, notices)
            except GitCommandError as error:
                raise explain(error, url.text) from error

    async def _checkout(
        self, held: HeldLock, mirror: Path, wanted: _Wanted, notices: list[Notice]
    ) -> Checkout:
        place = await asyncio.to_thread(locate, wanted.work_dir, wanted.url, mirror)
        path = place.path
        more: list[Notice] = []
        made = place.record is None
        if place.record is not None and wanted.keep:
            branch = await self.worktrees.current_branch(held, path)
            commit = place.record.base
        else:
            commit = await self.mirrors.resolve(held, mirror, wanted.url, wanted.ref)
            if place.record is not None:
                branch, more = await self.worktrees.renew(held, mirror, place, commit, wanted.branch)
            else:
                about = WorktreeRecord(task_id=wanted.task_id, ref=wanted.ref)
                record, more = await self.worktrees.make(
                    held, mirror, wanted.url, place, commit, about, wanted.branch
                )
                branch = record.branches[-1]
        self.mirrors.reach("repo_checked_out")
        await self.worktrees.set_trailer(held, mirror, path, wanted.trailer)
        await asyncio.to_thread(_touch, mirror)
        return Checkout(path=path, branch=branch, commit=commit, made=made, notices=(*notices, *more))

    # --- clearing up -------------------------------------------------------------------------------

    async def prune(self, *, gone_only: bool = False) -> Pruned:
        """Forget work trees whose directory is gone, delete agents' branches that were theirs, remove what
        interrupted clones and fetches have left. A mirror that somebody works on is left for the next time.

        Args:
            gone_only: Look only at mirrors that have a work tree which is gone: cheap, for the end of a
                conversation.
        """
        worktrees = branches = skipped = 0
        for mirror in await asyncio.to_thread(self.mirrors.all):
            if gone_only and not await asyncio.to_thread(_has_gone, mirror):
                continue
            try:
                async with self.mirrors.hold(mirror, wait_s=30.0 if gone_only else _PRUNE_WAIT_S) as held:
                    worktrees += await self.worktrees.forget_gone(held, mirror)
                    branches += len(await self.worktrees.delete_stale_branches(held, mirror))
                    if not gone_only:
                        await asyncio.to_thread(_remove_temporaries, mirror)
            except RepositoryBusyError:
                skipped += 1
            except (GitCommandError, RepositoryError, OSError) as error:
                log.warning("the mirror %s could not be tidied up: %s", mirror, error)
                skipped += 1
        return Pruned(worktrees=worktrees, branches=branches, skipped=skipped)

    async def collect(self, mirror: Path) -> bool:
        """Let git throw away what nothing leads to (``git gc``, reflog 30 days), within ten minutes. It gives
        way to a checkout that wants the mirror meanwhile; False if it did so, or somebody works on it.

        Raises:
            RepositoryError
        """
        try:
            async with (
                self.mirrors.hold(mirror, wait_s=_PRUNE_WAIT_S) as held,
                asyncio.TaskGroup() as group,
            ):
                collecting = group.create_task(self._collect(held, mirror))
                while not (await asyncio.wait({collecting}, timeout=_LOOK_S))[0]:
                    if self.mirrors.is_wanted(mirror):
                        collecting.cancel()
                        return False
        except RepositoryBusyError:
            return False
        await asyncio.to_thread(_touch, mirror, _COLLECTED)  # also if it failed: not at every round
        failed = collecting.result()
        if failed is not None:
            raise failed
        return True

    async def _collect(self, held: HeldLock, mirror: Path) -> RepositoryError | None:
        """``git gc``; its failure as a value, so that a group does not wrap it."""
        try:
            await self.mirrors.run(
                held, mirror, "-c", "gc.reflogExpire=30.days", "-c", "gc.reflogExpireUnreachable=30.days",
                "gc", "--quiet", limit_s=_COLLECT_LIMIT_S,
            )  # fmt: skip
        except GitCommandError as error:
            return explain(error, mirror.name)
        except RepositoryError as error:
            return error
        return None

    def usage(self) -> list[MirrorUse]:
        """Every mirror with who uses it (touches the disk: in a thread)."""
        return [
            MirrorUse(
                path=mirror,
                workspace=mirror.parent.name,
                worktrees=tuple(living_worktrees(mirror)),
                last_used_at=_time_of(mirror, _USED),
                collected_at=_time_of(mirror, _COLLECTED),
            )
            for mirror in self.mirrors.all()
        ]

    async def remove(self, mirror: Path) -> bool:
        """Remove a mirror that no work tree uses, to be cloned again when it is needed; False if one does, or
        somebody works on it."""
        try:
            async with self.mirrors.hold(mirror, wait_s=_PRUNE_WAIT_S):
                if await asyncio.to_thread(living_worktrees, mirror):
                    return False
                doomed = mirror.with_name(f"{mirror.name}.new-gone")  # a leftover, should this be cut short
                os.rename(mirror, doomed)
                await asyncio.to_thread(shutil.rmtree, doomed, ignore_errors=True)
        except (RepositoryBusyError, OSError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Wanted:
    url: RepositoryUrl
    work_dir: Path
    task_id: str
    ref: str
    branch: str
    trailer: str
    keep: bool


def _touch(mirror: Path, name: str = _USED) -> None:
    """Note that a mirror was used, or collected."""
    with contextlib.suppress(OSError):
        (mirror / name).touch()


def _time_of(mirror: Path, mark: str) -> float:
    for name in (mark, "description", "HEAD"):
        with contextlib.suppress(OSError):
            return (mirror / name).stat().st_mtime
    return 0.0


def _has_gone(mirror: Path) -> bool:
    return len(living_worktrees(mirror)) != sum(1 for _ in mirror.glob("worktrees/*"))


def _remove_temporaries(mirror: Path) -> None:
    """Old temporary packs, half-made clones, and damaged mirrors that no work tree uses."""
    before = time.time() - _TEMPORARY_AGE_S
    name = re.sub(r"([*?\[])", r"[\1]", mirror.name)
    for pattern in ("objects/pack/tmp_*", "objects/tmp_objdir-*", "objects/??/tmp_obj_*"):
        for path in mirror.glob(pattern):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < before:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (*mirror.parent.glob(f"{name}.new-*"), *mirror.parent.glob(f"{name}.damaged-*")):
        if not living_worktrees(path):
            shutil.rmtree(path, ignore_errors=True)
