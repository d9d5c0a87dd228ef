"""Work trees of a mirror in a task's directory: made, found again, kept, and forgotten when they are gone.

Rules: a work tree is ours when its ``.git`` file and the mirror name each other. It is whole when its git
directory holds ``ostler.json``, written last; one without it is what a death left and is made again. What an
agent has not committed is never touched. An agent's branch is deleted only when no work tree that is there
has used it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from daemon_core.workdirs import commit_trailer
from daemon_core.workdirs.cache_lock import HeldLock
from daemon_core.workdirs.git import GitCommandError
from daemon_core.workdirs.mirrors import Mirrors, Notice, living_worktrees
from daemon_core.workdirs.repository_errors import RepositoryError
from daemon_core.workdirs.repository_urls import RepositoryUrl

BRANCH_PREFIX: Final = "agent/"
_SLUG_LIMIT: Final = 30
_NAMES_TRIED: Final = 20
_RECORD_NAME: Final = "ostler.json"
_UNFINISHED: Final = (
    "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply", "BISECT_LOG",
)  # fmt: skip


class WorktreeRecord(msgspec.Struct, omit_defaults=True):
    """What is known of a work tree. ``base`` is the commit it was first made at; ``branches`` are all that
    Ostler made for it, the newest last."""

    task_id: str = ""
    url: str = ""
    ref: str = ""
    base: str = ""
    branches: list[str] = []
    made_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a work tree is or can be. ``git_dir`` None: there is none yet."""

    path: Path
    git_dir: Path | None = None
    record: WorktreeRecord | None = None


def branch_name(agent_name: str, task_id: str) -> str:
    """``agent/<slug, at most 30 characters>/<8 hex>``."""
    slug = re.sub(r"[^a-z0-9]+", "-", agent_name.lower()).strip("-")[:_SLUG_LIMIT].strip("-") or "agent"
    return f"{BRANCH_PREFIX}{slug}/{re.sub('[^0-9a-f]', '', task_id.lower())[:8] or 'task'}"


def read_record(path: Path) -> WorktreeRecord | None:
    """The record of the work tree at ``path``; None where there is none (touches the disk)."""
    git_dir = _named_git_dir(path)
    return None if git_dir is None else _read(git_dir)


def branch_of(work_dir: Path, task_id: str) -> str:
    """The branch that a task has worked on: where its directory holds exactly one work tree of ours, the one
    branch made there for it, or the one that an earlier turn left it; else "" (touches the disk)."""
    records: list[WorktreeRecord] = []
    with contextlib.suppress(OSError), os.scandir(work_dir) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and (record := read_record(Path(entry.path))) is not None:
                records.append(record)
    if len(records) != 1:
        return ""
    own = branch_name("", task_id).rpartition("/")[2]
    branches = records[0].branches
    mine = [each for each in branches if each.rpartition("/")[2].partition("-")[0] == own] or branches
    return mine[0] if len(mine) == 1 else ""


def locate(work_dir: Path, url: RepositoryUrl, mirror: Path) -> Place:
    """Where a repository is in a task's directory, or a free place for it: ``name``, else ``name-2``, …

    Raises:
        RepositoryError: ``conflict``, every name is taken by something else.
    """
    free: Place | None = None
    for number in range(1, _NAMES_TRIED + 1):
        path = work_dir / (url.name if number == 1 else f"{url.name}-{number}")
        git_dir = _own_git_dir(path, mirror)
        if git_dir is not None:
            return Place(path, git_dir, _read(git_dir))
        if not os.path.lexists(path) or (path.is_dir() and not path.is_symlink() and not any(path.iterdir())):
            free = free or Place(path)
            if not os.path.lexists(path):
                break
    if free is None:
        raise RepositoryError("conflict", f"{work_dir / url.name} is there already and is something else")
    return free


@dataclass(slots=True)
class Worktrees:
    """Makes and forgets work trees. Everything that takes a ``HeldLock`` needs the mirror's own."""

    mirrors: Mirrors

    async def make(
        self, held: HeldLock, mirror: Path, url: RepositoryUrl, place: Place, commit: str,
        record: WorktreeRecord, branch: str,
    ) -> tuple[WorktreeRecord, list[Notice]]:  # fmt: skip
        """A new work tree at ``place`` on a new branch; what a death left there goes first.

        Raises:
            GitCommandError, RepositoryError
        """
        if place.git_dir is not None:
            await self._discard(held, mirror, place)
        await self.forget_gone(held, mirror)
        branch = await self._free_branch(held, mirror, branch)
        await self.mirrors.run(
            held, mirror, "worktree", "add", "--quiet", "--force", "--no-checkout", "--no-track",
            "-b", branch, str(place.path), commit,
        )  # fmt: skip
        self.mirrors.reach("repo_worktree")
        notices = await self._fill(held, place.path)
        git_dir = _own_git_dir(place.path, mirror)
        if git_dir is None:
            raise RepositoryError("git", f"{place.path} was taken away while it was being made")
        made = WorktreeRecord(
            task_id=record.task_id, url=url.text, ref=record.ref, base=commit, branches=[branch],
            made_at=time.time(),
        )  # fmt: skip
        _write(git_dir, made)
        return made, notices + _contents(place.path, self.mirrors.git.has_lfs)

    async def renew(
        self, held: HeldLock, mirror: Path, place: Place, commit: str, branch: str
    ) -> tuple[str, list[Notice]]:
        """Put a work tree that holds nothing uncommitted on a new branch at ``commit``; one that does stays
        as it is, and so does one that is there already. Gives its branch.

        Raises:
            GitCommandError, RepositoryError
        """
        assert place.git_dir is not None
        assert place.record is not None
        current = await self.current_branch(held, place.path)
        why = await self._precious(held, place)
        if why:
            text = f"{place.path.name} was left as it is: {why}; commit or remove it and check out again"
            return current, [Notice("kept_uncommitted", text)]
        at = await self._git(held, place.path, "rev-parse", "--verify", "--quiet", "HEAD", check=False)
        if at == commit and current in place.record.branches:
            return current, []
        branch = await self._free_branch(held, mirror, branch)
        # The protocol's reset and clean would find nothing to do here: the tree was looked at just now.
        await self._git(held, place.path, "checkout", "--quiet", "--no-track", "-b", branch, commit)
        place.record.branches.append(branch)
        _write(place.git_dir, place.record)
        notices = []
        if current:
            notices.append(Notice("earlier_branch", f"what was committed before is on the branch {current}"))
        return branch, notices

    async def set_trailer(self, held: HeldLock, mirror: Path, path: Path, trailer: str) -> None:
        """Put the hook for the trailer there, or take it away for an empty one."""
        git_dir = _own_git_dir(path, mirror)
        if git_dir is None:
            return
        if trailer:
            hooks = commit_trailer.install(git_dir, trailer)
            await self._git(held, path, "config", "--worktree", "core.hooksPath", str(hooks))
        elif (git_dir / commit_trailer.HOOKS_NAME).exists():
            await self._git(held, path, "config", "--worktree", "--unset-all", "core.hooksPath", check=False)
            commit_trailer.remove(git_dir)

    async def current_branch(self, held: HeldLock, path: Path) -> str:
        """The branch a work tree is on; "" for none."""
        return await self._git(held, path, "symbolic-ref", "--quiet", "--short", "HEAD", check=False)

    # --- what is gone ------------------------------------------------------------------------------

    async def forget_gone(self, held: HeldLock, mirror: Path) -> int:
        """Forget work trees whose directory is gone, also half-made ones; gives how many."""
        gone = 0
        for entry in list(mirror.glob("worktrees/*")):
            with contextlib.suppress(OSError):
                try:
                    link = Path((entry / "gitdir").read_text("utf-8").strip())
                except FileNotFoundError:
                    link = Path()
                if link.is_file():
                    continue
                gone += 1
                with contextlib.suppress(FileNotFoundError):
                    (entry / "locked").unlink()  # git's own, "initializing": its worktree add was killed
        if gone:
            await self.mirrors.run(held, mirror, "worktree", "prune", "--expire=now", limit_s=30.0)
        return gone

    async def delete_stale_branches(self, held: HeldLock, mirror: Path) -> list[str]:
        """Delete agents' branches that no work tree that is there is on or was given."""
        kept: set[str] = set()
        for path in living_worktrees(mirror):
            kept.add(await self.current_branch(held, path))
            record = read_record(path)
            kept.update(record.branches if record is not None else ())
        listed = await self.mirrors.run(
            held, mirror, "for-each-ref", "--format=%(refname:short)", f"refs/heads/{BRANCH_PREFIX}",
            limit_s=30.0,
        )  # fmt: skip
        stale = [name for name in listed.text.splitlines() if name and name not in kept]
        for start in range(0, len(stale), 100):
            await self.mirrors.run(
                held, mirror, "branch", "--quiet", "-D", "--", *stale[start : start + 100], limit_s=30.0
            )
        return stale

    # --- inside ------------------------------------------------------------------------------------

    async def _git(self, held: HeldLock, path: Path, *arguments: str, check: bool = True) -> str:
        result = await self.mirrors.git.run(*arguments, cwd=path, check=check, on_start=held.note)
        return result.text if result.ok else ""

    async def _fill(self, held: HeldLock, path: Path) -> list[Notice]:
        """Write the files. Large files that git-lfs cannot fetch stay pointers, which is no failure."""
        git = self.mirrors.git
        if git.has_lfs:
            try:
                await git.run("reset", "--quiet", "--hard", cwd=path, lfs=True, on_start=held.note)
            except GitCommandError as error:
                if "smudge" not in error.result.error and "lfs" not in error.result.error.lower():
                    raise
            else:
                return []
        await git.run("reset", "--quiet", "--hard", cwd=path, on_start=held.note)
        if git.has_lfs:
            return [Notice("lfs_pointers", "large files could not be fetched; `git lfs pull` tries again")]
        return []

    async def _precious(self, held: HeldLock, place: Place) -> str:
        """What in a work tree would be lost by leaving it, in words; "" for nothing."""
        assert place.git_dir is not None
        for name in _UNFINISHED:
            if (place.git_dir / name).exists():
                return "something in it is not finished (a merge or a rebase)"
        status = await self._git(held, place.path, "status", "--porcelain", "--untracked-files=normal")
        if status:
            changed = len(status.splitlines())
            return f"it has uncommitted work ({changed} file{'s' if changed != 1 else ''})"
        if not await self.current_branch(held, place.path):
            loose = await self._git(
                held,
                place.path,
                "rev-list",
                "--max-count=1",
                "HEAD",
                "--not",
                "--branches",
                "--tags",
                "--remotes",
            )
            if loose:
                return "it has commits that are on no branch"
        return ""

    async def _free_branch(self, held: HeldLock, mirror: Path, wanted: str) -> str:
        branch = wanted
        number = 0
        while True:
            taken = await self.mirrors.run(
                held, mirror, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", check=False
            )
            if not taken.ok:
                return branch
            branch = f"{wanted}-{int(time.time())}" + (f"-{number}" if number else "")
            number += 1

    async def _discard(self, held: HeldLock, mirror: Path, place: Place) -> None:
        """Take away a work tree that was never whole, with the branch that was made for it."""
        assert place.git_dir is not None
        branch = ""
        with contextlib.suppress(OSError):
            head = (place.git_dir / "HEAD").read_text("utf-8").strip()
            branch = (
                head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/agent/") else ""
            )
        shutil.rmtree(place.path)
        await self.forget_gone(held, mirror)
        if branch:
            await self.mirrors.run(held, mirror, "branch", "--quiet", "-D", "--", branch, check=False)


def _named_git_dir(path: Path) -> Path | None:
    """What the ``.git`` file of a work tree names, if that is one of a mirror's and names it back."""
    link = path / ".git"
    try:
        if path.is_symlink() or link.is_symlink() or not link.is_file() or link.stat().st_size > 4096:
            return None
        said = link.read_text("utf-8").strip()
        if not said.startswith("gitdir: "):
            return None
        git_dir = Path(said.removeprefix("gitdir: "))
        back = Path((git_dir / "gitdir").read_text("utf-8").strip())
        if not os.path.samefile(back, link):
            return None
    except (OSError, UnicodeDecodeError):
        return None
    return git_dir


def _own_git_dir(path: Path, mirror: Path) -> Path | None:
    git_dir = _named_git_dir(path)
    if git_dir is None:
        return None
    try:
        return git_dir if os.path.samefile(git_dir.parent, mirror / "worktrees") else None
    except OSError:
        return None


def _read(git_dir: Path) -> WorktreeRecord | None:
    try:
        return msgspec.json.decode((git_dir / _RECORD_NAME).read_bytes(), type=WorktreeRecord)
    except (OSError, ValueError):
        return None


def _write(git_dir: Path, record: WorktreeRecord) -> None:
    temporary = git_dir / f"{_RECORD_NAME}.new"
    temporary.write_bytes(msgspec.json.encode(record))
    os.replace(temporary, git_dir / _RECORD_NAME)


def _contents(path: Path, has_lfs: bool) -> list[Notice]:
    """What an agent should know of a fresh work tree."""
    notices = []
    if (path / ".gitmodules").is_file():
        notices.append(
            Notice("submodules", "its submodules were not fetched; `git submodule update --init` does that")
        )
    if not has_lfs:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if "filter=lfs" in (path / ".gitattributes").read_text("utf-8"):
                notices.append(
                    Notice("lfs_pointers", "large files are pointers, since git-lfs is not installed here")
                )
    return notices
