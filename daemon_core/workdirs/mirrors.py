"""Bare mirrors of repositories, one a workspace and address: cloned once, fetched at each use.

Rules: a mirror appears under its name only when it is whole (cloned under a temporary name, then renamed).
Branches of the server are below ``refs/remotes/origin``, so that ``refs/heads`` belongs to the work trees. A
fetch that fails leaves older code and a notice. A damaged mirror is cloned anew; the old one is set aside
when no work tree uses it, and repaired in place when one does. Every method that takes a ``HeldLock`` needs
the mirror's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from daemon_core.workdirs.cache_lock import CacheLocks, HeldLock
from daemon_core.workdirs.git import Git, GitCommandError, GitResult, explain
from daemon_core.workdirs.repository_errors import (
    RefNotFoundError,
    RepositoryError,
    RepositoryInputError,
    RepositoryUnavailableError,
)
from daemon_core.workdirs.repository_urls import RepositoryUrl

EXCLUDED: Final = (".agent_context", "CLAUDE.md", "AGENTS.md", ".claude", ".opencode", ".ostler", ".multica")
"""What Ostler puts beside an agent's work; at the top of a work tree it is nobody's to commit."""
_EXCLUDE_BEGIN: Final = "# ostler: begin"
_EXCLUDE_END: Final = "# ostler: end"
_FETCH: Final = "+refs/heads/*:refs/remotes/origin/*"
_SEGMENT: Final = re.compile(r"[0-9a-zA-Z_-]+")
_OBJECT_ID: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF_BAD: Final = re.compile(r"[\x00-\x20\x7f:?*\[\\]|\.\.|@\{|//")
_REF_LIMIT: Final = 255
_LOCK_PATIENCE_S: Final = 2.0
"""An agent's own git holds a ref's lock for milliseconds; one that is still there after this is left over."""
_UNBORN_PATIENCE_S: Final = 0.3
_LOCK_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the caller should hear although it worked. ``code`` is stable."""

    code: str
    message: str


@dataclass(slots=True)
class _Synced:
    """When the last try to fetch that was carried through began (monotonic), and what came of it."""

    started: float
    notices: list[Notice] = field(default_factory=list)


class Mirrors:
    """All mirrors below one directory: ``<workspace>/<host>+<path…>.git``."""

    def __init__(self, root: Path, git: Git, reach: Callable[[str], None] = lambda _: None) -> None:
        self.root = root
        self.git = git
        self.reach = reach
        self._locks = CacheLocks()
        self._synced: dict[Path, _Synced] = {}

    def path(self, workspace_id: str, url: RepositoryUrl) -> Path:
        """Where the mirror is or will be."""
        workspace = "-".join(_SEGMENT.findall(workspace_id)) or "workspace"
        return self.root / workspace / url.cache_name

    def all(self) -> list[Path]:
        """Every whole mirror there is (touches the disk)."""
        return sorted(path for path in self.root.glob("*/*.git") if path.is_dir())

    def hold(
        self, mirror: Path, *, wait_s: float | None = None
    ) -> contextlib.AbstractAsyncContextManager[HeldLock]:
        """The lock under which everything else here is done."""
        path = mirror.with_name(f"{mirror.name}.lock")
        return self._locks.hold(path) if wait_s is None else self._locks.hold(path, wait_s=wait_s)

    def is_wanted(self, mirror: Path) -> bool:
        """Whether somebody of this daemon waits for the lock besides who has it."""
        return self._locks.is_wanted(mirror.with_name(f"{mirror.name}.lock"))

    async def run(
        self, held: HeldLock, mirror: Path, *arguments: str, check: bool = True, local: bool = False,
        limit_s: float | None = None,
    ) -> GitResult:  # fmt: skip
        """One git command on a mirror. Left-over lock files in its way are removed.

        Raises:
            GitCommandError, RepositoryError: as ``Git.run``.
        """
        for left in range(_LOCK_TRIES, -1, -1):
            try:
                return await self.git.run(
                    f"--git-dir={mirror}", *arguments, cwd=mirror, check=check, local=local, limit_s=limit_s,
                    on_start=held.note,
                )  # fmt: skip
            except GitCommandError as error:
                if not left or not await _clear_locks(mirror, error.lock_paths):
                    raise
        raise AssertionError("unreachable")

    # --- clone and fetch -------------------------------------------------------------------------

    async def sync(self, held: HeldLock, mirror: Path, url: RepositoryUrl, arrived: float) -> list[Notice]:
        """Make the mirror, or bring it up to date unless that was begun after ``arrived`` (monotonic).

        Raises:
            RepositoryUnavailableError: There is no mirror and none can be made: configured, but not synced.
            RepositoryError: It is damaged, and work trees use it.
        """
        await asyncio.to_thread(_remove_leftovers, mirror)
        if not mirror.exists():
            return await self._clone(held, mirror, url)
        synced = self._synced.get(mirror)
        if synced is not None and synced.started >= arrived:
            return synced.notices
        started = time.monotonic()
        notices: list[Notice] = []
        await _remove_unborn(mirror)
        try:
            await self._configure(held, mirror, url)
            await self._fetch(held, mirror, url)
        except GitCommandError as error:
            if error.damaged or not await self.is_whole(held, mirror):
                return await self.replace(held, mirror, url)
            notices = [_older(explain(error, url.text))]
        except RepositoryUnavailableError as error:  # it took too long
            notices = [_older(error)]
        self._synced[mirror] = _Synced(started, notices)
        return notices

    async def is_whole(self, held: HeldLock, mirror: Path) -> bool:
        """Whether git takes the directory for a repository whose branches lead to something."""
        asked = await self.run(held, mirror, "rev-parse", "--is-bare-repository", check=False)
        if asked.text not in ("true", "false"):
            return False
        refs = await self.run(
            held, mirror, "for-each-ref", "--format=%(objecttype) %(tree)", "refs/remotes", check=False
        )
        return refs.ok

    async def replace(self, held: HeldLock, mirror: Path, url: RepositoryUrl) -> list[Notice]:
        """Make a damaged mirror good: fetched again in place while work trees use it, else cloned anew.

        Raises:
            RepositoryUnavailableError, RepositoryError
        """
        users = await asyncio.to_thread(living_worktrees, mirror)
        if users:
            try:
                await self._configure(held, mirror, url)
                await self.run(held, mirror, *_fetch_arguments("--refetch"), local=url.local)
            except GitCommandError as error:
                raise RepositoryError(
                    "damaged",
                    f"the local copy of {url} is damaged and cannot be repaired while work trees use it"
                    f" ({', '.join(str(path) for path in users[:3])}): {explain(error, url.text)}",
                ) from error
            return [Notice("repaired", f"the local copy of {url} was damaged; it was fetched again")]
        await self._clone(held, mirror, url)
        return [Notice("replaced", f"the local copy of {url} was damaged; it was cloned anew")]

    async def _clone(self, held: HeldLock, mirror: Path, url: RepositoryUrl) -> list[Notice]:
        """A new mirror under its name; one that is there is set aside at the last moment."""
        started = time.monotonic()
        temporary = mirror.with_name(f"{mirror.name}.new-{uuid.uuid4().hex[:8]}")
        mirror.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            try:
                await self._fill(held, temporary, url, "sha1")
            except GitCommandError as error:
                if "mismatched algorithms" not in error.result.error:
                    raise
                await asyncio.to_thread(shutil.rmtree, temporary)
                await self._fill(held, temporary, url, "sha256")
        except GitCommandError as error:
            await asyncio.to_thread(shutil.rmtree, temporary, ignore_errors=True)
            raise _not_synced(url, explain(error, url.text)) from error
        except RepositoryUnavailableError as error:
            await asyncio.to_thread(shutil.rmtree, temporary, ignore_errors=True)
            raise _not_synced(url, error) from error
        except BaseException:
            # Cancelled: what is left is removed by whoever comes next, in no hurry here.
            raise
        self.reach("repo_cloned")
        if mirror.exists():
            os.rename(mirror, mirror.with_name(f"{mirror.name}.damaged-{time.time_ns()}"))
        os.rename(temporary, mirror)
        self._synced[mirror] = _Synced(started)
        return []

    async def _fill(self, held: HeldLock, directory: Path, url: RepositoryUrl, algorithm: str) -> None:
        await self.git.run(
            "init", "--quiet", "--bare", f"--object-format={algorithm}", str(directory),
            cwd=directory.parent, on_start=held.note,
        )  # fmt: skip
        # Work trees have settings of their own. core.bare must then be the mirror's alone (git-worktree(1)).
        await self.run(held, directory, "config", "extensions.worktreeConfig", "true")
        await self.run(held, directory, "config", "--worktree", "core.bare", "true")
        await self.run(held, directory, "config", "--unset", "core.bare", check=False)
        await self._configure(held, directory, url)
        self.reach("repo_cloning")
        await self._fetch(held, directory, url)

    async def _configure(self, held: HeldLock, mirror: Path, url: RepositoryUrl) -> None:
        """Set what this needs, where it differs: agents can write to the same file."""
        await asyncio.to_thread(write_excludes, mirror)
        found = await self.run(
            held, mirror, "config", "--get-regexp", r"^(remote\.origin|gc|maintenance)\.", check=False
        )
        have: dict[str, list[str]] = {}
        for line in found.text.splitlines():
            name, _, value = line.partition(" ")
            have.setdefault(name, []).append(value)
        # Nothing collects in the background: an automatic collection would work beside other tasks.
        wanted = {
            "remote.origin.url": url.text,
            "remote.origin.fetch": _FETCH,
            "gc.auto": "0",
            "maintenance.auto": "false",
        }
        for name, value in wanted.items():
            if have.get(name) != [value]:
                await self.run(held, mirror, "config", "--replace-all", name, value)

    async def _fetch(self, held: HeldLock, mirror: Path, url: RepositoryUrl) -> None:
        async with asyncio.TaskGroup() as group:
            head = group.create_task(self._server_head(mirror, url))
            fetched = group.create_task(self._caught(held, mirror, url))
        error = fetched.result()
        if error is not None:
            raise error
        self.reach("repo_fetched")
        name = head.result()
        if name:
            await self.run(held, mirror, "symbolic-ref", "HEAD", f"refs/heads/{name}", check=False)
            there = await self.run(
                held, mirror, "rev-parse", "--verify", "--quiet", f"refs/remotes/origin/{name}", check=False
            )
            if there.ok:
                await self.run(
                    held, mirror, "symbolic-ref", "refs/remotes/origin/HEAD", f"refs/remotes/origin/{name}",
                    check=False,
                )  # fmt: skip

    async def _caught(self, held: HeldLock, mirror: Path, url: RepositoryUrl) -> Exception | None:
        """The fetch; its failure as a value, so that a group does not wrap it."""
        try:
            await self.run(held, mirror, *_fetch_arguments(), local=url.local)
        except (GitCommandError, RepositoryError) as error:
            return error
        return None

    async def _server_head(self, mirror: Path, url: RepositoryUrl) -> str:
        """The branch that the server's HEAD names, or "" if that is not to be had."""
        with contextlib.suppress(GitCommandError, RepositoryError):
            said = await self.git.run(
                f"--git-dir={mirror}", "ls-remote", "--symref", "origin", "HEAD", cwd=mirror, local=url.local
            )
            for line in said.text.splitlines():
                if line.startswith("ref: refs/heads/") and line.endswith("\tHEAD"):
                    return line.removeprefix("ref: refs/heads/").removesuffix("\tHEAD")
        return ""

    # --- refs --------------------------------------------------------------------------------------

    async def resolve(self, held: HeldLock, mirror: Path, url: RepositoryUrl, ref: str) -> str:
        """The commit that a ref names: branch of the server, tag, raw revision; "" for the default branch.

        Raises:
            RepositoryInputError: ``bad_ref``.
            RefNotFoundError: ``unknown_ref``, ``no_default_branch``, ``empty``.
        """
        if not ref:
            return await self._default(held, mirror, url)
        check_ref(ref)
        short = ref.removeprefix("refs/heads/").removeprefix("refs/remotes/origin/")
        for candidate in (f"refs/remotes/origin/{short}", f"refs/tags/{ref.removeprefix('refs/tags/')}", ref):
            commit = await self._commit(held, mirror, candidate)
            if commit:
                return commit
        if _OBJECT_ID.fullmatch(ref) or ref.startswith("refs/"):
            # Not on any branch (a pull request, say): most servers give it when asked for it by name.
            asked = await self.run(
                held, mirror, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "origin",
                f"{ref}:refs/ostler/asked", "--force", check=False, local=url.local,
            )  # fmt: skip
            if asked.ok:
                commit = await self._commit(held, mirror, "refs/ostler/asked")
                if commit:
                    return commit
        raise RefNotFoundError("unknown_ref", f"there is no branch, tag or commit {ref!r} in {url}")

    async def _default(self, held: HeldLock, mirror: Path, url: RepositoryUrl) -> str:
        """In the protocol's order; an error rather than a guess."""
        head = (await self.run(held, mirror, "symbolic-ref", "--quiet", "HEAD", check=False)).text
        own = head.removeprefix("refs/heads/")
        for name in ("HEAD", "main", "master", own):
            commit = await self._commit(held, mirror, f"refs/remotes/origin/{name}") if name else ""
            if commit:
                return commit
        listed = await self.run(
            held, mirror, "for-each-ref", "--format=%(objectname) %(symref)", "refs/remotes/origin"
        )
        branches = [line.split()[0] for line in listed.text.splitlines() if len(line.split()) == 1]
        if len(branches) == 1:
            return branches[0]
        if not branches:
            commit = await self._commit(held, mirror, "HEAD")
            if commit:
                return commit
            raise RefNotFoundError("empty", f"{url} is empty: there is nothing to check out yet")
        raise RefNotFoundError(
            "no_default_branch", f"{url} does not say which of its branches is the default one; name a ref"
        )

    async def _commit(self, held: HeldLock, mirror: Path, name: str) -> str:
        found = await self.run(
            held, mirror, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}",
            check=False,
        )  # fmt: skip
        return found.text if found.ok else ""


def check_ref(ref: str) -> None:
    """Refuse what is no name of a branch, tag or commit, or could be taken for an option.

    Raises:
        RepositoryInputError: ``bad_ref``.
    """
    if not ref or ref.startswith(("-", "/")) or len(ref) > _REF_LIMIT or _REF_BAD.search(ref):
        raise RepositoryInputError("bad_ref", f"{ref[:80]!r} cannot be the name of a branch, tag or commit")


def living_worktrees(mirror: Path) -> list[Path]:
    """Directories of the work trees of a mirror that are there (touches the disk)."""
    found = []
    for entry in mirror.glob("worktrees/*/gitdir"):
        with contextlib.suppress(OSError):
            link = Path(entry.read_text("utf-8").strip())
            if link.is_file():
                found.append(link.parent)
    return sorted(found)


def write_excludes(mirror: Path) -> None:
    """Keep Ostler's own names out of what ``git status`` and ``git add`` see, in all work trees."""
    path = mirror / "info" / "exclude"
    block = "\n".join((_EXCLUDE_BEGIN, *(f"/{name}" for name in EXCLUDED), _EXCLUDE_END, ""))
    try:
        have = path.read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        have = ""
    if block in have:
        return
    before, _, rest = have.partition(_EXCLUDE_BEGIN)
    after = rest.partition(_EXCLUDE_END)[2].lstrip("\n")
    if before and not before.endswith("\n"):
        before += "\n"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f"exclude.{uuid.uuid4().hex[:8]}")
    temporary.write_text(before + block + after, "utf-8", "surrogateescape")
    os.replace(temporary, path)


def _fetch_arguments(*more: str) -> tuple[str, ...]:
    return (
        "fetch",
        "--quiet",
        "--prune",
        "--tags",
        "--force",
        "--no-write-fetch-head",
        "--no-auto-maintenance",
        "--no-recurse-submodules",
        "--upload-pack=git-upload-pack",  # an agent can write another one into the shared configuration
        *more,
        "origin",
    )


def _older(why: RepositoryError) -> Notice:
    return Notice("fetch_failed", f"this may be older code, since the newest could not be fetched: {why}")


def _not_synced(url: RepositoryUrl, why: RepositoryError) -> RepositoryError:
    text = f"{url} may be used here, but there is no copy of it yet: {why}"
    if isinstance(why, RepositoryUnavailableError):
        return RepositoryUnavailableError(why.code, text)
    return RepositoryError(why.code, text)


def _remove_leftovers(mirror: Path) -> None:
    """What a clone that died has left; nobody works on it, since its lock is ours."""
    for path in mirror.parent.glob(f"{_globbed(mirror.name)}.new-*"):
        shutil.rmtree(path, ignore_errors=True)


async def _remove_unborn(mirror: Path) -> None:
    """Take away work trees that a killed ``git worktree add`` has left before they had a commit: git takes
    the zeros in their HEAD for damage and refuses to fetch. Nothing but their ``.git`` file can be there."""
    for entry in await asyncio.to_thread(_unborn, mirror):
        await asyncio.sleep(_UNBORN_PATIENCE_S)  # an agent's own git may be at it just now
        if entry in await asyncio.to_thread(_unborn, mirror):
            await asyncio.to_thread(_remove_unborn_one, entry)


def _unborn(mirror: Path) -> list[Path]:
    found = []
    for entry in mirror.glob("worktrees/*"):
        try:
            head = (entry / "HEAD").read_text("utf-8", "replace").strip()
        except FileNotFoundError:
            head = ""
        except OSError:
            continue
        if not head.strip("0"):
            found.append(entry)
    return found


def _remove_unborn_one(entry: Path) -> None:
    with contextlib.suppress(OSError):
        link = Path((entry / "gitdir").read_text("utf-8").strip())
        if link.name == ".git" and [path.name for path in link.parent.iterdir()] == [".git"]:
            link.unlink()
            link.parent.rmdir()
    shutil.rmtree(entry, ignore_errors=True)


def _globbed(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


async def _clear_locks(mirror: Path, paths: list[str]) -> bool:
    """Remove lock files of a git that was killed; whether the command is worth another try."""
    inside = [path for path in map(Path, paths) if path.is_absolute() and path.is_relative_to(mirror)]
    if not inside:
        return False
    before = {path: _identity(path) for path in inside}
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while time.monotonic() < deadline:
        if all(_identity(path) != seen for path, seen in before.items()):
            return True
        await asyncio.sleep(0.1)
    for path, seen in before.items():
        if seen is not None and _identity(path) == seen:
            with contextlib.suppress(OSError):
                path.unlink()
    return True


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
