"""What a task changed: a baseline before its first process, the comparison while it runs and at its end.

In a git work tree the state (the user's uncommitted and untracked changes included) is a tree, so what the
user had changed before is never taken for the task's, and what the agent committed is no less a change.
Elsewhere it is a bounded snapshot. A task's directory can be both: repositories directly inside it are looked
at as such. What could not be looked at is said in ``notes``; nothing here can make a task fail.

On disk, below one directory of the profile, a directory a task:

    baseline/baseline    how it was; with objects, copies beside it. Removed when the task has ended.
    changes.json         what came of it. Kept as long as the task is.
    files                how many files that are: for lists, which do not read all of it.

Everything here touches the disk and is called from threads, one call a task at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from daemon_core.workdirs import gitstate, textdiff
from daemon_core.workdirs.gitstate import Git, GitError, GitFile, TreeState, WorkTree
from daemon_core.workdirs.snapshots import (
    Difference,
    Entry,
    Snapshot,
    SnapshotLimits,
    compare,
    is_binary,
    read_copy,
    read_file,
    take_snapshot,
)

log = logging.getLogger(__name__)

BASELINE_S: Final = 3.0
"""Longest delay of a start: a work tree of 100,000 files takes less than a second on a warm disk."""
COMPARE_S: Final = 20.0
FILES_LIMIT: Final = 5_000
FILE_DIFF_BYTES: Final = 256 * 1024
DIFF_BYTES: Final = 3 * 1024 * 1024
BEFORE_LIMIT: Final = 1_000
REPOSITORIES_LIMIT: Final = 20
COUNTS_LIMIT: Final = 1_000
"""Counts that are kept in memory."""
_CLOCK_SLACK_S: Final = 5


class Note(msgspec.Struct, kw_only=True, frozen=True):
    """Something about the answer that the reader has to know, as a code.

    ``bounded`` (count: directories not looked into), ``copies_cut``, ``diff_cut``, ``files_cut`` (total),
    ``before_unknown`` (path: what was changed before is not told apart there), ``base_unknown`` (path: only
    what is not committed), ``not_compared`` (path, why), ``no_baseline``.
    """

    code: str
    params: dict[str, str | int] = {}


class Commit(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    subject: str = ""
    author: str = ""
    at: str = ""
    repository: str = ""
    """Path below the task's directory; empty: the directory itself."""
    made: bool = True
    """False: it was made before the task began, and only fetched or merged by it."""


class FileChange(msgspec.Struct, kw_only=True, frozen=True):
    """One file. Counts are None where there is no text to count."""

    path: str
    status: str
    """added, modified, deleted, renamed or type_changed."""
    old_path: str = ""
    added: int | None = None
    deleted: int | None = None
    binary: bool = False
    before: bool = False
    """Whether the user had changed it before; the diff shows the task's part alone."""
    note: str = ""
    """Why there is no diff: too_large, filtered, special, unreadable, too_many, submodule, not_copied."""
    cut: bool = False
    diff: str = ""


class Changes(msgspec.Struct, kw_only=True, frozen=True):
    """Everything that a task changed in its directory."""

    work_dir: str
    taken_at: float
    """Seconds since the epoch."""
    since: float = 0.0
    kind: str = "snapshot"
    """``git``: the directory is in a work tree. ``snapshot``: it is not (repositories inside it may be)."""
    files: list[FileChange] = []
    files_total: int = 0
    added: int = 0
    deleted: int = 0
    commits: list[Commit] = []
    commits_total: int = 0
    before: list[str] = []
    """What differed from the last commit before the task began: the user's own changes."""
    before_total: int = 0
    notes: list[Note] = []


class _Root(msgspec.Struct, kw_only=True):
    """A repository as it was. ``name``: its path below the work directory, with a slash, or empty."""

    name: bytes
    work_tree: WorkTree
    state: TreeState
    known: list[str] = []
    log_bytes: int = 0
    before_known: bool = True


class _Baseline(msgspec.Struct, kw_only=True):
    run_id: str
    work_dir: bytes
    own: bool
    at: float
    roots: list[_Root] = []
    snapshot: Snapshot | None = None
    ours: list[bytes] = []


class ChangeStore:
    """Baselines and changes of all tasks of a profile, by the task's key."""

    def __init__(self, root: Path, *, limits: SnapshotLimits | None = None) -> None:
        self.root = root
        self.limits = limits or SnapshotLimits()
        self._counts: OrderedDict[str, int] = OrderedDict()

    def begin(self, key: str, run_id: str, work_dir: str, *, own: bool, ours: Collection[str] = ()) -> None:
        """Take the baseline before a run is started.

        An earlier run of the same try of the task has left one: that one stays. One left by this very run is
        of a start that was cut short, and taken anew.

        Args:
            own: Ostler made the directory: no repository above it is looked at.
            ours: Paths in it that Ostler has written: no changes of the user.

        Raises:
            OSError: It cannot be kept.
        """
        place = self._place(key)
        old = self._baseline(place)
        if old is not None and old.run_id != run_id and old.work_dir == os.fsencode(work_dir):
            return
        shutil.rmtree(place / "baseline", ignore_errors=True)
        (place / "files").unlink(missing_ok=True)
        (place / "changes.json").unlink(missing_ok=True)
        self._counts.pop(key, None)
        store = place / "baseline"
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = _take(os.fsencode(work_dir), run_id, own, store, self.limits)
        found.ours = [os.fsencode(path) for path in ours]
        _write(store / "baseline", msgspec.msgpack.encode(found))

    def now(self, key: str) -> Changes | None:
        """What a running task has changed so far; None without a baseline."""
        place = self._place(key)
        baseline = self._baseline(place)
        return None if baseline is None else self._compare(place, baseline)

    def finish(self, key: str) -> None:
        """The task has ended: keep what it changed, let go of the baseline. Nothing happens without one.

        Raises:
            OSError: It cannot be kept; the baseline then stays.
        """
        place = self._place(key)
        baseline = self._baseline(place)
        if baseline is not None:
            found = self._compare(place, baseline)
            _write(place / "changes.json", msgspec.json.encode(found))
            _write(place / "files", b"%d" % found.files_total)
            self._remember(key, found.files_total)
        shutil.rmtree(place / "baseline", ignore_errors=True)
        with contextlib.suppress(OSError):
            place.rmdir()  # only if nothing is in it

    def read(self, key: str) -> Changes | None:
        """What an ended task changed."""
        try:
            return msgspec.json.decode((self._place(key) / "changes.json").read_bytes(), type=Changes)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def counted(self, key: str) -> int | None:
        """How many files an ended task changed, if that was told lately; asks no disk."""
        return self._counts.get(key)

    def count(self, key: str) -> int | None:
        """How many files an ended task changed; None where nothing is known of it."""
        try:
            found = int((self._place(key) / "files").read_bytes())
        except (OSError, ValueError):
            return None
        self._remember(key, found)
        return found

    def _remember(self, key: str, count: int) -> None:
        self._counts[key] = count
        while len(self._counts) > COUNTS_LIMIT:
            self._counts.popitem(last=False)

    def has_baseline(self, key: str) -> bool:
        """Whether a comparison is possible."""
        return (self._place(key) / "baseline" / "baseline").exists()

    def names(self) -> list[str]:
        """What is here, for ``forget_others``."""
        try:
            return [entry.name for entry in os.scandir(self.root)]
        except FileNotFoundError:
            return []

    def forget_others(self, keys: Iterable[str], names: Sequence[str]) -> int:
        """Remove what belongs to none of these tasks; gives how many were removed.

        Args:
            names: ``names()`` of before the keys were looked up: what came since then is not judged.
        """
        wanted = {_name(key) for key in keys}
        gone = [name for name in names if name not in wanted]
        for name in gone:
            shutil.rmtree(self.root / name, ignore_errors=True)
        return len(gone)

    def _place(self, key: str) -> Path:
        return self.root / _name(key)

    def _baseline(self, place: Path) -> _Baseline | None:
        try:
            return msgspec.msgpack.decode((place / "baseline" / "baseline").read_bytes(), type=_Baseline)
        except (OSError, ValueError):
            return None

    def _compare(self, place: Path, baseline: _Baseline) -> Changes:
        scratch = place / "baseline" / f"now-{uuid.uuid4().hex[:8]}"
        scratch.mkdir(mode=0o700)
        try:
            return _Comparison(baseline, place / "baseline", scratch, self.limits).made()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _name(key: str) -> str:
    # Ids come from servers: a digest is a file name whatever they contain.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _write(target: Path, content: bytes) -> None:
    temporary = target.with_name(target.name + ".new")
    temporary.write_bytes(content)
    os.replace(temporary, target)


# --- the baseline ----------------------------------------------------------------------------------------


def _take(work_dir: bytes, run_id: str, own: bool, store: Path, limits: SnapshotLimits) -> _Baseline:
    began = time.monotonic()
    git = Git(began + BASELINE_S)
    found = _Baseline(run_id=run_id, work_dir=work_dir, own=own, at=time.time())
    whole = gitstate.find_work_tree(work_dir, git, ceiling=work_dir if own else None)
    if whole is not None:
        root = _root(b"", whole, store, git, began)
        if root is not None:
            found.roots.append(root)
            return found
    for name in _repositories_inside(work_dir):
        inside = gitstate.find_work_tree(
            os.path.join(work_dir, name), git, ceiling=os.path.join(work_dir, name)
        )
        root = _root(name + b"/", inside, store, git, began) if inside is not None else None
        if root is not None:
            found.roots.append(root)
    with open(store / "copies", "wb") as copies:
        found.snapshot = take_snapshot(
            work_dir,
            copies,
            limits=limits,
            leave_out=[root.name.rstrip(b"/") for root in found.roots],
        )
    return found


def _root(name: bytes, work_tree: WorkTree, store: Path, git: Git, began: float) -> _Root | None:
    label = f"base{hashlib.sha256(name).hexdigest()[:8]}"
    try:
        with ThreadPoolExecutor(1) as beside:
            listing = beside.submit(gitstate.known_commits, work_tree, git)
            state = gitstate.capture(work_tree, store, git, label)
            known = listing.result()
        return _Root(
            name=name, work_tree=work_tree, state=state, known=known,
            log_bytes=gitstate.head_log_bytes(work_tree),
        )  # fmt: skip
    except (GitError, OSError) as error:
        log.info("the state of %s was not taken: %s", textdiff.shown(work_tree.top), error)
    # Too large or not to be read in time: at least the last commit, which costs nothing to know.
    short = Git(max(git.deadline, time.monotonic() + 1.0))
    try:
        head, branch = gitstate.head_of(work_tree, short)
        return _Root(
            name=name,
            work_tree=work_tree,
            state=TreeState(tree=gitstate.tree_of(work_tree, head, short), head=head, branch=branch),
            known=gitstate.known_commits(work_tree, short),
            log_bytes=gitstate.head_log_bytes(work_tree),
            before_known=False,
        )
    except (GitError, OSError):
        return None


def _repositories_inside(work_dir: bytes) -> list[bytes]:
    found = []
    try:
        with os.scandir(work_dir) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and os.path.lexists(os.path.join(entry.path, b".git")):
                    found.append(entry.name)
                    if len(found) >= REPOSITORIES_LIMIT:
                        break
    except OSError:
        pass
    return sorted(found)


# --- the comparison --------------------------------------------------------------------------------------


class _Comparison:
    """Compares one baseline with the present."""

    def __init__(self, baseline: _Baseline, store: Path, scratch: Path, limits: SnapshotLimits) -> None:
        self.baseline = baseline
        self.store = store
        self.scratch = scratch
        self.limits = limits
        self.git = Git(time.monotonic() + COMPARE_S)
        self.files: list[FileChange] = []
        self.commits: list[Commit] = []
        self.commits_total = 0
        self.before: list[bytes] = []
        self.before_total = 0
        self.notes: list[Note] = []
        self.left_bytes = DIFF_BYTES

    def made(self) -> Changes:
        """The answer."""
        baseline = self.baseline
        for root in baseline.roots:
            self._old_repository(root)
        whole = any(not root.name for root in baseline.roots)
        if not whole and baseline.snapshot is not None:
            self._plain(baseline.snapshot, self._new_repositories(baseline.snapshot))
        elif not whole:
            self._note("no_baseline")
        files = sorted(self.files, key=lambda file: file.path)
        if any(file.cut for file in files):
            self._note("diff_cut")
        if len(files) > FILES_LIMIT:
            self._note("files_cut", total=len(files))
        return Changes(
            work_dir=textdiff.shown(baseline.work_dir),
            taken_at=time.time(),
            since=baseline.at,
            kind="git" if whole else "snapshot",
            files=files[:FILES_LIMIT],
            files_total=len(files),
            added=sum(file.added or 0 for file in files),
            deleted=sum(file.deleted or 0 for file in files),
            commits=self.commits,
            commits_total=self.commits_total,
            before=[textdiff.shown(path) for path in self.before[:BEFORE_LIMIT]],
            before_total=self.before_total,
            notes=self.notes,
        )

    def _note(self, code: str, **params: str | int) -> None:
        self.notes.append(Note(code=code, params=params))

    # --- repositories ----------------------------------------------------------------------------

    def _old_repository(self, root: _Root) -> None:
        tree = root.work_tree
        shown_name = textdiff.shown(root.name.rstrip(b"/"))
        cut = len(tree.prefix)
        own_changes = [path[cut:] for path in root.state.changed if path.startswith(tree.prefix)]
        ours = [path for path in own_changes if _is_ours(root.name + path, self.baseline.ours)]
        self.before += [root.name + path for path in own_changes if path not in ours]
        self.before_total += root.state.changed_total - len(ours)
        if not root.before_known:
            self._note("before_unknown", path=shown_name)
        if not os.path.isdir(os.path.join(tree.top, tree.prefix)):
            self._note("not_compared", path=shown_name, why="gone")
            return
        head = None
        try:
            state = gitstate.capture(tree, self.scratch, self.git, "now")
            files = gitstate.differences(
                tree, root.state, state, [self.scratch, self.store], self.git,
                shown_below=root.name, patch_bytes=self.left_bytes, file_patch_bytes=FILE_DIFF_BYTES,
            )  # fmt: skip
        except (GitError, OSError) as error:
            self._note("not_compared", path=shown_name, why=str(error)[-200:])
        else:
            head = state.head
            self._take_files(root.name, files, frozenset(own_changes))
        visited = gitstate.heads_visited(tree, root.log_bytes)
        self._take_commits(tree, shown_name, root.known, visited, head)

    def _new_repository(self, name: bytes, tree: WorkTree) -> None:
        """One that came while the task ran: cloned, checked out or begun by it."""
        shown_name = textdiff.shown(name.rstrip(b"/"))
        first = gitstate.first_commit(tree)
        try:
            if first is None:
                first, _ = gitstate.head_of(tree, self.git)
                self._note("base_unknown", path=shown_name)
            before = TreeState(tree=gitstate.tree_of(tree, first, self.git), head=first)
            state = gitstate.capture(tree, self.scratch, self.git, "now")
            files = gitstate.differences(
                tree, before, state, [self.scratch, self.store], self.git,
                shown_below=name, patch_bytes=self.left_bytes, file_patch_bytes=FILE_DIFF_BYTES,
            )  # fmt: skip
        except (GitError, OSError) as error:
            self._note("not_compared", path=shown_name, why=str(error)[-200:])
            return
        self._take_files(name, files, frozenset())
        known = [first] if first else []
        self._take_commits(tree, shown_name, known, gitstate.heads_visited(tree, 0), state.head)

    def _take_files(self, name: bytes, files: Iterable[GitFile], before: Collection[bytes]) -> None:
        words = {"A": "added", "M": "modified", "D": "deleted", "R": "renamed", "T": "type_changed"}
        for file in files:
            self.left_bytes -= len(file.patch)
            moved = file.status == "R"
            binary = file.added is None and not file.note and not file.submodule
            self.files.append(
                FileChange(
                    path=textdiff.shown(name + file.path),
                    old_path=textdiff.shown(name + file.old_path) if moved else "",
                    status=words.get(file.status, "modified"),
                    added=file.added,
                    deleted=file.deleted,
                    binary=binary,
                    before=file.path in before or file.old_path in before,
                    note=file.note or ("submodule" if file.submodule else ""),
                    cut=file.cut,
                    diff=file.patch.decode("utf-8", "replace"),
                )
            )

    def _take_commits(
        self,
        tree: WorkTree,
        shown_name: str,
        known: Collection[str],
        visited: Collection[str],
        head: str | None,
    ) -> None:
        try:
            found, total = gitstate.commits_since(tree, known, visited, self.git, head=head)
        except GitError as error:
            log.info("the commits in %s are not told: %s", textdiff.shown(tree.top), error)
            return
        self.commits_total += total
        self.commits += [
            Commit(
                id=commit.id,
                subject=commit.subject,
                author=commit.author,
                at=commit.at,
                repository=shown_name,
                made=commit.committed >= self.baseline.at - _CLOCK_SLACK_S,
            )
            for commit in found
        ]

    # --- plain directories -----------------------------------------------------------------------

    def _new_repositories(self, before: Snapshot) -> list[bytes]:
        """Look at repositories that were not there; gives the directories that they are."""
        work_dir = self.baseline.work_dir
        known = {root.name for root in self.baseline.roots}
        found = [root.name.rstrip(b"/") for root in self.baseline.roots]
        for name in _repositories_inside(work_dir):
            if name + b"/" in known or any(path.startswith(name + b"/") for path in before.entries):
                continue  # known as such, or a directory whose files the snapshot has
            place = os.path.join(work_dir, name)
            tree = gitstate.find_work_tree(place, self.git, ceiling=place)
            if tree is not None:
                self._new_repository(name + b"/", tree)
                found.append(name)
        return found

    def _plain(self, before: Snapshot, repositories: Collection[bytes]) -> None:
        work_dir = self.baseline.work_dir
        copies = self.store / "copies"
        after = take_snapshot(
            work_dir,
            limits=SnapshotLimits(entries=self.limits.entries * 2, time_s=self.limits.time_s * 2),
            leave_out=[*repositories, *(path for path in before.uncovered if path)],
            deadline=self.git.deadline,
        )
        count = len(before.uncovered) + len(after.uncovered)
        if count:
            self._note("bounded", count=count)
        if before.copies_cut:
            self._note("copies_cut")
        for number, difference in enumerate(compare(before, after, work_dir, copies)):
            self.files.append(self._plain_file(difference, copies, told=number < FILES_LIMIT))

    def _plain_file(self, found: Difference, copies: Path, *, told: bool) -> FileChange:
        old, now = found.before, found.after
        path, old_path = textdiff.shown(found.path), textdiff.shown(found.old_path)
        status = "added" if old is None else "deleted" if now is None else "modified"
        if old is not None and now is not None:
            if found.path != found.old_path:
                return FileChange(path=path, old_path=old_path, status="renamed", added=0, deleted=0)
            if old.kind != now.kind:
                return FileChange(path=path, status="type_changed", note="special")
        if not told or self.left_bytes <= 0 or self.git.deadline <= time.monotonic():
            return FileChange(path=path, status=status, cut=True)
        before, why = _content(old, lambda entry: read_copy(copies, entry))
        after, why_now = _content(
            now, lambda entry: read_file(os.path.join(self.baseline.work_dir, found.path),
                                         self.limits.file_bytes)
        )  # fmt: skip
        if (old is not None and before is None) or (now is not None and after is None):
            return FileChange(path=path, status=status, note=why or why_now or "not_copied")
        if is_binary(before or b"") or is_binary(after or b""):
            return FileChange(path=path, status=status, binary=True)
        entry = now or old
        assert entry is not None
        mode = "120000" if entry.kind == "l" else "100755" if entry.mode & 0o111 else "100644"
        made = textdiff.unified(before, after, path, path, mode)
        if made is None:
            return FileChange(path=path, status=status, note="too_large")
        text = made.text
        limit = min(FILE_DIFF_BYTES, self.left_bytes)
        cut = len(text) > limit
        if cut:
            text = text[: text.rfind("\n", 0, limit) + 1]
        self.left_bytes -= len(text)
        return FileChange(
            path=path, status=status, added=made.added, deleted=made.deleted, cut=cut, diff=text
        )


def _is_ours(path: bytes, ours: Collection[bytes]) -> bool:
    return any(path == each or path.startswith(each.rstrip(b"/") + b"/") for each in ours)


def _content(entry: Entry | None, read: Callable[[Entry], bytes | None]) -> tuple[bytes | None, str]:
    """Content of one side, or why there is none to show."""
    if entry is None:
        return None, ""
    if entry.kind == "l":
        return entry.target, ""
    if entry.kind != "f":
        return None, "special"
    content = read(entry)
    if content is None:
        return None, "too_large" if entry.size > SnapshotLimits.file_bytes else "not_copied"
    return content, ""
