"""The state of a git work tree as a tree object, taken without leaving a trace in the repository.

Rules:

* The user's index, references, objects and files are only read. The index is copied, what is not in it yet is
  added to the copy, and objects go into a directory of ours that has the repository's as an alternate.
* Nothing of the user's is run: no hooks, no file-system monitor, no filters, no external diffs, no text
  conversions, and nothing is fetched.
* Every call has a deadline; a call that fails is a ``GitError`` and never more.
* Files above a limit, files under a filter and special files are not added: they are kept by size and time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

FILE_LIMIT_BYTES: Final = 2 * 1024 * 1024
TOTAL_LIMIT_BYTES: Final = 64 * 1024 * 1024
PATHS_LIMIT: Final = 10_000
REFS_LIMIT: Final = 20_000
COMMITS_LIMIT: Final = 200
EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_OUTPUT_LIMIT_BYTES: Final = 64 * 1024 * 1024
_BRANCHES: Final = b"refs/heads/"

_SETTINGS: Final = {
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.splitIndex": "false",
    "core.hooksPath": os.devnull,
    "core.bigFileThreshold": str(FILE_LIMIT_BYTES),
    "core.compression": "0",
    "core.quotePath": "false",
    "core.preloadIndex": "true",
    "core.safecrlf": "false",
    "advice.statusHints": "false",
    "status.showUntrackedFiles": "all",
    "status.relativePaths": "false",
    "diff.renameLimit": "1000",
    "diff.noprefix": "false",
    "diff.mnemonicPrefix": "false",
    "diff.ignoreSubmodules": "dirty",
    "log.showSignature": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "submodule.recurse": "false",
}


class GitError(Exception):
    """A git call did not succeed: refused, in time out of patience, or there is no git."""


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """A file that is known by size and time alone. ``why``: ``too_large``, ``filtered``, ``special``,
    ``unreadable`` or ``too_many``."""

    size: int
    mtime_ns: int
    why: str


class WorkTree(msgspec.Struct, kw_only=True, frozen=True):
    """Where a repository's work tree is. ``prefix`` (with a slash at its end, or empty) is the part of it
    that is looked at."""

    top: bytes
    git_dir: bytes
    prefix: bytes
    index: bytes
    objects: bytes


class TreeState(msgspec.Struct, kw_only=True):
    """A work tree at one moment."""

    tree: str
    head: str = ""
    """Empty: there is no commit yet."""
    branch: str = ""
    """Empty: no branch is checked out."""
    changed: list[bytes] = []
    """Paths (relative to the top) that differ from the last commit, untracked ones included."""
    changed_total: int = 0
    kept: dict[bytes, Kept] = {}


@dataclass(frozen=True, kw_only=True)
class GitFile:
    """One changed path, relative to the work tree's ``prefix``. Counts are None for binary content."""

    path: bytes
    old_path: bytes
    status: str
    """A, M, D, R or T, as git has it."""
    added: int | None = None
    deleted: int | None = None
    submodule: bool = False
    patch: bytes = b""
    cut: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class GitCommit:
    id: str
    author: str
    at: str
    committed: int
    """Seconds since the epoch."""
    subject: str


class Git:
    """Calls of git for one deadline."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline

    def run(
        self,
        arguments: Sequence[bytes | str],
        directory: bytes,
        *,
        environ: Mapping[str, str | bytes] | None = None,
        settings: Mapping[str, str] | None = None,
        given: bytes = b"",
        codes: Sequence[int] = (0,),
        limit_bytes: int = _OUTPUT_LIMIT_BYTES,
    ) -> bytes:
        """Standard output of one call, at most ``limit_bytes`` of it. Raises ``GitError``."""
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise GitError("out of time")
        env = dict(_environment({**_SETTINGS, **(settings or {})}))
        # As text: Windows takes no bytes here.
        env.update({name: os.fsdecode(value) for name, value in (environ or {}).items()})
        try:
            with subprocess.Popen(
                ["git", *arguments],
                cwd=directory,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as process:
                try:
                    out, err = process.communicate(given, timeout=left_s)
                except BaseException:
                    process.kill()
                    raise
        except subprocess.TimeoutExpired as error:
            raise GitError("out of time") from error
        except (OSError, ValueError) as error:
            raise GitError(str(error)) from error
        if process.returncode not in codes:
            raise GitError(err.decode("utf-8", "replace").strip()[-500:] or f"code {process.returncode}")
        return out[:limit_bytes]


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env.update(
        GIT_OPTIONAL_LOCKS="0",
        GIT_TERMINAL_PROMPT="0",
        GIT_LITERAL_PATHSPECS="1",
        GIT_NO_LAZY_FETCH="1",
        GIT_ALLOW_PROTOCOL="none",  # a git that does not know the line before still fetches nothing
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_PAGER="cat",
        LC_ALL="C",
        GIT_CONFIG_COUNT=str(len(settings)),
    )
    for number, (name, value) in enumerate(settings.items()):
        env[f"GIT_CONFIG_KEY_{number}"] = name
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    return env


def find_work_tree(directory: bytes, git: Git, *, ceiling: bytes | None = None) -> WorkTree | None:
    """The work tree that ``directory`` is in and not ignored by; None if there is none that can be used.

    Args:
        ceiling: A directory above which no repository is looked for.
    """
    if not _marker_above(directory, ceiling):
        return None  # without a process: most directories that Ostler makes are empty
    try:
        said = git.run(
            [
                "rev-parse", "--path-format=absolute", "--show-toplevel", "--absolute-git-dir",
                "--git-path", "index", "--git-path", "objects", "--show-prefix",
            ],
            directory,
        )  # fmt: skip
        lines = said.split(b"\n")
        if len(lines) != 6:
            return None  # no work tree, or a line feed in a name
        top, git_dir, index, objects, prefix, _ = lines
        if ceiling is not None and not _lies_in(top, os.path.realpath(ceiling)):
            return None
        if prefix and _is_ignored(top, prefix.rstrip(b"/"), git):
            return None
    except GitError:
        return None
    return WorkTree(top=top, git_dir=git_dir, prefix=prefix, index=index, objects=objects)


def _lies_in(path: bytes, directory: bytes) -> bool:
    return (path + b"/").startswith(directory.rstrip(b"/") + b"/")


def _is_ignored(top: bytes, path: bytes, git: Git) -> bool:
    try:
        # This command refuses literal path specifications; "./" keeps a leading colon from meaning something.
        git.run(["check-ignore", "-q", "--", b"./" + path], top, environ={"GIT_LITERAL_PATHSPECS": "0"})
    except GitError:
        return False
    return True


def _marker_above(directory: bytes, ceiling: bytes | None) -> bool:
    path = os.path.abspath(directory)
    while True:
        if os.path.lexists(os.path.join(path, b".git")):
            return True
        parent = os.path.dirname(path)
        if parent == path or path == ceiling:
            return False
        path = parent


def capture(work_tree: WorkTree, store: Path, git: Git, name: str) -> TreeState:
    """The present state as a tree whose new objects are in ``store``. Raises ``GitError``.

    Args:
        store: A directory of ours; ``name`` makes the scratch index in it unique.
    """
    scratch = store / f"{name}.index"
    environ = _object_environment(work_tree, store)
    environ["GIT_INDEX_FILE"] = str(scratch)
    try:
        # Its time is copied, too: git tells by it which entries may have changed in the same instant.
        shutil.copy2(os.fsdecode(work_tree.index), scratch)
    except FileNotFoundError:
        scratch.unlink(missing_ok=True)
    except OSError as error:
        raise GitError(str(error)) from error
    try:
        with ThreadPoolExecutor(1) as beside:
            finding = beside.submit(_filters, work_tree, git)
            head, branch = head_of(work_tree, git)
            filters = finding.result()
        said = git.run(
            [
                "status", "--porcelain=v1", "-z", "--untracked-files=all", "--ignore-submodules=dirty",
                "--no-renames", "--", *_scope(work_tree),
            ],
            work_tree.top, environ=environ, settings=filters,
        )  # fmt: skip
        state = TreeState(tree="", head=head, branch=branch)
        _add(work_tree, _entries(said), state, git, environ, filters)
        state.tree = git.run(["write-tree", "--missing-ok"], work_tree.top, environ=environ).decode().strip()
        return state
    finally:
        scratch.unlink(missing_ok=True)
        scratch.with_name(scratch.name + ".lock").unlink(missing_ok=True)


def head_of(work_tree: WorkTree, git: Git) -> tuple[str, str]:
    """The present commit and branch, empty where there is none."""
    out = git.run(["rev-parse", "-q", "--verify", "HEAD^{commit}"], work_tree.top, codes=(0, 1, 128))
    return out.decode().strip(), _branch(work_tree, git)


def _branch(work_tree: WorkTree, git: Git) -> str:
    """The branch that is checked out, empty where there is none; mostly without a process."""
    try:
        with open(os.path.join(work_tree.git_dir, b"HEAD"), "rb") as stream:
            kind, _, name = stream.read(4096).strip().partition(b" ")
    except OSError:
        kind = name = b""
    if kind == b"ref:" and name.startswith(_BRANCHES) and not name.endswith(b"/.invalid"):
        return name[len(_BRANCHES) :].decode("utf-8", "replace")
    with contextlib.suppress(GitError):  # references that are kept in another way, or no branch
        said = git.run(["symbolic-ref", "-q", "--short", "HEAD"], work_tree.top, codes=(0, 1))
        return said.decode("utf-8", "replace").strip()
    return ""


def known_commits(work_tree: WorkTree, git: Git) -> list[str]:
    """What every reference points to: whatever they reach was there before."""
    out = git.run(["for-each-ref", f"--count={REFS_LIMIT}", "--format=%(objectname)"], work_tree.top)
    return sorted(set(out.decode().split()))


def heads_visited(work_tree: WorkTree, since_bytes: int) -> list[str]:
    """Commits that this work tree's HEAD was at since its log had ``since_bytes``."""
    lines = _head_log(work_tree)
    size = sum(len(line) + 1 for line in lines)
    at = 0
    found: dict[str, None] = {}
    for line in lines:
        at += len(line) + 1
        if at <= since_bytes and size >= since_bytes:
            continue
        parts = line.split(b" ", 2)
        if len(parts) == 3 and set(parts[1]) != {ord("0")}:
            found[parts[1].decode("ascii", "replace")] = None
    return list(found)[-500:]


def head_log_bytes(work_tree: WorkTree) -> int:
    """Present length of the log of HEAD."""
    return sum(len(line) + 1 for line in _head_log(work_tree))


def first_commit(work_tree: WorkTree) -> str | None:
    """Where the log of HEAD begins: what was cloned or checked out first. ``""`` for a repository that began
    empty; None if there is no log."""
    lines = _head_log(work_tree)
    if not lines:
        return None
    facts, _, message = lines[0].partition(b"\t")
    if message.startswith(b"commit (initial)"):
        return ""
    parts = facts.split(b" ", 2)
    return parts[1].decode("ascii", "replace") if len(parts) == 3 else None


def _head_log(work_tree: WorkTree) -> list[bytes]:
    try:
        with open(os.path.join(work_tree.git_dir, b"logs", b"HEAD"), "rb") as stream:
            content = stream.read(8 * 1024 * 1024)
    except OSError:
        return []
    return content.split(b"\n")[:-1]


def tree_of(work_tree: WorkTree, commit: str, git: Git) -> str:
    """The tree of a commit; the empty one for ``""``."""
    if not commit:
        return EMPTY_TREE
    return git.run(["rev-parse", "--verify", f"{commit}^{{tree}}"], work_tree.top).decode().strip()


def commits_since(
    work_tree: WorkTree, known: Iterable[str], visited: Iterable[str], git: Git, *, head: str | None = None
) -> tuple[list[GitCommit], int]:
    """Commits that HEAD was at or is at, that a branch still has, and that were not there before.

    Newest first, at most ``COMMITS_LIMIT`` of them, and how many there are (counted up to ten times that).

    Args:
        head: The present commit, if the caller knows it.
    """
    known = set(known)
    head = head_of(work_tree, git)[0] if head is None else head
    starts = [*dict.fromkeys([*([head] if head else []), *visited])]
    if known.issuperset(starts):
        return [], 0
    negative = "".join(f"^{commit}\n" for commit in known)
    count = f"--max-count={COMMITS_LIMIT * 10}"
    alive = git.run(["rev-list", count, "--branches", "--ignore-missing", "--stdin"], work_tree.top,
                    given=(f"{head}\n" if head else "").encode() + negative.encode())  # fmt: skip
    kept = set(alive.decode().split())
    if not kept:
        return [], 0
    seen = git.run(["rev-list", count, "--ignore-missing", "--stdin"], work_tree.top,
                   given=("\n".join(starts) + "\n" + negative).encode())  # fmt: skip
    wanted = [commit for commit in seen.decode().split() if commit in kept]
    if not wanted:
        return [], 0
    out = git.run(
        ["log", "--no-walk=unsorted", "-z", "--format=%H%x1f%an%x1f%aI%x1f%ct%x1f%s", "--stdin"],
        work_tree.top, given="\n".join(wanted[:COMMITS_LIMIT]).encode() + b"\n",
    )  # fmt: skip
    found = []
    for record in out.split(b"\0"):
        parts = record.decode("utf-8", "replace").strip("\n").split("\x1f")
        if len(parts) == 5:
            found.append(
                GitCommit(id=parts[0], author=parts[1], at=parts[2], committed=int(parts[3] or 0),
                          subject=parts[4])
            )  # fmt: skip
    return found, len(wanted)


def differences(
    work_tree: WorkTree,
    before: TreeState,
    after: TreeState,
    stores: Sequence[Path],
    git: Git,
    *,
    shown_below: bytes = b"",
    patch_bytes: int,
    file_patch_bytes: int,
) -> list[GitFile]:
    """What differs between two states, moves found, sorted by path.

    Args:
        stores: The directories that ``capture`` was given, the one of ``after`` first.
        shown_below: Put before each path in the patches (with a slash at its end).
        patch_bytes: No more patch text than this in all; ``file_patch_bytes`` of a file.
    """
    environ = _object_environment(work_tree, stores[0], stores[1:])
    trees = [before.tree, after.tree]
    common = ["diff-tree", "-r", "-M", "--no-ext-diff", "--no-textconv", "--full-index"]
    if work_tree.prefix:
        common.append(b"--relative=" + work_tree.prefix)  # type: ignore[arg-type]
    listed = git.run([*common, "-z", "--raw", "--numstat", *trees], work_tree.top, environ=environ)
    found = _listed(listed)
    patches: list[bytes] = []
    if found:
        out = git.run(
            [
                *common, "-p", b"--src-prefix=a/" + shown_below, b"--dst-prefix=b/" + shown_below, *trees,
            ],
            work_tree.top, environ=environ,
        )  # fmt: skip
        patches = _pieces(out)
    return sorted(
        _without_kept(work_tree, before, after, _with_patches(found, patches, patch_bytes, file_patch_bytes),
                      git, environ),
        key=lambda file: file.path,
    )  # fmt: skip


# --- inside --------------------------------------------------------------------------------------------


@dataclass
class _Status:
    code: bytes
    path: bytes


@dataclass
class _Adding:
    paths: list[bytes] = field(default_factory=list)
    forget: list[bytes] = field(default_factory=list)
    size: int = 0


def _scope(work_tree: WorkTree) -> list[bytes]:
    return [work_tree.prefix.rstrip(b"/") or b"."]


def _object_environment(
    work_tree: WorkTree, store: Path, more: Sequence[Path] = ()
) -> dict[str, str | bytes]:
    own = store / "objects"
    own.mkdir(parents=True, exist_ok=True)
    others = [work_tree.objects, *(os.fsencode(each / "objects") for each in more)]
    return {
        "GIT_OBJECT_DIRECTORY": str(own),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": b":".join(_quoted(path) for path in others),
    }


def _quoted(path: bytes) -> bytes:
    return b'"' + path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'


def _filters(work_tree: WorkTree, git: Git) -> dict[str, str]:
    """Settings that switch every configured filter off."""
    out = git.run(["config", "-z", "--name-only", "--get-regexp", r"^filter\."], work_tree.top, codes=(0, 1))
    off: dict[str, str] = {}
    for key in out.decode("utf-8", "replace").split("\0"):
        base, _, last = key.rpartition(".")
        if base.startswith("filter.") and last:
            off |= {f"{base}.{name}": "" for name in ("clean", "smudge", "process")}
            off[f"{base}.required"] = "false"
    return off


def _entries(said: bytes) -> list[_Status]:
    return [_Status(record[:2], record[3:].rstrip(b"/")) for record in said.split(b"\0") if len(record) > 3]


_UNMERGED: Final = frozenset({b"DD", b"AU", b"UD", b"UA", b"DU", b"AA", b"UU"})


def _add(
    work_tree: WorkTree,
    entries: Sequence[_Status],
    state: TreeState,
    git: Git,
    environ: Mapping[str, str | bytes],
    filters: Mapping[str, str],
) -> None:
    state.changed_total = len(entries)
    state.changed = [entry.path for entry in entries[:PATHS_LIMIT]]
    # What equals the index is in the copied index already.
    stale = [entry for entry in entries if entry.code[1:] != b" "]
    filtered = _filtered(work_tree, [entry.path for entry in stale], git) if filters else frozenset()
    adding = _Adding()
    for entry in stale:
        _choose(work_tree, entry, entry.path in filtered, state, adding)
    for paths, how in ((adding.forget, "--force-remove"), (adding.paths, "--add")):
        if paths:
            git.run(
                ["update-index", "--add", "--remove", "--replace", *([how] if how != "--add" else []),
                 "-z", "--stdin"],
                work_tree.top, environ=environ, settings=filters, given=b"\0".join(paths) + b"\0",
            )  # fmt: skip


def _choose(work_tree: WorkTree, entry: _Status, filtered: bool, state: TreeState, adding: _Adding) -> None:
    full = os.path.join(work_tree.top, entry.path)
    try:
        facts = os.lstat(full)
    except OSError:
        adding.paths.append(entry.path)  # gone: taken out of the copied index
        return
    why = ""
    if stat.S_ISDIR(facts.st_mode):
        if _is_repository_without_commit(full):
            why = "special"
    elif stat.S_ISREG(facts.st_mode):
        if filtered:
            why = "filtered"
        elif facts.st_size > FILE_LIMIT_BYTES:
            why = "too_large"
        elif len(adding.paths) >= PATHS_LIMIT or adding.size + facts.st_size > TOTAL_LIMIT_BYTES:
            why = "too_many"
        elif not os.access(full, os.R_OK):
            why = "unreadable"
        else:
            adding.size += facts.st_size
    elif not stat.S_ISLNK(facts.st_mode):
        why = "special"
    if not why:
        adding.paths.append(entry.path)
        return
    state.kept[entry.path] = Kept(facts.st_size, facts.st_mtime_ns, why)
    if entry.code in _UNMERGED:
        adding.forget.append(entry.path)


def _is_repository_without_commit(path: bytes) -> bool:
    """A nested repository stands in the index as a commit; one without any cannot."""
    git_dir = os.path.join(path, b".git")
    if not os.path.isdir(git_dir):
        return False
    heads = os.path.join(git_dir, b"refs", b"heads")
    try:
        return not os.listdir(heads) and not os.path.exists(os.path.join(git_dir, b"packed-refs"))
    except OSError:
        return True


def _filtered(work_tree: WorkTree, paths: Sequence[bytes], git: Git) -> frozenset[bytes]:
    if not paths:
        return frozenset()
    out = git.run(
        ["check-attr", "-z", "--stdin", "filter"], work_tree.top, given=b"\0".join(paths) + b"\0"
    ).split(b"\0")
    return frozenset(
        path
        for path, value in zip(out[::3], out[2::3], strict=False)
        if value not in (b"unspecified", b"unset", b"")
    )


@dataclass
class _Row:
    status: str
    path: bytes
    old_path: bytes
    submodule: bool
    added: int | None = None
    deleted: int | None = None


def _listed(out: bytes) -> list[_Row]:
    """``--raw --numstat -z``: all raw records, then all counts, in the same order."""
    fields = out.split(b"\0")
    rows: list[_Row] = []
    at = 0
    while at < len(fields) and fields[at].startswith(b":"):
        old_mode, new_mode, _, _, status = fields[at][1:].split(b" ")
        letter = status[:1].decode()
        pair = letter in "RC"
        old_path, path = fields[at + 1], fields[at + 2 if pair else at + 1]
        rows.append(_Row(letter, path, old_path, b"160000" in (old_mode, new_mode)))
        at += 3 if pair else 2
    for row in rows:
        if at >= len(fields) or not fields[at]:
            break
        added, deleted, path = fields[at].split(b"\t", 2)
        if added != b"-":
            row.added, row.deleted = int(added), int(deleted)
        at += 1 if path else 3
    return rows


def _pieces(out: bytes) -> list[bytes]:
    """A patch by file: within a file no line begins with the word ``diff``."""
    parts = out.split(b"\ndiff --git ")
    return [parts[0] + b"\n", *(b"diff --git " + part + b"\n" for part in parts[1:])] if out else []


def _with_patches(
    rows: Sequence[_Row], pieces: Sequence[bytes], limit_bytes: int, file_limit_bytes: int
) -> list[GitFile]:
    found = []
    at = 0
    left = limit_bytes
    for row in rows:
        count = 2 if row.status == "T" else 1  # told as taken away and made anew
        patch = b"".join(pieces[at : at + count])
        if patch.endswith(b"\n\n"):
            patch = patch[:-1]  # the last piece had its own line feed
        at += count
        size = min(left, file_limit_bytes)
        cut = len(patch) > size
        if cut:
            patch = patch[: patch.rfind(b"\n", 0, size) + 1]
        left -= len(patch)
        found.append(
            GitFile(
                path=row.path, old_path=row.old_path, status="A" if row.status == "C" else row.status,
                added=row.added, deleted=row.deleted, submodule=row.submodule, patch=patch, cut=cut,
            )
        )  # fmt: skip
    return found


def _without_kept(
    work_tree: WorkTree,
    before: TreeState,
    after: TreeState,
    files: Sequence[GitFile],
    git: Git,
    environ: Mapping[str, str | bytes],
) -> list[GitFile]:
    """Put right what the trees cannot know: files that are known by size and time alone."""
    prefix = work_tree.prefix
    kept = {path for path in before.kept.keys() | after.kept.keys() if path.startswith(prefix)}
    if not kept:
        return list(files)
    found = []
    for file in files:
        if prefix + file.path not in kept:
            if file.status == "R" and prefix + file.old_path in kept:
                file = GitFile(path=file.path, old_path=file.path, status="A", added=file.added,
                               deleted=file.deleted, note="moved")  # fmt: skip
            found.append(file)
    in_tree = _in_tree(work_tree, before.tree, sorted(kept), git, environ)
    for path in sorted(kept):
        old, now = before.kept.get(path), after.kept.get(path)
        if old is not None and now is not None and (old.size, old.mtime_ns) == (now.size, now.mtime_ns):
            continue
        was_there = old is not None or path in in_tree
        is_there = now is not None or os.path.lexists(os.path.join(work_tree.top, path))
        if not was_there and not is_there:
            continue
        status = "M" if was_there and is_there else "A" if is_there else "D"
        why = (now or old or Kept(0, 0, "")).why
        name = path[len(prefix) :]
        found.append(GitFile(path=name, old_path=name, status=status, note=why))
    return found


def _in_tree(
    work_tree: WorkTree, tree: str, paths: Sequence[bytes], git: Git, environ: Mapping[str, str | bytes]
) -> frozenset[bytes]:
    found: set[bytes] = set()
    for start in range(0, len(paths), 500):
        part = paths[start : start + 500]
        out = git.run(
            ["ls-tree", "-z", "--name-only", "--full-name", tree, "--", *part], work_tree.top, environ=environ
        )
        found.update(out.split(b"\0"))
    return frozenset(found)
